"""Preflight checks of the student and the teachers: the metrics of each model, and a warning for each problem.

Whether a model is at chance or weak is decided by the task's first metric. Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sharpstudent.core.errors import Problem
from sharpstudent.core.types import Direction, Table
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.calibration import (
    compute_brier,
    compute_ece,
    compute_log_loss,
    describe_temperature,
    fit_temperature,
)
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import Metric
from sharpstudent.models.teachers import TeacherEnsemble
from sharpstudent.task import Task, plural
from sharpstudent.train.alarms import CHANCE_BAND
from sharpstudent.train.validate import PREFIX, compute_metrics, drop_undefined

WEAK_SHARE = 0.6  # of the range from chance to perfect; a teacher below it is weak (an AUC below .80)
SPREAD_RATIO = 10.0  # of the standard deviations of two models' logits; a larger ratio gives a warning
USUAL_TEMPERATURE = 3.0  # the default of `temperature`: a teacher that needs no more is not overconfident
ROUNDS = 1000


@dataclass(frozen=True)
class LogitStatistics:
    """Statistics of the logits (N, C) of one classifier.

    Attributes:
        ece: Expected calibration error, 0..1.
        log_loss: Mean over the rows, in nats.
        brier: Brier score.
        logits_mean: Over rows and classes.
        logits_sd: Standard deviation over rows and classes.
        logits_largest: The largest magnitude.
        temperature: The temperature that calibrates the logits when they are divided by it (`fit_temperature`).
        temperature_note: A remark if the temperature is at a bound of the search, else None.
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
class CheckedModel:
    """The outputs of one model on the validation samples, and the metrics computed from them.

    Attributes:
        name: The name of the model in messages.
        metrics: The metrics of the task that have a value, by name.
        logits: None for a task without logits.
        table: The outputs, N rows.
        task: The task, which names the metrics.
        calibration: The temperature by which the logits have been divided (`calibrate`), None without one.
    """

    name: str
    metrics: Mapping[str, float]
    logits: LogitStatistics | None
    table: Table = field(compare=False)
    task: Task
    calibration: float | None = None

    @property
    def metric(self) -> Metric:
        """The task's first metric."""
        return self.task.metrics[self.task.default_metric]

    @property
    def value(self) -> float:
        """The value of the task's first metric."""
        return self.metrics[self.task.default_metric]

    def describe(self, interval: Estimate | None = None) -> str:
        """Write title and value of the first metric, with an interval over groups if one is given."""
        text = f"{self.task.title(self.task.default_metric)} of {self.shown}"
        return text if interval is None else f"{text}{self.show_interval(interval)}"

    @property
    def shown(self) -> str:
        """The value of the first metric as text."""
        return format(self.value, self.metric.format)

    def show_interval(self, interval: Estimate) -> str:
        """Write an interval in brackets; empty if there is none."""
        if interval.low is None or interval.high is None:
            return ""
        return f" ({interval.low:.4f} to {interval.high:.4f} over {plural(self.task.group_unit)})"

    @property
    def is_below_chance(self) -> bool:
        """Whether the first metric is worse than chance."""
        return self.metric.chance is not None and self.metric.is_better(self.metric.chance, self.value)

    def to_json(self) -> dict[str, Any]:
        """The row of `logs/preflight.json`."""
        metrics = {f"{PREFIX}{one}": drop_undefined(self.metrics).get(one) for one in self.task.headline_metrics}
        statistics = {} if self.logits is None else vars(self.logits)
        return {"name": self.name, **metrics, **statistics, "calibration": self.calibration}


def evaluate_table(name: str, table: Table, task: Task) -> CheckedModel:
    """Compute the metrics of one model.

    Args:
        name: The name of the model in messages.
        table: Its outputs on the validation samples.
        task: The task, which names the metrics.

    Raises:
        MetricError: For values that are not finite, and where the task's first metric is undefined.
    """
    metrics = compute_metrics(task, table, task.default_metric)  # first, because it checks the table and names bad rows
    statistics = _compute_logit_statistics(table) if "logits" in table else None
    named = {metric.removeprefix(PREFIX): value for metric, value in drop_undefined(metrics).items()}
    return CheckedModel(name, named, statistics, table, task)


def _compute_logit_statistics(table: Table) -> LogitStatistics:
    logits, labels = table["logits"].astype(np.float64), table["label"]
    temperature = fit_temperature(logits, labels)
    return LogitStatistics(
        ece=compute_ece(logits, labels),
        log_loss=compute_log_loss(logits, labels),
        brier=compute_brier(logits, labels),
        logits_mean=float(logits.mean()),
        logits_sd=float(logits.std()),
        logits_largest=float(np.abs(logits).max()),
        temperature=temperature,
        temperature_note=describe_temperature(temperature),
    )


def check_models(
    student: CheckedModel, teachers: Sequence[CheckedModel], average: CheckedModel | None = None
) -> list[str]:
    """Find problems of the models that would spoil stage 2. All models were evaluated on the same rows.

    Args:
        student: The student that stage 2 starts from.
        teachers: Its teachers.
        average: The average of several teachers; None for one teacher.

    Returns:
        A warning for each problem, with numbers and a remedy.
    """
    task = student.task
    found = task.check_student(student.name, student.metrics)
    for model in (student, *teachers):
        found += _check_constant(model)
    for teacher in teachers:
        if _is_same(teacher.table, student.table):
            found.append(
                f"{teacher.name} and {student.name} agree on all {len(student.table['id'])} {plural(task.unit)} to the "
                "last bit: the teacher's file is the student's own, and nothing can be learnt from it; name another "
                "file for it"
            )
        found += _check_teacher(teacher, student) + _compare_spreads(teacher, student)
    if average is not None:
        found += _check_constant(average) + _check_average(average, teachers, student)
        if not any(_compare_spreads(teacher, student) for teacher in teachers):
            found += _compare_spreads(average, student)
    return found


def _is_same(one: Table, other: Table) -> bool:
    """Whether two models give the same numbers for all rows."""
    floats = [name for name, column in one.items() if column.dtype.kind == "f"]
    return bool(floats) and all(one[name].tobytes() == other[name].tobytes() for name in floats if name in other)


def _check_constant(model: CheckedModel) -> list[str]:
    """Warn of a model that gives the same logits to every row."""
    logits = model.table.get("logits")
    if logits is None or bool((logits != logits[0]).any()):
        return []
    return [
        f"{model.name} gives the same logits to all {len(logits)} {plural(model.task.unit)}: it has learnt nothing, or "
        "has collapsed"
    ]


def _check_teacher(teacher: CheckedModel, student: CheckedModel) -> list[str]:
    """Warn of one teacher that is below chance, weak, or worse than the student."""
    if not teacher.is_below_chance:
        return [
            *_check_weak(teacher, "train it longer, or name a better one"),
            *_check_worse(teacher, student, "name a better teacher, or keep `alpha_end` near 1"),
        ]
    metric, interval = teacher.metric, estimate(teacher)
    end = interval.high if metric.direction == "higher" else interval.low
    is_certain = end is None or metric.chance is None or metric.is_better(metric.chance, end)
    why = _explain_below_chance(teacher.task, is_certain)
    return [f"{teacher.name} has a validation {teacher.describe(interval)}, below chance: {why}"]


def _check_average(average: CheckedModel, teachers: Sequence[CheckedModel], student: CheckedModel) -> list[str]:
    """Warn of an average that is below chance, weak, or worse than the student or its best teacher."""
    if average.is_below_chance:
        return [
            f"{average.name} has a validation {average.describe(estimate(average))}, below chance: leave out the "
            "teacher that spoils it, or correct its `classes`"
        ]
    pick = max if average.metric.direction == "higher" else min
    best = pick(teachers, key=lambda teacher: teacher.value)
    return [
        *_check_weak(average, "name better teachers, or leave the weak ones out"),
        *_check_worse(average, student, "name better teachers, or keep `alpha_end` near 1"),
        *_check_worse(average, best, "give that one a larger `weight`, or let it teach alone"),
    ]


def _explain_below_chance(task: Task, is_certain: bool) -> str:
    """Say why a teacher may be worse than chance; `is_certain`: whether the difference exceeds the noise."""
    if not getattr(task, "classes", ()):
        return "it is untrained, or was made for other inputs"
    order = name_wrong_order(task)
    what = f"its classes are probably {order}" if is_certain else f"it is untrained, or its classes are {order}"
    return f"{what}; if so, {advise_on_order(task)}"


def name_wrong_order(task: Task) -> str:
    """Say how the classes of a teacher may differ from the task's: two classes can only be swapped."""
    return "swapped" if len(getattr(task, "classes", ())) == 2 else "in another order"


def advise_on_order(task: Task) -> str:
    """Say what to write in the config about the order of a teacher's classes."""
    classes = list(getattr(task, "classes", ()))
    if len(classes) != 2:
        return 'write the "classes" of its own order for it in `teachers`'
    return f'write "classes": ["{classes[1]}", "{classes[0]}"] for it in `teachers`'


def _check_weak(model: CheckedModel, advice: str) -> list[str]:
    """Warn of a weak model (see WEAK_SHARE), from which a student learns little."""
    metric = model.metric
    if metric.chance is None or metric.perfect is None:
        return []
    limit = metric.chance + WEAK_SHARE * (metric.perfect - metric.chance)
    if not metric.is_better(limit, model.value):
        return []
    side = "below" if metric.direction == "higher" else "above"
    return [
        f"{model.name} is weak, with a validation {model.describe()} ({side} {limit:.2f}): expect little from it; "
        f"{advice}"
    ]


def _check_worse(model: CheckedModel, other: CheckedModel, advice: str) -> list[str]:
    """Warn where `model` is worse than `other` by more than the noise over groups."""
    metric, task = model.metric, model.task
    if not metric.is_better(other.value, model.value):
        return []
    paired = compute_paired(metric, model.table, other.table, rounds=ROUNDS, seed=0, group_unit=task.group_unit)
    best = paired.high if metric.direction == "higher" else paired.low
    if best is None or paired.p_value is None or not metric.is_better(0.0, best):
        return []
    return [
        f"{model.name} is worse than {other.name}: {task.title(task.default_metric)} {model.shown} against "
        f"{other.shown}, a difference of {paired.value:+.4f}{model.show_interval(paired)}; {advice}"
    ]


def find_weak_teachers(
    metric: str, direction: Direction, student: float, teachers: Sequence[tuple[str, float]], margin: float
) -> list[Problem]:
    """Find the teachers that are worse than the student by more than a margin.

    Args:
        metric: Name of the metric, for messages.
        direction: Whether higher or lower values are better.
        student: The student's value.
        teachers: The name and the value of each teacher.
        margin: The permitted difference, in units of the metric.

    Returns:
        A problem for each such teacher.
    """
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


def find_teachers_at_chance(teachers: Sequence[CheckedModel]) -> list[Problem]:
    """Find the teachers that guess, by the task's first metric: a problem for each, where chance is known."""
    found: list[Problem] = []
    for teacher in teachers:
        metric = teacher.metric
        if metric.chance is None or metric.perfect is None:
            continue
        limit = metric.chance + CHANCE_BAND * (metric.perfect - metric.chance)
        if metric.is_better(limit, teacher.value):
            what = f"guesses: its validation {teacher.describe()} is near chance, {metric.chance:{metric.format}}"
            remedy = "name a trained teacher, or take this one with --allow weak-teacher"
            expected = f"{limit:{metric.format}} or {'more' if metric.direction == 'higher' else 'less'}"
            found.append(Problem(teacher.name, what, expected=expected, remedy=remedy))
    return found


def _compare_spreads(teacher: CheckedModel, student: CheckedModel) -> list[str]:
    """Warn of logits of very different spreads.

    At one temperature, the softened distributions of one model are then nearly one-hot, and the other's nearly uniform.
    """
    if teacher.logits is None or student.logits is None:
        return []
    of_teacher, of_student = (teacher, teacher.logits), (student, student.logits)
    (wide, spread), (narrow, least) = sorted((of_teacher, of_student), key=lambda one: one[1].logits_sd, reverse=True)
    if spread.logits_sd <= SPREAD_RATIO * least.logits_sd or least.logits_sd == 0.0:
        return []  # constant logits have a check of their own
    if wide is student:
        advice = "check the stage-1 checkpoint, or raise `temperature`"
    elif spread.temperature <= USUAL_TEMPERATURE:
        advice = f"{student.name} says little as yet; run stage 1 longer, or raise `temperature`"
    else:
        fitted = "" if spread.temperature_note else f" ({spread.temperature:.3g} would calibrate {wide.name} alone)"
        advice = f"raise `temperature`{fitted}, or check its weights"
    return [
        f"the logits of {wide.name} spread {spread.logits_sd / least.logits_sd:.3g} times as widely as those of "
        f"{narrow.name} (standard deviations {spread.logits_sd:.3g} and {least.logits_sd:.3g}, largest "
        f"{spread.logits_largest:.3g} and {least.logits_largest:.3g}), a frequent cause of losses that are not finite: "
        f"{advice}"
    ]


def estimate(model: CheckedModel) -> Estimate:
    """Compute the task's first metric with its interval over groups, which needs more than one group."""
    return compute_interval(model.metric, model.table, rounds=ROUNDS, seed=0, group_unit=model.task.group_unit)


def evaluate_average(ensemble: TeacherEnsemble, members: Sequence[CheckedModel]) -> CheckedModel | None:
    """Evaluate the average of several teachers from their tables, without running a model again.

    Args:
        ensemble: The ensemble, which averages the outputs.
        members: The evaluated teachers of the ensemble.

    Returns:
        The evaluated average; None if there are fewer than two teachers, or one of them has no logits.
    """
    if len(members) < 2 or any("logits" not in member.table for member in members):
        return None
    logits = [torch.from_numpy(member.table["logits"]).to(ensemble.shares.device) for member in members]
    table = {**members[0].table, "logits": ensemble.combine(logits).cpu().numpy()}
    return evaluate_table(f"average of {len(members)} teachers", table, members[0].task)
