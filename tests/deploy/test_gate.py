"""The gate: what it lets pass follows from the metric, its interval and the task's tolerance, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.deploy.gate import Gate, find_tolerance
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.metric import Metric, make_mean_metric
from sharpstudent.task import Batch, ClassificationTask, ModelSpec, Sample, Samples, TaskSection
from torch import Tensor, nn

ROWS = 400


class Points(Samples):
    """Numbers from -1 to 1, each a group of its own; the label is whether one is above 0."""

    def __len__(self) -> int:
        return ROWS

    def name(self, index: int) -> str:
        return f"point {index}"

    def group(self, index: int) -> str:
        return f"group {index}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        value = np.array([[2.0 * index / (ROWS - 1) - 1.0]], np.float32)
        return Sample({"x": value}, {"label": (value[0] > 0).astype(np.int64)}, rows={"id": (self.name(index),)})


class PointsTask(ClassificationTask):
    Section = TaskSection
    classes = ("below", "above")

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        return tuple(Points() for _ in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        raise NotImplementedError

    def example_batch(self, count: int) -> Batch:
        raise NotImplementedError


class Says(nn.Module):
    """A model of one function: `x` (R, 1) -> the second logit (R, 1)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.cat([torch.zeros_like(x), self.function(x)], 1)}


def build_gate(
    model: nn.Module, *, metric: str = "accuracy", tolerance: float | None = None, fall: float | None = None
) -> Gate:
    settings: dict[str, Any] = {"outputs": ("logits",), "rounds": 200, "batch_size": 64, "workers": 0}
    return Gate(PointsTask(), Points(), model, metric, tolerance=tolerance, fall=fall, **settings)


def test_a_file_that_agrees_passes_whatever_the_number_of_groups() -> None:
    result = build_gate(Says(lambda x: 3 * x)).check(Says(lambda x: 3 * x + 1e-5))
    assert result.passed
    assert result.agrees
    assert result.largest["logits"] == pytest.approx(1e-5, rel=0.1)
    assert result.loss == 0.0


def test_a_file_that_is_worse_than_tolerated_is_refused_with_both_figures() -> None:
    gate = build_gate(Says(lambda x: x), tolerance=0.02)
    result = gate.check(Says(lambda x: x - 0.2))  # wrong from 0 to 0.2: a tenth of all points
    assert (result.before, result.after) == (1.0, pytest.approx(0.9))
    assert result.loss > 0.1  # the unfavourable end, not the difference itself
    assert result.reason is not None
    assert "0.02" in result.reason


def test_the_unfavourable_end_decides_and_not_the_difference() -> None:
    gate = build_gate(Says(lambda x: x), tolerance=0.02)
    result = gate.check(Says(lambda x: x - 0.03))  # 1.5 % of the points: within the tolerance, its interval is not
    assert -result.difference.value < 0.02 < result.loss
    assert not result.passed


def test_a_value_may_fall_less_than_the_end_of_its_interval_may() -> None:
    model, file = Says(lambda x: 3 * x), Says(lambda x: 3 * x - 0.1)  # wrong in some 7 of 400 rows
    assert build_gate(model, tolerance=0.1).check(file).passed
    assert build_gate(model, tolerance=0.1, fall=0.03).check(file).passed
    refused = build_gate(model, tolerance=0.1, fall=0.005).check(file)
    assert "a loss of 0.005 is tolerated" in (refused.reason or "")


def test_a_metric_of_which_less_is_better_is_compared_the_other_way_round() -> None:
    gate = build_gate(Says(lambda x: 8 * x), metric="log_loss", tolerance=0.05)
    assert gate.check(Says(lambda x: 9 * x)).passed  # surer, and always right
    assert not gate.check(Says(lambda x: x)).passed


def test_a_file_of_which_values_are_not_finite_is_refused() -> None:
    result = build_gate(Says(lambda x: x)).check(Says(lambda x: torch.where(x > 0.5, torch.nan, x)))
    assert result.reason is not None
    assert "not finite" in result.reason
    assert result.as_json()["after"] is None
    with pytest.raises(MetricError):
        build_gate(Says(lambda x: x / 0.0))


def test_a_tolerance_that_the_task_does_not_state_is_one_percent_of_what_can_be_lost() -> None:
    assert find_tolerance(make_mean_metric(lambda t: t["x"], chance=0.1, perfect=1.0), 0.5) == pytest.approx(0.009)
    assert find_tolerance(Metric(lambda t, c: 0.0, bounds=(0.0, 2.0)), 0.5) == pytest.approx(0.02)
    assert find_tolerance(Metric(lambda t, c: 0.0, "lower", perfect=0.0), 7.0) == pytest.approx(0.07)
