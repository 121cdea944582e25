"""The preflight of stage 2: metrics of every model, warnings in plain words, outputs kept from run to run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from preflight_setup import GOOD, SIDE, STUDENT, Pictures, PreflightSetup, Reader, make_task
from sharpstudent.config.run_config import TeacherSection
from sharpstudent.config.stored import find_own_run, find_run
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.metrics.binary import compute_accuracy, compute_auc
from sharpstudent.metrics.calibration import compute_brier, compute_ece, compute_log_loss, fit_temperature
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.tasks.deepfake.metrics import compute_fake_probability, compute_margins
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.preflight.model_checks import (
    CheckedModel,
    LogitStatistics,
    _explain_below_chance,
    evaluate_table,
)
from sharpstudent.train.preflight.run import PreflightReport, describe_work, format_table, preflight
from tiny_models import are_identical, make_step, take_snapshot
from tiny_runs import make_config
from torch import Tensor

HEADER = ("Model", "Val AUC", "Accuracy", "ECE", "Logits mean +- sd, largest")


@pytest.fixture
def setup(tmp_path: Path) -> PreflightSetup:
    return PreflightSetup(tmp_path / "output")


def test_each_row_is_what_the_metrics_say_of_that_model(setup: PreflightSetup) -> None:
    models = Reader(*STUDENT), Reader(*GOOD)
    report = setup.run_preflight(*models)
    assert [row.name for row in report.models] == ["student s", "teacher 1"]
    assert report.samples == 20
    for row, model in zip(report.models, models, strict=True):
        (table,), _ = compute_tables(
            [model], Pictures(), make_task(), batch_size=3, num_workers=0, device=torch.device("cpu")
        )
        logits, labels = table["logits"], table["label"]
        assert row.metrics["auc"] == compute_auc(compute_margins(table), labels)
        assert row.metrics["accuracy"] == compute_accuracy(compute_fake_probability(table), labels)
        assert row.logits is not None
        assert row.logits.ece == pytest.approx(compute_ece(logits, labels))
        assert row.logits.log_loss == pytest.approx(compute_log_loss(logits, labels))
        assert row.logits.brier == pytest.approx(compute_brier(logits, labels))
        assert row.logits.temperature == pytest.approx(fit_temperature(logits, labels))
        assert row.logits.logits_mean == pytest.approx(logits.mean(), abs=1e-6)
        assert row.logits.logits_sd == pytest.approx(logits.std(), rel=1e-5)
        assert row.logits.logits_largest == np.abs(logits).max()
    student, teacher = report.models
    assert (report.start_value, report.start_metrics) == (student.metrics["auc"], student.metrics)
    assert student.metrics["auc"] != teacher.metrics["auc"] or get_logits(student).ece != get_logits(teacher).ece


def test_a_student_and_a_teacher_that_are_fit_give_no_warning(setup: PreflightSetup) -> None:
    assert setup.run_preflight(STUDENT, GOOD).findings == ()
    assert not [line for line in setup.lines if "warning" in line]


def test_every_model_is_evaluated_in_one_pass_over_the_samples(setup: PreflightSetup) -> None:
    setup.run_preflight(STUDENT, GOOD, (5.0, 3.0))
    assert sorted(setup.source.made) == sorted([0, *range(20)])


def get_logits(row: CheckedModel) -> LogitStatistics:
    assert row.logits is not None
    return row.logits


def get_only_warning(report: PreflightReport) -> str:
    (warning,) = report.findings
    return warning


def test_a_teacher_below_chance_has_its_classes_swapped(setup: PreflightSetup) -> None:
    warning = get_only_warning(setup.run_preflight(STUDENT, (-4.0, 3.0)))
    assert warning.startswith("teacher 1 has a validation AUC of 0.0")
    assert "over people), below chance: its classes are probably swapped" in warning
    assert 'write "classes": ["fake", "real"] for it' in warning


def test_only_two_classes_can_be_swapped() -> None:
    words = [_explain_below_chance(SimpleNamespace(classes=classes), True) for classes in ("ab", "abcdefghij", "")]  # type: ignore[arg-type]
    assert words[0].startswith("its classes are probably swapped; if so, write")
    assert words[1].startswith("its classes are probably in another order; if so, write")
    assert words[2] == "it is untrained, or was made for other inputs"


def test_a_teacher_that_chance_may_have_put_below_chance_is_not_called_swapped(setup: PreflightSetup) -> None:
    warning = get_only_warning(setup.run_preflight(STUDENT, (-0.6, 3.0)))
    assert "it is untrained, or its classes are swapped" in warning


def test_a_weak_teacher_that_is_worse_than_the_student_is_both(setup: PreflightSetup) -> None:
    weak, worse = setup.run_preflight((3.0, 0.5), (0.6, 3.0)).findings
    assert "teacher 1 is weak, with a validation AUC of 0." in weak
    assert "below 0.80" in weak
    assert "teacher 1 is worse than student s: AUC 0." in worse
    assert "against 1.0000, a difference of -0." in worse


def test_a_teacher_that_is_worse_by_no_more_than_the_noise_gives_no_warning(setup: PreflightSetup) -> None:
    report = setup.run_preflight((3.0, 4.2), (3.0, 4.25))
    assert report.models[1].metrics["auc"] <= report.models[0].metrics["auc"] < 1.0
    assert not [warning for warning in report.findings if "worse" in warning]


def test_a_student_that_stage_1_has_not_prepared_is_sent_back_to_stage_1(setup: PreflightSetup) -> None:
    report = setup.run_preflight((1.0, 4.0), GOOD)
    assert report.start_metrics["accuracy"] < 0.8
    assert get_only_warning(report) == (
        f"student s is right on {report.start_metrics['accuracy']:.1%} of the validation pictures, below the 80% that "
        "stage 2 needs: run stage 1 longer, `stage1.epoch` 50 or more"
    )


def test_a_student_whose_logits_are_a_hundred_times_too_large_is_found(setup: PreflightSetup) -> None:
    warning = get_only_warning(setup.run_preflight((300.0, 200.0), STUDENT))
    assert "the logits of student s spread 100 times as widely as those of teacher 1" in warning
    assert "check the stage-1 checkpoint, or raise `temperature`" in warning


def test_a_teacher_whose_logits_are_much_wider_needs_a_temperature(setup: PreflightSetup) -> None:
    report = setup.run_preflight(STUDENT, (120.0, 140.0))
    warning = get_only_warning(report)
    assert "the logits of teacher 1 spread" in warning
    fitted = get_logits(report.models[1]).temperature
    assert f"raise `temperature` ({fitted:.3g} would calibrate teacher 1 alone)" in warning


def test_a_student_with_logits_near_zero_beside_a_fit_teacher_is_sent_back_to_stage_1(setup: PreflightSetup) -> None:
    warning = get_only_warning(setup.run_preflight((0.03, 0.02), GOOD))
    assert "the logits of teacher 1 spread" in warning
    assert warning.endswith(": student s says little as yet; run stage 1 longer, or raise `temperature`")


@pytest.mark.parametrize(("factor", "is_told"), [(9.5, False), (10.5, True)])
def test_spreads_may_differ_by_a_factor_of_ten(setup: PreflightSetup, factor: float, is_told: bool) -> None:
    report = setup.run_preflight(STUDENT, (factor * STUDENT[0], factor * STUDENT[1]))
    assert bool(report.findings) == is_told


def test_a_teacher_that_is_the_students_own_file_is_not_confused_with_a_similar_one(
    setup: PreflightSetup,
) -> None:
    warning = get_only_warning(setup.run_preflight(STUDENT, STUDENT))
    assert "teacher 1 and student s agree on all 40 pictures to the last bit" in warning
    assert setup.run_preflight(STUDENT, (STUDENT[0] * (1 + 1e-6), STUDENT[1])).findings == ()


def test_a_model_with_constant_outputs_is_found(setup: PreflightSetup) -> None:
    constant, weak, worse = setup.run_preflight(STUDENT, (0.0, 0.0)).findings
    assert constant == "teacher 1 gives the same logits to all 40 pictures: it has learnt nothing, or has collapsed"
    assert ("is weak" in weak, "is worse" in worse) == (True, True)


def test_one_person_alone_gives_warnings_without_an_interval(setup: PreflightSetup) -> None:
    setup.source.samples = 2
    warning = setup.run_preflight(STUDENT, (-4.0, 1.0)).findings[0]
    assert "AUC of 0.0000, below chance: its classes are probably swapped" in warning


@pytest.mark.parametrize("which", [0, 1])
def test_logits_that_are_not_finite_are_an_error_that_names_model_and_sample(setup: PreflightSetup, which: int) -> None:
    models = [STUDENT, GOOD]
    models[which] = (float("inf"), 0.0)
    with pytest.raises(UserError) as caught:
        setup.run_preflight(*models)
    text = str(caught.value)
    assert text.startswith(("student s", "teacher 1")[which])
    assert "40 of 40 samples with logits that are not finite: sample 0#real (inf)" in text
    assert ("pretrained_student_weights" in text) == (which == 0)
    assert len(setup.find_kept()) == which  # the student's, where it is the teacher that fails


def test_one_class_only_is_an_error_of_the_metric(setup: PreflightSetup) -> None:
    setup.source.labels = (1, 1)
    with pytest.raises(MetricError, match="one class only"):
        setup.run_preflight(STUDENT, GOOD)


def test_the_table_is_aligned_and_says_all_it_promises(setup: PreflightSetup) -> None:
    report = setup.run_preflight(STUDENT, GOOD)
    table = setup.lines[1:4]
    assert [cell.strip() for cell in table[0].split("|")] == list(HEADER)
    assert len({len(line) for line in table}) == 1
    assert len({tuple(i for i, sign in enumerate(line) if sign == "|") for line in table}) == 1
    row = report.models[1]
    name, auc, accuracy, ece, logits = (cell.strip() for cell in table[2].split("|"))
    assert (name, auc, accuracy, ece) == (
        "teacher 1",
        f"{row.metrics['auc']:.4f}",
        f"{row.metrics['accuracy']:.1%}",
        f"{get_logits(row).ece:.3f}",
    )
    statistics = get_logits(row)
    assert logits == f"{statistics.logits_mean:.3g} +- {statistics.logits_sd:.3g}, {statistics.logits_largest:.3g}"


def test_no_line_of_the_table_is_longer_than_a_hundred_whatever_the_names_and_numbers(setup: PreflightSetup) -> None:
    validator = setup.make_validator()
    rows = []
    for name, gain in (("teacher 2 " + "mobilevitv2_" * 12, 1.234e30), ("student s", -0.5)):
        (table,), _ = validator.compute_tables([Reader(gain)])
        rows.append(evaluate_table(name, table, setup.task))
    lines = format_table(rows, setup.task)
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("teacher 2 mobi")
    assert "..." in lines[1]


def test_metrics_and_warnings_are_kept_as_json_in_the_logs(setup: PreflightSetup) -> None:
    report = setup.run_preflight((300.0, 200.0), STUDENT)
    stored = json.loads((setup.root / "run/logs/preflight.json").read_text())
    assert stored["findings"] == list(report.findings)
    assert [row["temperature"] for row in stored["rows"]] == [get_logits(row).temperature for row in report.models]
    assert stored["start_value"] == report.start_value
    assert stored["items"] == 20


def test_a_temperature_at_its_bound_carries_a_note(setup: PreflightSetup) -> None:
    student, teacher = map(get_logits, setup.run_preflight((3.0, 0.0), (-3.0, 0.0)).models)
    assert (student.temperature, teacher.temperature) == (0.01, 1000.0)
    assert "lowest" in (student.temperature_note or "")
    assert "highest" in (teacher.temperature_note or "")


def test_without_a_callback_the_lines_go_to_the_run(setup: PreflightSetup) -> None:
    validator = setup.make_validator()
    preflight(validator, ("student s", Reader(*STUDENT)), [])
    assert any(line.startswith("student s | ") for line in validator.run.notes)


def test_a_preflight_moves_neither_weights_nor_modes_nor_random_states(setup: PreflightSetup) -> None:
    step = make_step(Reader(*STUDENT).train())
    teacher = FrozenTeacher(Reader(*GOOD))
    setup.sections = (TeacherSection(name="x"),)
    before = take_snapshot(step), np.random.get_state()[1].tolist()
    setup.run_preflight(step.student, teacher)
    assert are_identical((take_snapshot(step), np.random.get_state()[1].tolist()), before)
    assert not any(p.is_inference() for p in step.student.parameters())


def test_a_stop_is_honoured_between_batches_and_leaves_nothing_behind(setup: PreflightSetup) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    setup.stop = stop
    student = Reader(*STUDENT).train()
    with pytest.raises(Stopped):
        setup.run_preflight(student, GOOD)
    assert setup.find_kept() == []
    assert not (setup.root / "run/logs/preflight.json").exists()
    assert student.training


# Scores that were kept.


def test_the_second_preflight_of_the_same_models_takes_no_pass_and_says_the_same(setup: PreflightSetup) -> None:
    first = setup.run_preflight(STUDENT, GOOD)
    assert setup.has_evaluated
    second = setup.run_preflight(STUDENT, GOOD)
    assert second == first
    assert not setup.has_evaluated
    assert [line for line in setup.lines if "was evaluated on these samples before" in line] == setup.lines[:2]


def test_a_new_student_beside_a_known_teacher_is_evaluated_alone(setup: PreflightSetup) -> None:
    setup.run_preflight(STUDENT, GOOD)
    teacher = Reader(*GOOD)
    setup.run_preflight((3.0, 1.0), teacher)
    assert setup.has_evaluated
    assert teacher.calls == 2  # a picture that tells what it gives, and the one that tells models apart
    assert "20 validation samples through student s ..." in setup.lines[1]


def change_seed(setup: PreflightSetup) -> None:
    setup.source.seed = 6


def change_classes(setup: PreflightSetup) -> None:
    setup.task.classes = ("fake", "real")


def change_image_size(setup: PreflightSetup) -> None:
    setup.task = make_task(2 * SIDE)


def change_names(setup: PreflightSetup) -> None:
    setup.source.folder = Path("elsewhere")


def change_number(setup: PreflightSetup) -> None:
    setup.source.samples = 19


def change_pixels(setup: PreflightSetup) -> None:
    setup.source.shade = 1


@pytest.mark.parametrize(
    "change", [change_seed, change_classes, change_image_size, change_names, change_number, change_pixels]
)
def test_other_data_is_evaluated_again(setup: PreflightSetup, change: Callable[[PreflightSetup], None]) -> None:
    setup.run_preflight(STUDENT, GOOD)
    change(setup)
    setup.run_preflight(STUDENT, GOOD)
    assert setup.has_evaluated


def test_a_picture_that_was_replaced_under_its_name_is_evaluated_again(setup: PreflightSetup, tmp_path: Path) -> None:
    setup.source.folder = tmp_path
    for index in range(20):
        (tmp_path / f"{index}.png").touch()
    setup.run_preflight(STUDENT, GOOD)
    setup.run_preflight(STUDENT, GOOD)
    assert not setup.has_evaluated
    os.utime(tmp_path / "7.png", ns=(1, 1))
    setup.run_preflight(STUDENT, GOOD)
    assert setup.has_evaluated


class Swapped(Reader):
    """The same weights, with an order of classes that no tensor tells."""

    def forward(self, image: Tensor) -> Outputs:
        return {"logits": super().forward(image)["logits"].flip(1)}


def test_same_weights_with_other_outputs_are_not_confused(setup: PreflightSetup) -> None:
    first = setup.run_preflight(STUDENT, Reader(*GOOD))
    second = setup.run_preflight(STUDENT, Swapped(*GOOD))
    assert second.models[1].metrics["auc"] == pytest.approx(1 - first.models[1].metrics["auc"])


def spoil_text(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def spoil_a_logit(path: Path) -> None:
    stored = json.loads(path.read_text())
    stored["table"]["logits"]["values"][0][0] += 1.0
    path.write_text(json.dumps(stored))


def spoil_form(path: Path) -> None:
    path.write_text("[]")


def spoil_bytes(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def spoil_kind(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_text, spoil_a_logit, spoil_form, spoil_bytes, spoil_kind])
def test_a_damaged_file_is_reported_and_the_model_evaluated_again(
    setup: PreflightSetup, spoil: Callable[[Path], None]
) -> None:
    first = setup.run_preflight(STUDENT, GOOD)
    for path in setup.find_kept():
        spoil(path)
    assert setup.run_preflight(STUDENT, GOOD) == first
    assert setup.has_evaluated
    assert sum("cannot be read" in line and "evaluating again" in line for line in setup.lines) == 2
    setup.run_preflight(STUDENT, GOOD)
    assert setup.has_evaluated == (spoil is spoil_kind)  # a folder in its setup stays there


def test_a_disk_that_keeps_nothing_costs_a_note(setup: PreflightSetup) -> None:
    setup.root.mkdir()
    (setup.root / ".preflight").write_text("a file where a folder must be")
    assert setup.run_preflight(STUDENT, GOOD).findings == ()
    assert sum("table not kept" in line for line in setup.lines) == 2


@pytest.mark.parametrize("broken", [(0,), (7,)])
def test_outputs_with_a_substitute_for_an_unreadable_sample_are_not_kept(
    setup: PreflightSetup, broken: Sequence[int]
) -> None:
    setup.source.broken = tuple(broken)
    assert setup.run_preflight(STUDENT, GOOD).samples == 20
    assert setup.find_kept() == []


def test_no_search_for_runs_takes_the_folder_of_kept_scores_for_one(setup: PreflightSetup) -> None:
    setup.run_preflight(STUDENT, GOOD)
    assert setup.find_kept()
    for word in ("*", ".pre", ".preflight", "pre", "[.]*"):
        with pytest.raises(UserError, match="is no run folder") as caught:
            find_run(word, str(setup.root))
        assert ".preflight/" not in str(caught.value)
    config = make_config().model_copy(update={"output_root": str(setup.root)})
    assert find_own_run(config, DeepfakeTask) == (None, [])


def test_a_dry_run_says_what_it_would_take() -> None:
    assert describe_work(20, 1) == "the preflight would take 20 validation samples through the student and the teacher"
    assert "and 3 teachers" in describe_work(20, 3)
