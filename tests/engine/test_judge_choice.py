"""Which of two models an epoch is judged by: the student or its averaged weights, by any metric and direction."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from preflight_place import Place, Reader, Task
from sharpstudent.config.run_config import Direction
from sharpstudent.evaluation.task import Scores
from sharpstudent.train.validate import is_better


class Metrics(Task):
    """Says what it is told of the models in turn, student first."""

    selection_metrics: ClassVar[Mapping[str, Direction]] = {"up": "higher", "down": "lower"}

    def __init__(self, metric: str, values: list[float]) -> None:
        self.selection_metric, self.values = metric, list(values)

    def compute_metrics(self, scores: Scores) -> dict[str, float]:
        value = self.values.pop(0)
        return {"up": value, "down": value, "val_auc": 0.9}


def judge(tmp_path: Any, metric: str, student: float, average: float) -> Any:
    place = Place(tmp_path, task=Metrics(metric, [student, average]))  # type: ignore[arg-type]
    step = SimpleNamespace(student=Reader(1.0), average=SimpleNamespace(model=Reader(2.0)))
    return place.make_judge().judge(step), step  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "student", "average", "selected"),
    [
        ("up", 0.7, 0.8, "ema"),
        ("up", 0.8, 0.7, "student"),
        ("up", 0.8, 0.8, "student"),
        ("down", 0.2, 0.1, "ema"),
        ("down", 0.1, 0.2, "student"),
        ("down", 0.1, 0.1, "student"),
    ],
)
def test_the_better_of_the_two_counts_and_of_equal_ones_the_student(
    tmp_path: Any, metric: str, student: float, average: float, selected: str
) -> None:
    verdict, step = judge(tmp_path, metric, student, average)
    chosen = step.student if selected == "student" else step.average.model
    assert verdict.metrics["selected"] == selected
    assert verdict.model is chosen
    assert verdict.value == (student if selected == "student" else average)
    assert verdict.own[metric] == verdict.value
    assert (verdict.metrics[metric], verdict.metrics[f"{metric}_ema"]) == (student, average)
    gain = chosen.weights[0].item()
    assert verdict.scores.margin.max() == pytest.approx(gain)  # the scores are those of the model that counts


@pytest.mark.parametrize("direction", ["higher", "lower"])
@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_what_is_no_number_and_what_is_equal_beats_nothing(direction: Any, value: float) -> None:
    assert not is_better(value, 0.5, direction)
    assert is_better(0.6, 0.5, direction) is (direction == "higher")
