"""Validation: the metrics of the student and of its averaged weights, and which of the two an epoch selects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from sharpstudent.core.ranks import Ranks

EVALUATION_SAMPLES = 16  # samples in a batch of an evaluation, which keeps no activations for gradients
PREFIX = "val_"  # of the name of a metric on validation samples, in logs, CSV files and checkpoints
STUDENT = "student_"  # of the name of a number that the task measures on the student itself


@dataclass(frozen=True)
class ValidationResult:
    """The result of an epoch's validation.

    Attributes:
        metrics: Metrics of the student, of the averaged weights with `_ema`, which of the two was `selected`, and what
            the task measures on the student itself.
        value: The selection metric of the selected model.
        own: All metrics of the selected model.
        table: The outputs of the selected model, from which its metrics were computed.
        model: The selected model.
    """

    metrics: dict[str, Any]
    value: float
    own: Mapping[str, float]
    table: Table
    model: nn.Module


@dataclass(frozen=True)
class Validator:
    """Validates models of one run, always on the same samples.

    Attributes:
        run: The run.
        task: Its task.
        data: Its samples.
        between_batches: Called between batches; may raise to stop.
        report_unreadable: Called with the samples that could not be read.
        ranks: The processes that share the samples; None for one process.
    """

    run: Run
    task: Task
    data: TrainingData
    between_batches: Callable[[], None]
    report_unreadable: Callable[[tuple[Replaced, ...]], None]
    ranks: Ranks | None = None

    def compute_tables(self, models: Sequence[nn.Module]) -> tuple[tuple[Table, ...], tuple[Replaced, ...]]:
        """Compute the outputs of several models in one pass; also return the unreadable samples, which are reported."""
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
            ranks=self.ranks,
        )
        self.report_unreadable(replaced)
        return tables, replaced

    def validate(self, model: nn.Module) -> tuple[dict[str, float], Table]:
        """Compute the task's metrics of one model, and return its table with them.

        Raises:
            MetricError: For values that are not finite, and where the selection metric is undefined.
        """
        (table,), _ = self.compute_tables([model])
        return compute_metrics(self.task, table, self.run.config.training.selection_metric), table

    def validate_epoch(self, step: TrainStep) -> ValidationResult:
        """Validate the student and, if its weights are averaged, the average.

        The better one is selected; if both are equal, the student. Where a share of the start is to be kept, both are
        first averaged with it.
        """
        metric = self.run.config.training.selection_metric
        name, model = f"{PREFIX}{metric}", step.student if step.start is None else step.start.mix(step.student)
        own, table = self.validate(model)
        metrics: dict[str, Any] = dict(own)
        metrics |= {f"{STUDENT}{key}": value for key, value in self.task.inspect_student(step.student).items()}
        if step.average is not None:
            average = step.average.model if step.start is None else step.start.mix(step.average.model)
            averaged, averaged_table = self.validate(average)
            is_average = self.task.metrics[metric].is_better(averaged[name], own[name])
            metrics |= {f"{key}_ema": value for key, value in averaged.items()}
            metrics["selected"] = "ema" if is_average else "student"
            if is_average:
                own, table, model = averaged, averaged_table, average
        return ValidationResult(metrics, own[name], own, table, model)


def drop_undefined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the metrics that have no value: NaN, which JSON cannot hold."""
    return {name: value for name, value in metrics.items() if not (isinstance(value, float) and np.isnan(value))}


def compute_metrics(task: Task, table: Table, selection_metric: str) -> dict[str, float]:
    """Compute all metrics of a task.

    Args:
        task: The task, which names the metrics.
        table: The outputs of one model.
        selection_metric: The metric that must have a value, because checkpoints are chosen by it.

    Returns:
        The metrics by their names in logs, `val_NAME`.

    Raises:
        MetricError: For values that are not finite, and where the selection metric is undefined.
    """
    check_finite(table)
    metrics = {f"{PREFIX}{name}": metric.value(table) for name, metric in task.metrics.items()}
    if np.isnan(metrics[f"{PREFIX}{selection_metric}"]):
        why = explain_undefined(table, task.metrics[selection_metric].strata)
        known = [name for name in task.metrics if not np.isnan(metrics[f"{PREFIX}{name}"])]
        other = f"--set selection_metric={known[0]} (with a value here: {', '.join(known)})" if known else "other data"
        raise MetricError(
            f"{PREFIX}{selection_metric}, which selects the best epoch, has no value: {why}. Give validation data on "
            f"which it is defined, or {other}"
        )
    return metrics
