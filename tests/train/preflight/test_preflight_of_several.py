"""The preflight of calibrated teachers, and of several teachers' average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preflight_setup import GOOD, STUDENT, PreflightSetup, Reader
from sharpstudent.config.run_config import TeacherSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.metrics.calibration import compute_ece, fit_temperature
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.train.preflight.model_checks import CheckedModel, LogitStatistics
from sharpstudent.train.preflight.run import preflight
from sharpstudent.train.preflight.temperature import restore_calibrations
from sharpstudent.train.validate import EVALUATION_SAMPLES

# Wrong on some pictures, and as sure of them as of the others.
SURE, SURER = (30.0, 40.0), (90.0, 120.0)


@pytest.fixture
def setup(tmp_path: Path) -> PreflightSetup:
    return PreflightSetup(tmp_path / "output")


def evaluate(setup: PreflightSetup, model: torch.nn.Module) -> Table:
    (table,), _ = compute_tables(
        [model],
        setup.source,
        setup.task,
        batch_size=EVALUATION_SAMPLES,
        num_workers=0,
        device=torch.device("cpu"),
    )
    return table


def get_logits(row: CheckedModel) -> LogitStatistics:
    assert row.logits is not None
    return row.logits


# --- Calibration ----------------------------------------------------------------------------------------------------


def test_a_calibrated_teacher_has_its_logits_divided_keeps_its_auc_and_is_less_sure(setup: PreflightSetup) -> None:
    plain = setup.run_preflight_with_ensemble(STUDENT, SURE).models[1]
    report = setup.run_preflight_with_ensemble(STUDENT, SURE, calibrate=[0])
    row, teacher = report.models[1], setup.ensemble.members[0]
    before, after = get_logits(plain), get_logits(row)
    raw, table = evaluate(setup, Reader(*SURE)), evaluate(setup, teacher)
    assert row.calibration == before.temperature == fit_temperature(raw["logits"], raw["label"]) > 2.0
    assert table["logits"].tobytes() == (torch.from_numpy(raw["logits"]) / row.calibration).numpy().tobytes()
    assert row.metrics["auc"] == plain.metrics["auc"] == compute_auc(compute_margins(table), table["label"])
    assert row.metrics["accuracy"] == plain.metrics["accuracy"]
    assert after.ece == compute_ece(table["logits"], table["label"]) < before.ece
    assert after.log_loss < before.log_loss
    assert after.temperature == pytest.approx(1.0, abs=1e-5)
    eces = f"ECE {before.ece:.3f} -> {after.ece:.3f}"
    assert f"teacher 1: its logits are divided by {row.calibration:.4g} (calibrate); {eces}" in setup.lines
    assert report.models[0].calibration is None


def test_a_teacher_that_is_not_asked_to_be_stays_as_it_is(setup: PreflightSetup) -> None:
    rows = setup.run_preflight_with_ensemble(STUDENT, SURE, SURER, calibrate=[1]).models
    assert [row.calibration is None for row in rows] == [True, True, False]
    assert [teacher.calibration is None for teacher in setup.ensemble.members] == [True, False]


def test_the_temperature_is_found_once_more_in_scores_that_were_kept_to_the_last_bit(setup: PreflightSetup) -> None:
    first = setup.run_preflight_with_ensemble(STUDENT, SURE, calibrate=[0])
    second = setup.run_preflight_with_ensemble(STUDENT, SURE, calibrate=[0])
    assert not setup.has_evaluated
    assert second == first


def test_a_teacher_that_is_evaluated_again_is_evaluated_without_its_calibration(setup: PreflightSetup) -> None:
    """Not divided twice."""
    first = setup.run_preflight_with_ensemble(STUDENT, SURE, calibrate=[0])
    named = [("teacher 1", setup.ensemble.members[0])]
    again = preflight(setup.make_validator(), ("student s", Reader(*STUDENT)), named, say=lambda line: None)
    assert again.models[1] == first.models[1]


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ((-4.0, 3.0), ("validation AUC of 0.0", "below chance", '"classes": ["fake", "real"]')),
        ((30.0, 3.0), ("temperature 0.01", "the lowest tried", "leave \"calibrate\" out")),
        ((0.0, 0.0), ()),
    ],
)  # fmt: skip
def test_a_temperature_that_says_nothing_is_refused(
    setup: PreflightSetup, teacher: tuple[float, float], words: tuple[str, ...]
) -> None:
    if not words:  # all logits are equal: 1 is as good as any
        assert setup.run_preflight_with_ensemble(STUDENT, teacher, calibrate=[0]).models[1].calibration == 1.0
        return
    with pytest.raises(UserError) as caught:
        setup.run_preflight_with_ensemble(STUDENT, teacher, calibrate=[0])
    assert caught.value.problems[0].where == "teacher 1"
    for word in words:
        assert word in str(caught.value)


def test_a_resumed_run_takes_up_the_temperatures_to_the_last_bit(setup: PreflightSetup) -> None:
    report = setup.run_preflight_with_ensemble(STUDENT, SURE, SURER, calibrate=[1])
    validator = setup.make_validator()
    teachers = [FrozenTeacher(Reader(*SURE)) for _ in range(2)]
    named = [(f"teacher {number}", teacher) for number, teacher in enumerate(teachers, 1)]
    restore_calibrations(validator.run.config, named, validator.run.logs_folder)
    assert [teacher.calibration for teacher in teachers] == [None, report.models[2].calibration]


def spoil_nothing_there(path: Path) -> None:
    path.unlink()


def spoil_text(path: Path) -> None:
    path.write_text(path.read_text()[:-60])


def spoil_value(path: Path) -> None:
    path.write_text(path.read_text().replace('"calibration": ', '"calibration": -'))


def spoil_rows(path: Path) -> None:
    stored = json.loads(path.read_text())
    stored["rows"] = stored["rows"][:1]
    path.write_text(json.dumps(stored))


def spoil_other_run(path: Path) -> None:
    """Of a run that does not calibrate."""
    stored = json.loads(path.read_text())
    stored["rows"][1]["calibration"] = None
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize("spoil", [spoil_nothing_there, spoil_text, spoil_value, spoil_rows, spoil_other_run])
def test_temperatures_that_cannot_be_read_back_are_refused(setup: PreflightSetup, spoil: Any) -> None:
    setup.run_preflight_with_ensemble(STUDENT, SURE, calibrate=[0])
    spoil(setup.root / "run/logs/preflight.json")
    teacher = FrozenTeacher(Reader(*SURE))
    validator = setup.make_validator()
    with pytest.raises(UserError, match="by which temperature") as caught:
        restore_calibrations(validator.run.config, [("teacher 1", teacher)], validator.run.logs_folder)
    assert "--allow changed-config" in str(caught.value)
    assert teacher.calibration is None


def test_without_a_calibrated_teacher_no_file_is_asked_for(setup: PreflightSetup) -> None:
    setup.sections = (TeacherSection(name="x"),)
    restore_calibrations(setup.make_validator().run.config, [("teacher", torch.nn.Identity())], Path("nowhere"))


# --- The average ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_the_averages_row_is_what_the_ensemble_itself_would_get(setup: PreflightSetup, average: Any) -> None:
    report = setup.run_preflight_with_ensemble(
        STUDENT, GOOD, (2.0, 3.0), weights=[3.0, 1.0], average=average, calibrate=[1]
    )
    assert report.average is not None
    table, statistics = evaluate(setup, setup.ensemble), get_logits(report.average)
    assert report.average.name == "average of 2 teachers"
    assert report.average.metrics["auc"] == compute_auc(compute_margins(table), table["label"])
    assert statistics.ece == pytest.approx(compute_ece(table["logits"], table["label"]), abs=1e-6)
    assert statistics.logits_largest == pytest.approx(float(np.abs(table["logits"]).max()), rel=1e-6)
    assert [line.split(" | ")[0].strip() for line in setup.lines if " | " in line][-1] == "average of 2 teachers"
    stored = json.loads((setup.root / "run/logs/preflight.json").read_text())
    assert stored["average"]["val_auc"] == report.average.metrics["auc"]
    assert len(stored["rows"]) == 3


def test_no_model_is_asked_again_for_it(setup: PreflightSetup) -> None:
    setup.run_preflight_with_ensemble(STUDENT, GOOD, (2.0, 3.0))
    assert setup.has_evaluated
    models = [teacher.model for teacher in setup.ensemble.members]
    # A picture that tells what it gives, one that tells models apart, and two batches.
    assert [model.calls for model in models] == [1 + 1 + 2, 1 + 1 + 2]  # type: ignore[union-attr]


def test_one_teacher_has_no_average(setup: PreflightSetup) -> None:
    report = setup.run_preflight_with_ensemble(STUDENT, GOOD)
    assert report.average is None
    assert not [line for line in setup.lines if "average" in line]


def test_teachers_that_are_fit_give_no_warning_together(setup: PreflightSetup) -> None:
    assert setup.run_preflight_with_ensemble(STUDENT, GOOD, (4.5, 3.0)).findings == ()


def test_an_average_that_is_weaker_than_its_best_member_is_reported(setup: PreflightSetup) -> None:
    """A loud teacher that knows little outvotes a quiet one that knows all."""
    report = setup.run_preflight_with_ensemble((0.5, 1.0), GOOD, (6.0, 60.0))
    assert report.average is not None
    (warning,) = [
        warning for warning in report.findings if warning.startswith("average of 2 teachers is worse than teach")
    ]
    auc = report.average.metrics["auc"]
    assert f"is worse than teacher 1: AUC {auc:.4f} against 1.0000, a difference of -0." in warning
    assert warning.endswith("give that one a larger `weight`, or let it teach alone")
    assert any(warning.startswith("average of 2 teachers is weak") for warning in report.findings)


def test_an_average_below_chance_is_reported_without_advice_on_one_teacher(setup: PreflightSetup) -> None:
    warnings = setup.run_preflight_with_ensemble(STUDENT, GOOD, (-40.0, 3.0)).findings
    (warning,) = [warning for warning in warnings if warning.startswith("average of 2 teachers has")]
    assert "below chance: leave out the teacher that spoils it, or correct its `classes`" in warning


def test_an_average_that_cancels_out_says_one_thing_of_everything(setup: PreflightSetup) -> None:
    warnings = setup.run_preflight_with_ensemble(STUDENT, GOOD, (-GOOD[0], -GOOD[1])).findings
    assert (
        "average of 2 teachers gives the same logits to all 40 pictures: it has learnt nothing, or has collapsed"
        in warnings
    )


def test_a_range_that_is_reported_of_a_member_is_not_reported_again(setup: PreflightSetup) -> None:
    warnings = setup.run_preflight_with_ensemble(STUDENT, GOOD, (120.0, 140.0)).findings
    assert len([warning for warning in warnings if "spread" in warning]) == 1


def test_the_ensemble_is_left_as_it_was(setup: PreflightSetup) -> None:
    setup.run_preflight_with_ensemble(STUDENT, GOOD, (2.0, 3.0))
    assert isinstance(setup.ensemble, TeacherEnsemble)
    assert not any(parameter.requires_grad or parameter.is_inference() for parameter in setup.ensemble.parameters())
