"""What the tables of student and teachers foretell of stage 2: metrics of each model, and a sentence for each thing
that would go wrong.

The metric that speaks of chance and of weak teachers is the task's first one. Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sharpstudent.core.errors import Problem
from sharpstudent.core.types import Direction, Table
from sharpstudent.metrics.bootstrap import Estimate, compute_interval, compute_paired
from sharpstudent.metrics.calibration import (
    compute_brier,
    compute_ece,
    compute_log_loss,
    describe_temperature,
    fit_temperature,
)
from sharpstudent.metrics.metric import Metric
from sharpstudent.models.teachers import TeacherEnsemble
from sharpstudent.task import Task, plural
from sharpstudent.train.validate import PREFIX, compute_metrics, drop_undefined

WEAK_SHARE = 0.6  # of the way from chance to perfect, below which a teacher is weak: an AUC of .80
SPREAD_RATIO = 10.0  # of the standard deviations of two models' logits
USUAL_TEMPERATURE = 3.0  # the default of `temperature`: a teacher that needs no more is not too sure
ROUNDS = 1000


@dataclass(frozen=True)
class LogitFigures:
    """What the logits of a classification say. log_loss [nats]; logits_*: over rows and classes, `largest` by
    magnitude; temperature: what its logits divided by would be calibrated (`fit_temperature`), with a note at a bound.
    """

    ece: float
    log_loss: float
    brier: float
    logits_mean: float
    logits_sd: float
    logits_largest: float
    temperature: float
    temperature_note: str | None


@dataclass(frozen=True)
class ModelRow:
    """One model on the validation rows. metrics: of the task, by name; logits: None for a task without logits;
    calibration: what the logits were divided by before all these figures were made (`calibrate`).
    """

    name: str
    metrics: Mapping[str, float]
    logits: LogitFigures | None
    calibration: float | None = None

    def to_json(self, shown: Sequence[str]) -> dict[str, Any]:
        """As `logs/preflight.json` has it; shown: the metrics that are told."""
        figures = {} if self.logits is None else vars(self.logits)
        metrics = {f"{PREFIX}{name}": drop_undefined(self.metrics).get(name) for name in shown}
        return {"name": self.name, **metrics, **figures, "calibration": self.calibration}


@dataclass(frozen=True)
class CheckedModel:
    """What a model says of the validation samples, and the figures made of it."""

    row: ModelRow
    table: Table
    task: Task

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def metric(self) -> Metric:
        """The task's first one."""
        return self.task.metrics[self.task.default_metric]

    @property
    def value(self) -> float:
        """Of that metric."""
        return self.row.metrics[self.task.default_metric]

    @property
    def title(self) -> str:
        """What readers call it."""
        return self.task.title(self.task.default_metric)

    @property
    def shown(self) -> str:
        """That value as text."""
        return format(self.value, self.metric.format)


def evaluate_table(name: str, table: Table, task: Task) -> CheckedModel:
    """The figures of one model. Raises MetricError for values that are not finite, and where the task's first metric is
    undefined.
    """
    figures = _compute_logit_figures(table) if "logits" in table else None
    metrics = compute_metrics(task, table, task.default_metric)
    row = ModelRow(name, {word.removeprefix(PREFIX): value for word, value in metrics.items()}, figures)
    return CheckedModel(row, table, task)


def _compute_logit_figures(table: Table) -> LogitFigures:
    logits = table["logits"].astype(np.float64)
    told = {"labels": table["label"], "sample_ids": table["id"].tolist()}
    temperature = fit_temperature(logits, **told)
    return LogitFigures(
        ece=compute_ece(logits, **told),
        log_loss=compute_log_loss(logits, **told),
        brier=compute_brier(logits, **told),
        logits_mean=float(logits.mean()),
        logits_sd=float(logits.std()),
        logits_largest=float(np.abs(logits).max()),
        temperature=temperature,
        temperature_note=describe_temperature(temperature),
    )


def find_problems(student: CheckedModel, teachers: Sequence[CheckedModel]) -> list[str]:
    """One sentence for each, with its figures and what to do. All models were evaluated on the same rows."""
    task = student.task
    found = task.check_student(student.name, student.row.metrics)
    for model in (student, *teachers):
        found += find_constant(model)
    for teacher in teachers:
        if _is_same(teacher.table, student.table):
            found.append(
                f"{teacher.name} and {student.name} agree on all {len(student.table['id'])} {plural(task.unit)} to the "
                "last bit: the teacher's file is the student's own, and nothing can be learnt from it; name another "
                "file for it"
            )
        found += _find_bad_teacher(teacher, student)
        found += find_other_range(teacher, student)
    return found


def _is_same(one: Table, other: Table) -> bool:
    """Whether two models give the same numbers for all rows."""
    floats = [name for name, column in one.items() if column.dtype.kind == "f"]
    return bool(floats) and all(one[name].tobytes() == other[name].tobytes() for name in floats if name in other)


def find_constant(model: CheckedModel) -> list[str]:
    """Where it says one thing of every row."""
    logits = model.table.get("logits")
    if logits is None or bool((logits != logits[0]).any()):
        return []
    return [
        f"{model.name} gives the same logits to all {len(logits)} {plural(model.task.unit)}: it has learnt nothing, or "
        "has collapsed"
    ]


def is_below_chance(model: CheckedModel) -> bool:
    """Whether guessing would do better."""
    chance = model.metric.chance
    return chance is not None and model.metric.is_better(chance, model.value)


def _find_bad_teacher(teacher: CheckedModel, student: CheckedModel) -> list[str]:
    metric = teacher.metric
    if is_below_chance(teacher):
        interval = estimate(teacher)
        end = interval.high if metric.direction == "higher" else interval.low
        assert metric.chance is not None
        is_told = end is None or metric.is_better(metric.chance, end)
        what = "its classes are probably swapped" if is_told else "it is untrained, or its classes are swapped"
        return [
            f"{teacher.name} has a validation {teacher.title} of {teacher.shown}{show_interval(interval, teacher)}, "
            f"below chance: {what}; if so, {advise_on_order(teacher.task)}"
        ]
    advice = "name a better teacher, or keep `alpha_end` near 1"
    return [*find_weakness(teacher, "train it longer, or name a better one"), *find_worse(teacher, student, advice)]


def advise_on_order(task: Task) -> str:
    """How the config says in which order a teacher has its classes."""
    classes = list(getattr(task, "classes", ()))
    if len(classes) != 2:
        return 'write the "classes" of its own order for it in `teachers`'
    return f'write "classes": ["{classes[1]}", "{classes[0]}"] for it in `teachers`'


def find_weakness(teacher: CheckedModel, advice: str) -> list[str]:
    """Below a value from which there is something to learn."""
    metric = teacher.metric
    if metric.chance is None or metric.perfect is None:
        return []
    limit = metric.chance + WEAK_SHARE * (metric.perfect - metric.chance)
    if not metric.is_better(limit, teacher.value):
        return []
    side = "below" if metric.direction == "higher" else "above"
    return [
        f"{teacher.name} is weak, with a validation {teacher.title} of {teacher.shown} ({side} {limit:.2f}): expect "
        f"little from it; {advice}"
    ]


def find_worse(model: CheckedModel, other: CheckedModel, advice: str) -> list[str]:
    """Where `model` is worse than `other` by more than the noise over groups."""
    metric = model.metric
    if not metric.is_better(other.value, model.value):
        return []
    paired = compute_paired(
        metric, model.table, other.table, rounds=ROUNDS, seed=0, group_unit=model.task.group_unit
    ).difference
    best = paired.high if metric.direction == "higher" else paired.low
    if best is None or not metric.is_better(0.0, best):
        return []
    return [
        f"{model.name} is worse than {other.name}: {model.title} {model.shown} against {other.shown}, a difference of "
        f"{paired.value:+.4f}{show_interval(paired, model)}; {advice}"
    ]


def find_weak_teachers(
    metric: str, direction: Direction, student: float, teachers: Sequence[tuple[str, float]], margin: float
) -> list[Problem]:
    """The teachers that are worse than the student by more than `margin`, in units of the metric."""
    sign = 1.0 if direction == "higher" else -1.0
    return [
        Problem(
            name,
            f"is worse than the student of stage 1, by more than weak_teacher_margin {margin:g}",
            expected=f"{metric} of {student - sign * margin:.4f} or {direction}; the student has {student:.4f}",
            got=f"{value:.4f}",
            remedy="name a better teacher, or take this one with --allow weak-teacher",
        )
        for name, value in teachers
        if sign * (student - value) > margin
    ]


def find_other_range(teacher: CheckedModel, student: CheckedModel) -> list[str]:
    """Of very different spreads, the softened distributions of one side are all but one-hot where the other's are
    flat.
    """
    if teacher.row.logits is None or student.row.logits is None:
        return []
    of_teacher, of_student = (teacher, teacher.row.logits), (student, student.row.logits)
    (wide, spread), (narrow, least) = sorted((of_teacher, of_student), key=lambda one: one[1].logits_sd, reverse=True)
    if spread.logits_sd <= SPREAD_RATIO * least.logits_sd or least.logits_sd == 0.0:
        return []  # without any spread a model is constant, which is told already
    ratio = spread.logits_sd / least.logits_sd
    return [
        f"the logits of {wide.name} spread {ratio:.3g} times as widely as those of {narrow.name} (standard deviations "
        f"{spread.logits_sd:.3g} and {least.logits_sd:.3g}, largest {spread.logits_largest:.3g} and "
        f"{least.logits_largest:.3g}), a frequent cause of losses that are not finite: "
        + _advise_on_range(wide, spread, student)
    ]


def _advise_on_range(wide: CheckedModel, spread: LogitFigures, student: CheckedModel) -> str:
    """What to do where one side's logits are so much wider: that side is too sure, or the other says next to
    nothing.
    """
    if wide is student:
        return "check the stage-1 checkpoint, or raise `temperature`"
    if spread.temperature <= USUAL_TEMPERATURE:
        return f"{student.name} says little as yet; run stage 1 longer, or raise `temperature`"
    fitted = "" if spread.temperature_note else f" ({spread.temperature:.3g} would calibrate {wide.name} alone)"
    return f"raise `temperature`{fitted}, or check its weights"


def estimate(model: CheckedModel) -> Estimate:
    """The task's first metric with its interval over groups; without one where there is only one group."""
    return compute_interval(model.metric, model.table, rounds=ROUNDS, seed=0, group_unit=model.task.group_unit)


def show_interval(interval: Estimate, model: CheckedModel) -> str:
    """In brackets, after a figure; nothing where there is none."""
    if interval.low is None or interval.high is None:
        return ""
    return f" ({interval.low:.4f} to {interval.high:.4f} over {plural(model.task.group_unit)})"


def evaluate_average(ensemble: TeacherEnsemble, members: Sequence[CheckedModel]) -> CheckedModel | None:
    """The average of the members' logits, as the ensemble averages: no model is asked again. None without logits."""
    if any("logits" not in member.table for member in members):
        return None
    logits = [torch.from_numpy(member.table["logits"]).to(ensemble.shares.device) for member in members]
    table = {**members[0].table, "logits": ensemble.combine(logits).cpu().numpy()}
    return evaluate_table(f"average of {len(members)} teachers", table, members[0].task)


def find_average_problems(average: CheckedModel, members: Sequence[CheckedModel], student: CheckedModel) -> list[str]:
    """A sentence for each, as `find_problems` for the members; what is told of a member already is left out."""
    found = find_constant(average)
    metric = average.metric
    if is_below_chance(average):
        shown = show_interval(estimate(average), average)
        found.append(
            f"{average.name} has a validation {average.title} of {average.shown}{shown}, below chance: leave out the "
            "teacher that spoils it, or mend its `classes`"
        )
    else:
        pick = max if metric.direction == "higher" else min
        best = pick(members, key=lambda member: member.value)
        found += find_weakness(average, "name better teachers, or leave the weak ones out")
        found += find_worse(average, student, "name better teachers, or keep `alpha_end` near 1")
        found += find_worse(average, best, "give that one a larger `weight`, or let it teach alone")
    if not any(find_other_range(member, student) for member in members):
        found += find_other_range(average, student)
    return found
