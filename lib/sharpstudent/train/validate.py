"""Validation: the metrics of the student and of its averaged weights, and which of the two an epoch is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sharpstudent.core.types import Table
from sharpstudent.data.loader import Replaced
from sharpstudent.evaluation.tables import check_finite, compute_tables
from sharpstudent.metrics.checks import MetricError, explain_undefined
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep

EVALUATION_SAMPLES = 16  # samples a batch when nothing is learnt
PREFIX = "val_"  # of a metric on validation, in logs, CSV files and checkpoints


@dataclass(frozen=True)
class ValidationResult:
    """Of one epoch. metrics: all of them, those of the averaged weights with `_ema`, and which of the two was
    `selected`. Of the selected one: its selection metric (`value`), its own metrics, the table that they were made of,
    and the model itself.
    """

    metrics: dict[str, Any]
    value: float
    own: Mapping[str, float]
    table: Table
    model: nn.Module


@dataclass(frozen=True)
class Validator:
    """Validates models of one run, always on the same samples.

    between_batches: may raise to stop; report_unreadable: gets the samples that could not be read.
    """

    run: Run
    task: Task
    data: TrainingData
    between_batches: Callable[[], None]
    report_unreadable: Callable[[tuple[Replaced, ...]], None]

    def compute_tables(self, models: Sequence[nn.Module]) -> tuple[tuple[Table, ...], tuple[Replaced, ...]]:
        """What several models say, in one pass, and the samples that could not be read (reported already)."""
        config = self.run.config
        tables, replaced = compute_tables(
            models,
            self.data.validation,
            self.task,
            batch_size=EVALUATION_SAMPLES,
            num_workers=config.num_workers,
            timeout_s=config.loader_timeout,
            device=self.run.device,
            between_batches=self.between_batches,
        )
        self.report_unreadable(replaced)
        return tables, replaced

    def validate(self, model: nn.Module) -> tuple[dict[str, float], Table]:
        """The task's metrics of one model, and its table. Raises MetricError for values that are not finite, and where
        the metric that selects is undefined.
        """
        (table,), _ = self.compute_tables([model])
        return compute_metrics(self.task, table, self.run.config.training.selection_metric), table

    def validate_epoch(self, step: TrainStep) -> ValidationResult:
        """The student, and where its weights are averaged, the average too: the better one counts, of equal ones the
        student.
        """
        word = self.run.config.training.selection_metric
        name, metric = f"{PREFIX}{word}", self.task.metrics[word]
        student, table = self.validate(step.student)
        if step.average is None:
            return ValidationResult(dict(student), student[name], student, table, step.student)
        averaged, averaged_table = self.validate(step.average.model)
        is_average = metric.is_better(averaged[name], student[name])
        metrics = {
            **student,
            **{f"{name}_ema": value for name, value in averaged.items()},
            "selected": "ema" if is_average else "student",
        }
        if is_average:
            return ValidationResult(metrics, averaged[name], averaged, averaged_table, step.average.model)
        return ValidationResult(metrics, student[name], student, table, step.student)


def drop_undefined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that have no value: NaN, which JSON cannot say."""
    return {name: value for name, value in metrics.items() if not (isinstance(value, float) and np.isnan(value))}


def compute_metrics(task: Task, table: Table, selection_metric: str) -> dict[str, float]:
    """All metrics of a task by the names of the logs, `val_NAME`. Raises MetricError for values that are not finite,
    and where the metric that selects is undefined: nothing may stand in for it.
    """
    check_finite(table)
    metrics = {f"{PREFIX}{name}": metric.value(table) for name, metric in task.metrics.items()}
    if np.isnan(metrics[f"{PREFIX}{selection_metric}"]):
        why = explain_undefined(table, task.metrics[selection_metric].strata)
        raise MetricError(f"{PREFIX}{selection_metric} has no value: {why}")
    return metrics
