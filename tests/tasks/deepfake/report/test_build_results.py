"""From scored frames to results: values of metrics, and comparisons of two models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sharpstudent.metrics.binary import compute_auc, to_logits
from sharpstudent.metrics.bootstrap import compute_gap
from sharpstudent.metrics.calibration import compute_ece, compute_log_loss
from sharpstudent.metrics.checks import number_names
from sharpstudent.metrics.metric import make_mean_metric
from sharpstudent.tasks.deepfake.evaluation.assemble import _is_guides_data
from sharpstudent.tasks.deepfake.evaluation.frames import MEAN, ScoredFrames, aggregate, join_frames
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics
from sharpstudent.tasks.deepfake.report.decisions import describe_group_errors
from sharpstudent.tasks.deepfake.report.from_frames import (
    build_comparisons,
    build_drawings,
    build_group_errors,
    build_metrics,
    choose_rules,
)
from sharpstudent.tasks.deepfake.report.metric_tables import build_group_tables
from sharpstudent.tasks.deepfake.report.results import CalibrationResult, ModelResult, OperatingPointResult

ROUNDS = 40


def make_frames(*, people: int = 8, frames_a_clip: int = 3, seed: int = 0, strength: float = 1.5) -> ScoredFrames:
    """Two sources; of each person a real clip and a fake one, the fake of one of two kinds."""
    rng = np.random.default_rng(seed)
    rows = [
        (source, f"p{person}", label, frame)
        for source in ("north", "south")
        for person in range(people)
        for label in (0, 1)
        for frame in range(frames_a_clip)
    ]
    labels = np.array([row[2] for row in rows], np.int64)
    return ScoredFrames(
        margins=rng.normal(0.0, 1.0, len(rows)) + strength * (labels - 0.5),
        labels=labels,
        sample_ids=[f"{person}-{label}-{frame}" for _, person, label, frame in rows],
        clip_ids=[f"{person}-{label}" for _, person, label, _ in rows],
        groups=[person for _, person, _, _ in rows],
        sources=[source for source, *_ in rows],
        manipulations=["" if label == 0 else f"kind{int(person[1:]) % 2}" for _, person, label, _ in rows],
    )


def make_calibration(temperature: float = 2.0, threshold: float = 0.3) -> CalibrationResult:
    point = OperatingPointResult(threshold=threshold, tpr=0.9, fpr=0.1)
    return CalibrationResult(
        fitted_on="validation",
        temperature=temperature,
        log_loss=(0.6, 0.5),
        ece=(0.1, 0.05),
        operating_points={"frame": {"eer": point}, "video_mean": {"eer": point}},
    )


def test_metrics_have_the_values_of_their_functions_and_intervals_around_them() -> None:
    frames = make_frames()
    found = build_metrics(frames, rounds=ROUNDS)
    values = compute_set_metrics(frames).values
    drawn = {name for name in found if "ece_expected" in name or "ece_p_value" in name}
    assert {name: found[name].value for name in found.keys() - drawn if found[name].value is not None} == values
    assert {"frame_ece_expected", "frame_ece_p_value@north", "video_ece_p_value_mean"} < drawn
    auc = found["video_auc_mean@north"]
    assert auc.low is not None
    assert auc.value is not None
    assert auc.high is not None
    assert auc.low <= auc.value <= auc.high


def test_frames_split_over_two_sets_in_any_order_give_the_same_metrics() -> None:
    frames = make_frames()
    order = np.random.default_rng(1).permutation(len(frames))
    halves = join_frames([frames.take(order[::2]), frames.take(order[1::2])])
    one, two = (build_metrics(part, rounds=ROUNDS) for part in (frames, halves))
    assert one.keys() == two.keys()
    for name, figure in one.items():
        for end in ("value", "low", "high"):
            a, b = getattr(figure, end), getattr(two[name], end)
            assert (a is None) == (b is None)
            assert a is None or math.isclose(a, b, rel_tol=0.0, abs_tol=1e-12)


def test_stored_thresholds_and_the_temperature_have_metrics_of_their_own() -> None:
    frames, calibration = make_frames(), make_calibration(temperature=2.5, threshold=0.3)
    found = build_metrics(frames, calibration=calibration, rounds=ROUNDS)
    called_fake = frames.margins >= 0.3
    assert found["frame_accuracy_at_eer"].value == np.mean(called_fake == (frames.labels == 1))
    assert found["frame_apcer_at_eer"].value == np.mean(~called_fake[frames.labels == 1])
    logits = to_logits(frames.margins / 2.5)
    assert found["frame_ece_calibrated"].value == pytest.approx(compute_ece(logits, frames.labels), abs=1e-12)
    assert found["frame_log_loss_calibrated"].value == pytest.approx(compute_log_loss(logits, frames.labels), abs=1e-12)
    assert found["frame_ece_calibrated@north"].low is not None
    # A temperature changes no rank: no other metric is given twice.
    assert not [name for name in found if "auc" in name and "calibrated" in name]


def test_clips_of_one_picture_have_no_video_metrics() -> None:
    frames = make_frames(frames_a_clip=1)
    assert choose_rules(frames) == ()
    assert not [name for name in build_metrics(frames, rounds=ROUNDS) if name.startswith("video")]
    assert {drawing.level for drawing in build_drawings(frames)} == {"frame"}


def test_curves_cover_all_data_and_each_source_and_end_at_the_corners() -> None:
    drawings = build_drawings(make_frames())
    assert [(one.level, one.part) for one in drawings] == [
        (level, part) for level in ("frame", "video_mean") for part in ("", "@north", "@south")
    ]
    for one in drawings:
        assert (one.roc.x[0], one.roc.y[0], one.roc.thresholds[0]) == (0.0, 0.0, None)
        assert (one.roc.x[-1], one.roc.y[-1]) == (1.0, 1.0)
        samples = sum(one.histogram.real) + sum(one.histogram.fake)
        assert samples == sum(one.reliability.counts)


def test_a_comparison_is_the_difference_of_the_metrics_of_both_models() -> None:
    good, weak = make_frames(strength=2.0), make_frames(strength=0.5, seed=3)
    found = {one.figure: one for one in build_comparisons(("good", [good]), ("weak", [weak]), rounds=ROUNDS)}
    assert set(found) == {
        f"{level}{part}" for level in ("frame_auc", "video_auc_mean") for part in ("", "@north", "@south")
    }
    frame = found["frame_auc"]
    expected = compute_auc(good.margins, good.labels) - compute_auc(weak.margins, weak.labels)
    assert frame.difference.value == pytest.approx(expected, abs=1e-12)
    assert frame.agreement == np.mean((good.margins >= 0) == (weak.margins >= 0))
    clips = [f"{source}/{clip}" for source, clip in zip(good.sources, good.clip_ids, strict=True)]
    names, clip_of = number_names(clips)
    labels = [good.labels[clips.index(name)] for name in names]
    aucs = [compute_auc(aggregate(one.margins, clip_of, MEAN), labels) for one in (good, weak)]
    assert found["video_auc_mean"].difference.value == pytest.approx(aucs[0] - aucs[1], abs=1e-12)


def test_a_model_compared_with_itself_differs_by_0_and_always_agrees() -> None:
    frames = make_frames()
    for one in build_comparisons(("a", [frames]), ("b", [frames]), rounds=ROUNDS):
        assert (one.difference.value, one.difference.low, one.difference.high) == (0.0, 0.0, 0.0)
        assert (one.agreement, one.p_value) == (1.0, 1.0)


def test_frames_without_a_score_of_one_model_are_left_out_for_both() -> None:
    whole = make_frames()
    decided = np.ones(len(whole), np.bool_)
    decided[:5] = False
    some = replace(whole, decided=decided)
    other = make_frames(seed=7)
    found = build_comparisons(("some", [some]), ("other", [other]), rounds=ROUNDS)[0]
    expected = compute_auc(whole.margins[5:], whole.labels[5:]) - compute_auc(other.margins[5:], other.labels[5:])
    assert found.difference.value == pytest.approx(expected, abs=1e-12)


def test_models_that_saw_other_frames_are_not_compared() -> None:
    frames = make_frames()
    with pytest.raises(ValueError, match="different frames"):
        build_comparisons(("a", [frames]), ("b", [frames.take(np.arange(len(frames))[::-1])]), rounds=ROUNDS)
    with pytest.raises(ValueError, match="different frames"):
        build_comparisons(("a", [frames]), ("b", [frames.take(np.arange(len(frames) - 1))]), rounds=ROUNDS)


def test_one_person_gives_a_difference_without_an_interval_and_says_why() -> None:
    frames = make_frames(people=1)
    north = frames.take(np.flatnonzero(np.array(frames.sources) == "north"))
    (frame, *_) = build_comparisons(("a", [north]), ("b", [north]), rounds=ROUNDS)
    assert frame.difference.low is None
    assert frame.p_value is None
    assert "fewer than two people" in (frame.difference.note or "")


def test_seeds_are_averaged_paired_in_their_order_and_their_spread_widens_the_interval() -> None:
    frames = make_frames(people=20)
    rng = np.random.default_rng(3)

    def train(gain: float) -> ScoredFrames:
        return replace(
            frames, margins=frames.margins + gain * (frames.labels - 0.5) + 0.1 * rng.normal(size=len(frames))
        )

    a, b = [train(gain) for gain in (0.2, 0.6, 1.0)], [train(0.0) for _ in range(3)]
    single = [build_comparisons(("a", [one]), ("b", [other]), rounds=200)[0] for one, other in zip(a, b, strict=True)]
    together = build_comparisons(("a", a), ("b", b), rounds=200)[0]
    assert (together.seeds, single[0].seeds) == (3, 1)
    assert together.difference.value == pytest.approx(np.mean([one.difference.value for one in single]))
    widths = [one.difference.high - one.difference.low for one in (together, *single)]
    assert widths[0] > np.mean(widths[1:])
    alone = build_comparisons(("a", a), ("b", b[:1]), rounds=200)[0]  # one teacher beside three students
    assert alone.seeds == 3


def make_people(women: float, men: float, *, people: int = 20, each: int = 8) -> ScoredFrames:
    """Reals and fakes of women and men; these shares of the reals of each are called fake, all fakes are found."""
    rng = np.random.default_rng(0)
    sex = np.repeat(["f", "m"], people * each)
    person = np.repeat(np.arange(2 * people), each)
    real = np.where(rng.random(len(sex)) < np.where(sex == "f", women, men), 1.0, -1.0)
    names = [f"{kind}/{row}" for kind in ("real", "fake") for row in range(len(sex))]
    return ScoredFrames(
        np.concatenate([real, np.ones(len(sex))]),
        np.repeat([0, 1], len(sex)),
        names,
        names,
        [f"{one}{number}" for one, number in zip(sex, person, strict=True)] * 2,
        ["set"] * len(names),
        [""] * len(sex) + ["swap"] * len(sex),
    )


def test_errors_by_group_have_rates_intervals_and_the_largest_difference() -> None:
    frames = make_people(0.05, 0.4)
    sex = [name[0] if number % 16 else "" for number, name in enumerate(frames.groups)]
    (errors,) = build_group_errors(frames, {"sex": sex}, None)
    assert (errors.column, errors.threshold, errors.without) == ("sex", "half", 40)
    women, men = errors.groups
    rows = np.flatnonzero((np.array(sex) == "m") & (frames.labels == 0))
    assert men.bpcer.value == np.mean(frames.margins[rows] >= 0)
    assert (men.value, men.people, men.real, men.fake) == ("m", 20, 150, 150)
    assert women.bpcer.high < men.bpcer.low
    assert men.apcer.value == 0.0
    assert men.apcer.high == pytest.approx(1 - 0.05 ** (1 / 20))
    reals, fakes = errors.gaps
    assert (reals.rate, reals.higher, reals.lower) == ("bpcer", "m", "f")
    assert reals.difference.value == pytest.approx(men.bpcer.value - women.bpcer.value)
    assert reals.difference.low > 0
    assert fakes.difference.value == 0.0
    assert fakes.difference.low < 0 < fakes.difference.high
    model = ModelResult(name="m", file="f", sha256=None, architecture=None, image_size=None, by_group=(errors,))
    (table,) = build_group_tables([model])
    assert [group.title for group in table.groups] == ["f", "m"]
    assert [len(group.rows) for group in table.groups] == [2, 2]


def test_the_largest_of_many_differences_gets_the_level_of_as_many_intervals() -> None:
    frames = make_people(0.2, 0.2)
    by_two = [name[0] for name in frames.groups]
    by_six = [f"{name[0]}{int(name[1:]) % 3}" for name in frames.groups]
    two, six = build_group_errors(frames, {"two": by_two, "six": by_six}, None)
    for errors, level in ((two, 0.95), (six, 1 - 0.05 / 15)):
        gap = errors.gaps[0]
        rows = [n for n, label in enumerate(frames.labels) if label == 0]
        values = by_two if errors is two else by_six
        rows = [n for n in rows if values[n] in (gap.higher, gap.lower)]
        wrong = (frames.margins[rows] >= 0).astype(float)
        table = {"id": np.array(rows), "group": np.array([frames.groups[n] for n in rows]), "wrong": wrong}
        metric = make_mean_metric(lambda table: table["wrong"], "lower", bounds=(0.0, 1.0))
        is_lower = np.array([values[n] == gap.lower for n in rows])
        expected = compute_gap(metric, table, is_lower, level=level)
        assert (gap.difference.low, gap.difference.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert six.gaps[0].difference.low < 0


def test_of_too_few_people_no_group_is_said_to_be_worse_and_without_a_column_that_nothing_was_measured() -> None:
    frames = make_people(0.05, 0.9, people=4)
    errors = build_group_errors(frames, {"sex": [name[0] for name in frames.groups]}, None)
    model = ModelResult(name="m", file="f", sha256=None, architecture=None, image_size=None, by_group=errors)
    line = describe_group_errors(model)[0].text
    assert "Inconclusive: it rests on" in line
    assert "Largest difference in reals called fake" in line
    (found,) = describe_group_errors(model.model_copy(update={"by_group": ()}))
    assert found.text == (
        "Whether it errs more often on some groups of people than on others was not measured (--by COLUMN measures it)."
    )
    assert found.limits


def test_the_calibrated_drawings_are_those_of_log_odds_after_the_temperature() -> None:
    frames = make_frames()
    halved = replace(frames, margins=frames.margins / 2.0)
    drawings, plain = build_drawings(frames, 2.0), build_drawings(frames)
    for one, before, after in zip(drawings, plain, build_drawings(halved), strict=True):
        assert one.histogram_calibrated == after.histogram
        assert one.reliability_calibrated == after.reliability
        assert (one.roc, one.reliability) == (before.roc, before.reliability)
        assert before.reliability_calibrated is None


def test_bands_of_the_guide_are_shown_for_its_own_data_only() -> None:
    assert _is_guides_data({"task_section": {"data_source": "ffpp", "image_size": 380}})
    for section in ({"data_source": "ffpp", "image_size": 224}, {"data_source": "manifest", "image_size": 380}, {}):
        assert not _is_guides_data({"task_section": section})
    assert not _is_guides_data(None)
