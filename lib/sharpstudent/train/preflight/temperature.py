"""The temperature by which a teacher's logits are divided (`calibrate`).

The preflight fits it and writes it to the run's `logs/preflight.json`, from which a resumed run and a replay read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_json
from sharpstudent.models.teachers import FrozenTeacher, Named
from sharpstudent.task import plural
from sharpstudent.train.preflight.model_checks import CheckedModel, advise_on_order, evaluate_table, name_wrong_order

REPORT_NAME = "preflight.json"  # in the run's logs/


def find_calibrated(config: RunConfig, teachers: Sequence[Named]) -> dict[int, FrozenTeacher]:
    """Find the teachers with `calibrate` in the config.

    Args:
        config: The config of the run.
        teachers: All teachers of the run, in the order of the config.

    Returns:
        These teachers by their index in the config.
    """
    return {
        index: teacher
        for index, (_, teacher) in enumerate(teachers)
        if isinstance(teacher, FrozenTeacher) and config.teachers[index].calibrate
    }


def calibrate(teacher: FrozenTeacher, evaluated: CheckedModel, say: Callable[[str], None]) -> CheckedModel:
    """Let the teacher divide its logits by the temperature that calibrates them on its table.

    Args:
        teacher: The teacher.
        evaluated: Its outputs before calibration, and their metrics.
        say: Prints a line.

    Returns:
        The calibrated outputs and their metrics.

    Raises:
        UserError: When the task has no logits, and when no temperature would be reliable.
    """
    before = evaluated.logits
    if before is None:
        remedy = 'leave "calibrate" out for it'
        raise UserError.about(evaluated.name, "cannot be calibrated: this task has no logits", remedy=remedy)
    _refuse(evaluated, before.temperature, before.temperature_note)
    teacher.calibration = before.temperature
    logits = (torch.from_numpy(evaluated.table["logits"]) / before.temperature).numpy()  # in torch, as the teacher does
    after = evaluate_table(evaluated.name, {**evaluated.table, "logits": logits}, evaluated.task)
    assert after.logits is not None
    say(
        f"{evaluated.name}: its logits are divided by {before.temperature:.4g} (calibrate); ECE {before.ece:.3f} -> "
        f"{after.logits.ece:.3f}"
    )
    return replace(after, calibration=before.temperature)


def restore_calibrations(config: RunConfig, teachers: Sequence[Named], logs_folder: Path) -> None:
    """Let the teachers divide their logits by the temperatures that the run's preflight fitted.

    Args:
        config: The config of the run.
        teachers: All teachers of the run, in the order of the config.
        logs_folder: The folder of the run's preflight report.

    Raises:
        UserError: When the report is missing or damaged, or lacks a temperature.
    """
    wanted = find_calibrated(config, teachers)
    if not wanted:
        return
    path = logs_folder / REPORT_NAME
    try:
        rows = read_json(path)["rows"][1:]  # the first row is the student's
        found = {index: float(rows[index]["calibration"]) for index in wanted}
        if not all(math.isfinite(value) and value > 0.0 for value in found.values()):
            raise ValueError(f"no temperatures: {found}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError.about(
            str(path),
            "does not say by which temperature the logits of a calibrated teacher are divided in this run",
            got=f"{type(error).__name__}: {error}",
            remedy="restore the file, or evaluate the teachers anew with --allow changed-config",
        ) from None
    for index, teacher in wanted.items():
        teacher.calibration = found[index]


def _refuse(evaluated: CheckedModel, temperature: float, note: str | None) -> None:
    """Raise UserError for a teacher below chance, and for a temperature at a bound of the search.

    A temperature keeps the order of the logits, so it corrects neither swapped classes nor a teacher that has learnt
    nothing. At a bound of the search, the optimum was not found.
    """
    unit = plural(evaluated.task.unit)
    if evaluated.is_below_chance:
        got = f"a validation {evaluated.describe()}"
        what = "cannot be calibrated: it is below chance, which no temperature mends"
        order = name_wrong_order(evaluated.task)
        remedy = f"if its classes are {order}, {advise_on_order(evaluated.task)}; else name a better teacher"
    elif note is not None:
        got = f"temperature {temperature:g}, {note}"
        what = f"cannot be calibrated: no temperature fits it to the validation {unit} best"
        remedy = f'leave "calibrate" out for it, or give it more validation {unit}'
    else:
        return
    raise UserError.about(evaluated.name, what, got=got, remedy=remedy)
