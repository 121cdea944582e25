"""Validation: the metrics of the student and of its averaged weights, and which of the two an epoch is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lib.config.sections import Direction
from lib.data.loader import Replaced
from lib.engine.evaluate import compute_scores, compute_scores_of_several
from lib.engine.run import Run
from lib.engine.step import TrainStep
from lib.engine.task import Scores, Task, TaskData

EVALUATION_ITEMS = 16  # items a batch when nothing is learnt


@dataclass(frozen=True)
class Verdict:
    """metrics: all of them, those of the averaged weights with `_ema`, and which of the two was `selected`. Of the
    selected one: value: its selection metric; own: its metrics; scores: what they were made of; model: it.
    """

    metrics: dict[str, Any]
    value: float
    own: Mapping[str, float]
    scores: Scores
    model: nn.Module


@dataclass(frozen=True)
class Judge:
    """Validates models of one run, always on the same items.

    between_batches: may raise to stop; report_unreadable: gets the items that could not be read.
    """

    run: Run
    task: Task
    data: TaskData
    between_batches: Callable[[], None]
    report_unreadable: Callable[[tuple[Replaced, ...]], None]

    def validate(self, model: nn.Module) -> tuple[dict[str, float], Scores]:
        """The task's metrics of one model, and its scores. Raises MetricError for scores that are not finite."""
        scores, replaced = compute_scores(model, self.data.validation, **self._settings())
        self.report_unreadable(replaced)
        return self.task.compute_metrics(scores), scores

    def score(self, models: Sequence[nn.Module]) -> tuple[tuple[Scores, ...], tuple[Replaced, ...]]:
        """The scores of several models in one pass, and the items that could not be read (reported already)."""
        scores, replaced = compute_scores_of_several(models, self.data.validation, **self._settings())
        self.report_unreadable(replaced)
        return scores, replaced

    def _settings(self) -> dict[str, Any]:
        config = self.run.config
        return {
            "seed": self.data.evaluation_seed,
            "batch_size": EVALUATION_ITEMS,
            "num_workers": config.num_workers,
            "timeout_s": config.loader_timeout,
            "device": self.run.device,
            "between_batches": self.between_batches,
        }

    def judge(self, step: TrainStep) -> Verdict:
        """The student, and where its weights are averaged, the average too: the better one counts, of equal ones the
        student.
        """
        metric = self.task.selection_metric
        student, scores = self.validate(step.student)
        if step.average is None:
            return Verdict(dict(student), student[metric], student, scores, step.student)
        averaged, averaged_scores = self.validate(step.average.model)
        is_average = is_better(averaged[metric], student[metric], self.task.selection_metrics[metric])
        metrics = {
            **student,
            **{f"{name}_ema": value for name, value in averaged.items()},
            "selected": "ema" if is_average else "student",
        }
        if is_average:
            return Verdict(metrics, averaged[metric], averaged, averaged_scores, step.average.model)
        return Verdict(metrics, student[metric], student, scores, step.student)


def is_better(value: float, other: float, direction: Direction) -> bool:
    """Whether a value of a metric beats another: of equal ones, neither does."""
    return value > other if direction == "higher" else value < other
