"""The advice after a stage: exact config changes beside the measured values."""

import pytest
from sharpstudent.report.guide import (
    DistillationSettings,
    advise_no_gain,
    advise_on_decline,
    advise_on_nan,
)
from sharpstudent.tasks.deepfake.report.guide import describe_next_after_stage1, describe_next_after_stage2
from sharpstudent.train.alarms import advise_on_ratio

DEFAULTS = DistillationSettings(alpha_start=0.95, alpha_end=0.5, progressive_epochs=20, temperature=3.0, epochs=20)


def after_stage2(val_auc: float, stage1_auc: float | None, *, bands: bool) -> str:
    lines = describe_next_after_stage2(
        val_auc=val_auc, stage1_auc=stage1_auc, checkpoint="best_model.pth", settings=DEFAULTS, bands=bands
    )
    return "\n".join(lines)


def test_after_stage_1_comes_what_follows_and_its_command() -> None:
    following = ("Next, stage 2: let the teacher help.", "  python main_distillation.py c.json -n run")
    lines = describe_next_after_stage1(val_auc=0.9, checkpoint="best_model.pth", following=following, bands=False)
    assert lines == ["Stage 1 is done: best validation AUC 0.9000, best_model.pth", *following]


@pytest.mark.parametrize(("auc", "where"), [(0.87, "below"), (0.88, "inside"), (0.92, "inside"), (0.921, "above")])
def test_stage_1_is_compared_with_the_guides_band_on_the_published_data_only(auc: float, where: str) -> None:
    text = "\n".join(describe_next_after_stage1(val_auc=auc, checkpoint="b", following=(), bands=True))
    assert f"measured {auc:.4f}, the guide expects 0.88-0.92: {where} the band (the guide also says 0.85-0.90)" in text
    assert "band" not in "\n".join(describe_next_after_stage1(val_auc=auc, checkpoint="b", following=(), bands=False))


def test_a_weak_stage_1_is_advised_to_train_longer() -> None:
    text = "\n".join(describe_next_after_stage1(val_auc=0.7, checkpoint="b", following=(), bands=True))
    assert "`stage1.epoch` of 50 or more" in text


def test_stage_2_names_its_gain_and_the_guides_band() -> None:
    text = after_stage2(0.93, 0.91, bands=True)
    assert "measured 0.9300, the guide expects 0.90-0.94: inside the band" in text
    assert "Against stage 1 (0.9100): +0.0200; the guide expects +0.01 to +0.03" in text
    assert "--set use_progressive_distillation=false --set alpha_end=1" in text
    assert "guide" not in after_stage2(0.93, 0.91, bands=False)


def test_a_lower_auc_than_stage_1_brings_the_advice_for_low_auc() -> None:
    assert "stage2.alpha_start=0.98" in after_stage2(0.80, 0.85, bands=False)


def test_no_gain_over_stage_1_brings_the_advice_for_more_teacher() -> None:
    assert "stage2.alpha_end=0.3" in after_stage2(0.851, 0.85, bands=False)


def test_an_unknown_auc_of_stage_1_is_reported_as_unknown() -> None:
    assert "its validation AUC is not known" in after_stage2(0.9, None, bands=False)


def test_the_exact_changes_for_low_auc() -> None:
    assert advise_on_decline(DEFAULTS, what="AUC") == [
        "  Low validation AUC: the student may lean on soft labels too early. Try, one at a time:",
        "    --set stage2.alpha_start=0.98  (now 0.95; more hard labels at the start)",
        "    --set stage2.progressive_epochs=30  (now 20; a slower hand-over)",
        "    --set stage2.temperature=2  (now 3; sharper targets)",
    ]


def test_the_exact_changes_for_no_gain() -> None:
    assert advise_no_gain(DEFAULTS) == [
        "  No gain over stage 1: little came over from the teacher. Try, one at a time:",
        "    --set stage2.alpha_end=0.3  (now 0.5; more soft labels at the end)",
        "    --set stage2.temperature=4  (now 3; softer targets)",
        "    --set stage2.epoch=100  (now 20; longer training)",
    ]


def test_a_change_that_the_config_already_has_is_not_advised() -> None:
    done = DistillationSettings(alpha_start=0.98, alpha_end=0.3, progressive_epochs=30, temperature=2.0, epochs=100)
    assert advise_on_decline(done, what="AUC") == [
        "  The guide's changes for this case are all made already; more or other data is what is left."
    ]
    assert ["temperature" in line for line in advise_no_gain(done)] == [False, True]


def test_advice_on_nan_checks_accuracy_file_and_epochs() -> None:
    known = "\n".join(advise_on_nan(checkpoint="output/x/best_model.pth", stage1_accuracy=0.64, stage1_epochs=10))
    assert "more than 80% accuracy (here: 64.0%)" in known
    assert "output/x/best_model.pth" in known
    assert "50 epochs or more (here: 10)" in known
    unknown = "\n".join(advise_on_nan(checkpoint=None))
    assert "none: run stage 1 first" in unknown
    assert unknown.count("not known") == 2


@pytest.mark.parametrize(("ratio", "words"), [(0.05, "below 0.1"), (20.0, "above 10"), (0.1, ""), (10.0, "")])
def test_terms_out_of_balance_are_reported_with_the_key_to_change(ratio: float, words: str) -> None:
    lines = advise_on_ratio(ratio, stage=2)
    assert bool(lines) == bool(words)
    assert all(words in line and "stage2.alpha_end" in line for line in lines)


def test_a_loss_in_native_terms_gets_advice_without_the_guides_keys() -> None:
    lines = describe_next_after_stage2(
        val_auc=0.8, stage1_auc=0.85, checkpoint="best_model.pth", settings=None, bands=False
    )
    assert "less weight on the teacher's terms" in "\n".join(lines)
    assert "alpha" not in "\n".join(lines)


@pytest.mark.parametrize(("settings", "words"), [(DEFAULTS, "alpha_end=1"), (None, "stage2.terms=[")])
def test_the_advice_for_a_control_uses_the_keys_of_the_config(
    settings: DistillationSettings | None, words: str
) -> None:
    lines = describe_next_after_stage2(
        val_auc=0.9, stage1_auc=0.8, checkpoint="best_model.pth", settings=settings, bands=False
    )
    assert words in lines[-1]
    assert ("alpha_end" in lines[-1]) == (settings is not None)
