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
from sharpstudent.models.teachers import AdaptedTeacher, Named
from sharpstudent.train.preflight.findings import CHANCE, Judged, ModelRow, compute_row

REPORT_NAME = "preflight.json"  # in the run's logs/


def find_calibrated(config: RunConfig, teachers: Sequence[Named]) -> dict[int, AdaptedTeacher]:
    """The teachers that the config asks to calibrate, by their place."""
    return {
        index: teacher
        for index, (_, teacher) in enumerate(teachers)
        if isinstance(teacher, AdaptedTeacher) and config.teachers[index].calibrate
    }


def calibrate(teacher: AdaptedTeacher, judged: Judged, say: Callable[[str], None]) -> Judged:
    """Divide the teacher's logits by the temperature that fits them to these scores, from now on; returns the scores as
    they are then. Raises UserError where no temperature can be believed.
    """
    row = judged.row
    _refuse(row)
    teacher.calibration = row.temperature
    logits = (torch.from_numpy(judged.scores.logits) / row.temperature).numpy()  # as the teacher itself divides
    scores = replace(judged.scores, logits=logits)
    after = replace(compute_row(row.name, scores), calibration=row.temperature)
    say(
        f"{row.name}: its logits are divided by {row.temperature:.4g} (calibrate); ECE {row.ece:.3f} -> {after.ece:.3f}"
    )
    return Judged(after, scores)


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


def _refuse(row: ModelRow) -> None:
    """A temperature keeps every order: it mends neither swapped classes nor ignorance. And at a bound of the search
    nothing was found: the number is that of the bound, and says nothing of the teacher.
    """
    if row.val_auc < CHANCE:
        got = f"a validation AUC of {row.val_auc:.4f}"
        what = "cannot be calibrated: it is below chance, which no temperature mends"
        remedy = 'if its classes are swapped, write "classes": ["fake", "real"] for it; else name a better teacher'
    elif row.temperature_note is not None:
        got = f"temperature {row.temperature:g}, {row.temperature_note}"
        what = "cannot be calibrated: no temperature fits it to the validation pictures best"
        remedy = 'leave "calibrate" out for it, or give it more validation pictures'
    else:
        return
    raise UserError(Problem(row.name, what, got=got, remedy=remedy))
