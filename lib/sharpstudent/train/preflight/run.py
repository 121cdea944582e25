"""Before the first step of stage 2: the student and every teacher are evaluated on the validation samples, and what
would go wrong is said plainly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.types import Table
from sharpstudent.evaluation.tables import check_finite, make_table
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.forward import run_model
from sharpstudent.models.teachers import Named, TeacherEnsemble
from sharpstudent.task import Task, plural
from sharpstudent.train.preflight.findings import (
    CheckedModel,
    ModelRow,
    evaluate_average,
    evaluate_table,
    find_average_problems,
    find_problems,
    find_weak_teachers,
)
from sharpstudent.train.preflight.table_cache import build_table_cache, save_tables
from sharpstudent.train.preflight.temperature import REPORT_NAME, calibrate, find_calibrated
from sharpstudent.train.validate import PREFIX, Validator, drop_undefined

FORMAT = 1
TABLES_NAME = "preflight_scores.json"  # beside the report: what it was made of, for the report at the end of the run
WIDTH = 100  # characters that a line of the table may have


@dataclass(frozen=True)
class PreflightReport:
    """rows: the student's first, then a teacher's each; average: of several teachers; findings: sentences, none where
    all is well; shown: the metrics that the table tells.

    start_value: the student's selection metric; samples: of the validation set.
    """

    rows: tuple[ModelRow, ...]
    findings: tuple[str, ...]
    start_value: float
    samples: int
    shown: tuple[str, ...]
    average: ModelRow | None = None

    @property
    def start_metrics(self) -> dict[str, float]:
        """The student's that have a value."""
        return drop_undefined(self.rows[0].metrics)

    def to_json(self) -> dict[str, Any]:
        """As `logs/preflight.json` has it."""
        return {
            "format": FORMAT,
            "rows": [row.to_json(self.shown) for row in self.rows],
            "findings": list(self.findings),
            "start_value": self.start_value,
            "items": self.samples,
            "average": None if self.average is None else self.average.to_json(self.shown),
        }


def preflight(
    validator: Validator,
    student: Named,
    teachers: Sequence[Named],
    *,
    ensemble: TeacherEnsemble | None = None,
    say: Callable[[str], None] | None = None,
) -> PreflightReport:
    """Evaluate the models, say a table and the findings line by line (`run.say` unless given), and write
    `logs/preflight.json` with the tables beside it. Teachers that the config asks to calibrate are, from now on.

    All models see a batch that is loaded once. Tables of earlier runs are taken again where model and data are the
    same. ensemble: the teachers as one, evaluated too where they are several. A teacher that does not give what the
    task's metrics read is left out, and told. Neither the models' modes nor any random state that training uses are
    moved. Raises UserError for outputs that are not finite and for a teacher that cannot be calibrated, MetricError
    where a metric is undefined, and what `validator.between_batches` raises to stop.
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
        if any(teacher is other for other in calibrated.values()):
            evaluated[place] = calibrate(teacher, evaluated[place], say)  # type: ignore[arg-type]
    findings = find_problems(evaluated[0], evaluated[1:])
    average = None
    if ensemble is not None and len(named) > 1:
        average = evaluate_average(ensemble, evaluated[1:])
        findings += [] if average is None else find_average_problems(average, evaluated[1:], evaluated[0])
    report = PreflightReport(
        rows=tuple(model.row for model in evaluated),
        findings=tuple(findings),
        start_value=evaluated[0].row.metrics[run.config.training.selection_metric],
        samples=len(validator.data.validation),
        shown=task.headline_metrics,
        average=None if average is None else average.row,
    )
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomically(run.logs_folder / REPORT_NAME, text + "\n")
    save_tables(run.logs_folder / TABLES_NAME, [model.table for model in evaluated])
    rows = report.rows if report.average is None else (*report.rows, report.average)
    for line in (*format_table(rows, task), *(f"warning: {finding}" for finding in report.findings)):
        say(line)
    _refuse_weak(validator, evaluated)
    return report


def _gives_rows(task: Task, name: str, model: nn.Module, device: Any, say: Callable[[str], None]) -> bool:
    """Whether the task's metrics can be computed of what a teacher gives."""
    example, was_training = task.example_batch(1).to(device), model.training
    try:
        with torch.inference_mode():
            make_table(task, run_model(model.eval(), example.inputs), example)
    except KeyError as error:
        say(
            f"{name} gives no output {error}, which the metrics of this task read: it is not evaluated, and whether it "
            "is any better than the student is not known"
        )
        return False
    finally:
        model.train(was_training)
    return True


def _refuse_weak(validator: Validator, evaluated: Sequence[CheckedModel]) -> None:
    """Raise UserError for teachers below the student's selection metric, where the config has a margin for them."""
    config = validator.run.config
    margin, word = config.training.weak_teacher_margin, config.training.selection_metric
    if margin is None or "weak-teacher" in config.allow:
        return
    student, *teachers = [(model.name, model.row.metrics[word]) for model in evaluated]
    direction = validator.task.metrics[word].direction
    weak = find_weak_teachers(f"{PREFIX}{word}", direction, student[1], teachers, margin)
    if weak:
        raise UserError(*weak)


def describe_work(items: int, teachers: int) -> str:
    """What the preflight of a run would do, for a dry run."""
    others = "the teacher" if teachers == 1 else f"{teachers} teachers"
    return f"the preflight would take {items} validation items through the student and {others}"


def format_table(rows: Sequence[ModelRow], task: Task) -> list[str]:
    """Aligned plain lines of at most WIDTH characters; a name that is too long loses its middle."""
    shown = task.headline_metrics
    titles = [_capitalise(task.title(name)) for name in shown]
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
    """The table of each model: those kept from an earlier run, or of one pass for all that have none."""
    cache = build_table_cache(validator.run.config, validator.task, validator.data, validator.run.device, say)
    paths = [cache.find(model) for _, model in models]
    tables = [None if path is None else cache.load(path) for path in paths]
    for (name, _), path, known in zip(models, paths, tables, strict=True):
        if known is not None:
            say(f"preflight: {name} was judged on these items before, {path}")
    missing = [index for index, known in enumerate(tables) if known is None]
    if missing:
        names = ", ".join(models[index][0] for index in missing)
        say(f"preflight: {len(validator.data.validation)} validation items through {names} ...")
        computed, replaced = validator.compute_tables([models[index][1] for index in missing])
        for index, found in zip(missing, computed, strict=True):
            _check_finite(models[index][0], found, validator.task, is_student=index == 0)
            tables[index] = found
            path = paths[index]
            if path is not None and not replaced:  # a sample that is mended would be another's for ever
                cache.save(path, found)
    cache.prune([path for path in paths if path is not None])
    return [known for known in tables if known is not None]


def _check_finite(name: str, table: Table, task: Task, *, is_student: bool) -> None:
    try:
        check_finite(table)
    except MetricError as error:
        key = " in `pretrained_student_weights`" if is_student else " for it in the config"
        raise UserError(
            Problem(
                where=name,
                what=f"cannot be used: its answers to validation {plural(task.unit)} are not numbers",
                got=str(error),
                remedy=f"its weights are damaged or were made for other {plural(task.unit)}: name another file{key}",
            )
        ) from None


def _to_cells(row: ModelRow, task: Task) -> list[str]:
    cells = [row.name, *(format(row.metrics[name], task.metrics[name].format) for name in task.headline_metrics)]
    if row.logits is not None:
        figures = row.logits
        cells.append(f"{figures.ece:.3f}")
        cells.append(f"{figures.logits_mean:.3g} +- {figures.logits_sd:.3g}, {figures.logits_largest:.3g}")
    return cells


def _capitalise(title: str) -> str:
    return title[:1].upper() + title[1:]


def _shorten(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    left = (width - 3) // 2
    return f"{name[:left]}...{name[len(name) - (width - 3 - left) :]}"
