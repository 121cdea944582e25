"""The preflight of stage 2: student and teachers are evaluated on the validation samples before the first step.

Problems become warnings. Metrics and warnings are written to `logs/preflight.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.types import Table
from sharpstudent.evaluation.tables import check_finite, make_table
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.models.teachers import FrozenTeacher, Named, TeacherEnsemble
from sharpstudent.task import Task, plural
from sharpstudent.train.preflight.model_checks import (
    CheckedModel,
    check_models,
    evaluate_average,
    evaluate_table,
    find_teachers_at_chance,
    find_weak_teachers,
)
from sharpstudent.train.preflight.table_cache import build_table_cache, save_tables
from sharpstudent.train.preflight.temperature import REPORT_NAME, calibrate, find_calibrated
from sharpstudent.train.validate import PREFIX, Validator, drop_undefined

FORMAT = 1
TABLES_NAME = "preflight_scores.json"  # in logs/: the models' tables, for the report at the end of the run
WIDTH = 100  # most characters in a line of the table


@dataclass(frozen=True)
class PreflightReport:
    """The result of a preflight.

    Attributes:
        models: The student first, then each teacher that could be evaluated.
        average: The average of several teachers, None for one teacher.
        findings: The warnings.
        start_value: The student's selection metric.
        samples: The number of validation samples.
    """

    models: tuple[CheckedModel, ...]
    average: CheckedModel | None
    findings: tuple[str, ...]
    start_value: float
    samples: int

    @property
    def start_metrics(self) -> dict[str, float]:
        """The student's metrics that have a value."""
        return drop_undefined(self.models[0].metrics)

    def to_json(self) -> dict[str, Any]:
        """The contents of `logs/preflight.json`."""
        return {
            "format": FORMAT,
            "rows": [model.to_json() for model in self.models],
            "findings": list(self.findings),
            "start_value": self.start_value,
            "items": self.samples,
            "average": None if self.average is None else self.average.to_json(),
        }


def preflight(
    validator: Validator,
    student: Named,
    teachers: Sequence[Named],
    *,
    ensemble: TeacherEnsemble | None = None,
    say: Callable[[str], None] | None = None,
) -> PreflightReport:
    """Evaluate the models on the validation samples, print a table and the warnings, and write `logs/preflight.json`.

    Each batch is loaded once for all models. Tables of earlier runs are reused if model and data are the same. Teachers
    with `calibrate` in the config are calibrated here, for the rest of the run. A teacher without the outputs that the
    task's metrics read is left out, and a line says so. Modes and random states do not change.

    Args:
        validator: The validator of the run.
        student: Name and model of the student.
        teachers: Name and model of each teacher.
        ensemble: The ensemble of several teachers, which is evaluated, too; None for one teacher.
        say: Prints a line; None for `run.say`.

    Raises:
        UserError: For outputs that are not finite, and for a teacher that is too weak or cannot be calibrated.
        MetricError: Where a metric is undefined.
    """
    run, task = validator.run, validator.task
    say = run.say if say is None else say
    calibrated = find_calibrated(run.config, teachers)
    for teacher in calibrated.values():
        teacher.calibration = None
    named = [(name, teacher) for name, teacher in teachers if _gives_rows(task, name, teacher, run.device, say)]
    models = [student, *named]
    evaluated = [
        evaluate_table(name, table, task)
        for (name, _), table in zip(models, _compute_tables(validator, models, say), strict=True)
    ]
    for place, (_, teacher) in enumerate(named, 1):
        if isinstance(teacher, FrozenTeacher) and any(teacher is other for other in calibrated.values()):
            evaluated[place] = calibrate(teacher, evaluated[place], say)
    average = None if ensemble is None else evaluate_average(ensemble, evaluated[1:])
    report = PreflightReport(
        tuple(evaluated),
        average,
        findings=tuple(check_models(evaluated[0], evaluated[1:], average)),
        start_value=evaluated[0].metrics[run.config.training.selection_metric],
        samples=len(validator.data.validation),
    )
    text = json.dumps(run.hider.within(report.to_json()), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomically(run.logs_folder / REPORT_NAME, text + "\n")
    save_tables(run.logs_folder / TABLES_NAME, [model.table for model in evaluated])
    rows = evaluated if average is None else [*evaluated, average]
    for line in (*format_table(rows, task), *(f"warning: {finding}" for finding in report.findings)):
        say(line)
    _refuse_weak(validator, evaluated)
    return report


def _gives_rows(task: Task, name: str, model: nn.Module, device: Any, say: Callable[[str], None]) -> bool:
    """Whether the task's metrics can be computed from the outputs of a teacher."""
    example = task.example_batch(1).to(device)
    try:
        with torch.inference_mode(), evaluation_mode(model):
            make_table(task, run_model(model, example.inputs), example)
    except KeyError as error:
        say(
            f"{name} gives no output {error}, which the metrics of this task read: it is not evaluated, and whether it "
            "is any better than the student is not known"
        )
        return False
    return True


def _refuse_weak(validator: Validator, evaluated: Sequence[CheckedModel]) -> None:
    """Raise UserError for teachers at chance, or worse than the student by more than the margin that CONFIG may set."""
    config = validator.run.config
    margin, metric = config.training.weak_teacher_margin, config.training.selection_metric
    if margin is None or "weak-teacher" in config.allow:
        return
    student, *teachers = [(model.name, model.metrics[metric]) for model in evaluated]
    direction = validator.task.metrics[metric].direction
    weak = find_weak_teachers(f"{PREFIX}{metric}", direction, student[1], teachers, margin)
    weak += find_teachers_at_chance(evaluated[1:])
    if weak:
        raise UserError(*weak)


def describe_work(items: int, teachers: int) -> str:
    """Describe what the preflight would do, for a dry run.

    Args:
        items: The number of validation samples.
        teachers: The number of teachers.
    """
    others = "the teacher" if teachers == 1 else f"{teachers} teachers"
    return f"the preflight would take {items} validation samples through the student and {others}"


def format_table(rows: Sequence[CheckedModel], task: Task) -> list[str]:
    """Write the models as a table: aligned lines of at most WIDTH characters.

    Args:
        rows: The models; the middle of a name that is too long is left out.
        task: The task, whose metrics are the columns.
    """
    shown = task.headline_metrics
    titles = [task.title(name)[:1].upper() + task.title(name)[1:] for name in shown]
    header = ["Model", f"Val {titles[0]}", *titles[1:]]
    if rows[0].logits is not None:
        header += ["ECE", "Logits mean +- sd, largest"]
    cells = [header, *(_to_cells(row, task) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 3 * (len(header) - 1))
    return [
        " | ".join([_shorten(row[0], widths[0]).ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in cells
    ]


def _compute_tables(validator: Validator, models: Sequence[Named], say: Callable[[str], None]) -> list[Table]:
    """Compute the table of each model: reuse those of earlier runs, and compute the others in one pass."""
    cache = build_table_cache(validator.run.config, validator.task, validator.data, validator.run.device, say)
    paths = [cache.find(model) for _, model in models]
    tables = [None if path is None else cache.load(path) for path in paths]
    for (name, _), path, known in zip(models, paths, tables, strict=True):
        if known is not None:
            say(f"preflight: {name} was evaluated on these samples before, {path}")
    missing = [index for index, known in enumerate(tables) if known is None]
    if missing:
        names = ", ".join(models[index][0] for index in missing)
        say(f"preflight: {len(validator.data.validation)} validation samples through {names} ...")
        computed, replaced = validator.compute_tables([models[index][1] for index in missing])
        for index, found in zip(missing, computed, strict=True):
            _check_finite(models[index][0], found, validator.task, is_student=index == 0)
            tables[index] = found
            path = paths[index]
            if path is not None and not replaced:  # a table with replaced samples would outlive their repair
                cache.save(path, found)
    cache.prune([path for path in paths if path is not None])
    return [known for known in tables if known is not None]


def _check_finite(name: str, table: Table, task: Task, *, is_student: bool) -> None:
    try:
        check_finite(table)
    except MetricError as error:
        key = " in `pretrained_student_weights`" if is_student else " for it in the config"
        raise UserError.about(
            where=name,
            what=f"cannot be used: its outputs for validation {plural(task.unit)} are not numbers",
            got=str(error),
            remedy=f"its weights are damaged or were made for other {plural(task.unit)}: name another file{key}",
        ) from None


def _to_cells(row: CheckedModel, task: Task) -> list[str]:
    cells = [row.name, *(format(row.metrics[name], task.metrics[name].format) for name in task.headline_metrics)]
    if row.logits is not None:
        logits = row.logits
        cells.append(f"{logits.ece:.3f}")
        cells.append(f"{logits.logits_mean:.3g} +- {logits.logits_sd:.3g}, {logits.logits_largest:.3g}")
    return cells


def _shorten(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    left = (width - 3) // 2
    return f"{name[:left]}...{name[len(name) - (width - 3 - left) :]}"
