"""The temperature by which a teacher's logits are divided (`calibrate`): chosen by the preflight, kept in the run's
`logs/preflight.json`, and taken up from there by a resumed run and a replay.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.models.teachers import FrozenTeacher, Named
from sharpstudent.task import plural
from sharpstudent.train.preflight.findings import (
    CheckedModel,
    LogitFigures,
    advise_on_order,
    evaluate_table,
    is_below_chance,
)

REPORT_NAME = "preflight.json"  # in the run's logs/


def find_calibrated(config: RunConfig, teachers: Sequence[Named]) -> dict[int, FrozenTeacher]:
    """The teachers that the config asks to calibrate, by their place."""
    return {
        index: teacher
        for index, (_, teacher) in enumerate(teachers)
        if isinstance(teacher, FrozenTeacher) and config.teachers[index].calibrate
    }


def calibrate(teacher: FrozenTeacher, evaluated: CheckedModel, say: Callable[[str], None]) -> CheckedModel:
    """Divide the teacher's logits by the temperature that fits them to this table, from now on; returns the table as it
    is then. Raises UserError where no temperature can be believed.
    """
    row, figures = evaluated.row, evaluated.row.logits
    if figures is None:
        remedy = 'leave "calibrate" out for it'
        raise UserError(Problem(row.name, "cannot be calibrated: this task has no logits", remedy=remedy))
    _refuse(evaluated, figures)
    teacher.calibration = figures.temperature
    logits = (torch.from_numpy(evaluated.table["logits"]) / figures.temperature).numpy()  # as the teacher divides
    after = evaluate_table(row.name, {**evaluated.table, "logits": logits}, evaluated.task)
    assert after.row.logits is not None
    say(
        f"{row.name}: its logits are divided by {figures.temperature:.4g} (calibrate); ECE {figures.ece:.3f} -> "
        f"{after.row.logits.ece:.3f}"
    )
    return replace(after, row=replace(after.row, calibration=figures.temperature))


def take_up_calibrations(config: RunConfig, teachers: Sequence[Named], logs_folder: Path) -> None:
    """Divide as the run's preflight said. Raises UserError where it does not say, or its file is gone or damaged."""
    wanted = find_calibrated(config, teachers)
    if not wanted:
        return
    path = logs_folder / REPORT_NAME
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        # The first row is the student's.
        found = {index: float(rows[index + 1]["calibration"]) for index in wanted}
        if not all(math.isfinite(value) and value > 0.0 for value in found.values()):
            raise ValueError(f"no temperatures: {found}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            Problem(
                str(path),
                "does not say by which temperature the logits of a calibrated teacher are divided in this run",
                got=f"{type(error).__name__}: {error}",
                remedy="restore the file, or judge the teachers anew with --allow changed-config",
            )
        ) from None
    for index, teacher in wanted.items():
        teacher.calibration = found[index]


def _refuse(evaluated: CheckedModel, figures: LogitFigures) -> None:
    """A temperature keeps every order: it mends neither swapped classes nor ignorance. And at a bound of the search
    nothing was found: the number is that of the bound, and says nothing of the teacher.
    """
    unit = plural(evaluated.task.unit)
    if is_below_chance(evaluated):
        got = f"a validation {evaluated.title} of {evaluated.shown}"
        what = "cannot be calibrated: it is below chance, which no temperature mends"
        remedy = f"if its classes are swapped, {advise_on_order(evaluated.task)}; else name a better teacher"
    elif figures.temperature_note is not None:
        got = f"temperature {figures.temperature:g}, {figures.temperature_note}"
        what = f"cannot be calibrated: no temperature fits it to the validation {unit} best"
        remedy = f'leave "calibrate" out for it, or give it more validation {unit}'
    else:
        return
    raise UserError(Problem(evaluated.name, what, got=got, remedy=remedy))
