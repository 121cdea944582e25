"""Which of two models is selected after an epoch: the student or its averaged weights, by any metric and direction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from preflight_setup import SIDE, PreflightSetup, Reader
from sharpstudent.core.types import Direction
from sharpstudent.metrics.metric import Metric
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.preflight.model_checks import CheckedModel
from sharpstudent.train.validate import ValidationResult, drop_undefined


def return_in_turn(values: list[float], direction: Direction) -> Metric:
    """Returns these values one after another, that of the student first."""
    left = list(values)
    return Metric(lambda table, counts: left.pop(0), direction)


class Metrics(DeepfakeTask):
    """One metric of each direction, both of the same values."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(facts={"image_size": SIDE})
        self.metrics = {  # type: ignore[misc]
            "auc": Metric(lambda table, counts: 0.9),
            "up": return_in_turn(values, "higher"),
            "down": return_in_turn(values, "lower"),
        }


def validate(tmp_path: Path, metric: str, student: float, average: float) -> tuple[ValidationResult, Any]:
    validator = PreflightSetup(tmp_path, task=Metrics([student, average])).make_validator()
    config = validator.run.config
    training = config.training.model_copy(update={"selection_metric": metric})
    run = replace(validator.run, config=config.model_copy(update={"training": training}))
    step: Any = SimpleNamespace(student=Reader(1.0), average=SimpleNamespace(model=Reader(2.0)), start=None)
    return replace(validator, run=run).validate_epoch(step), step


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
def test_the_better_of_the_two_is_selected_and_of_equal_ones_the_student(
    tmp_path: Path, metric: str, student: float, average: float, selected: str
) -> None:
    result, step = validate(tmp_path, metric, student, average)
    name = f"val_{metric}"
    chosen = step.student if selected == "student" else step.average.model
    assert result.metrics["selected"] == selected
    assert result.model is chosen
    assert result.value == (student if selected == "student" else average)
    assert result.own[name] == result.value
    assert (result.metrics[name], result.metrics[f"{name}_ema"]) == (student, average)
    gain = chosen.weights[0].item()
    assert compute_margins(result.table).max() == pytest.approx(gain)  # the table is that of the model that counts


def test_what_the_task_measures_on_the_student_itself_stands_among_the_numbers_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inspect(self: Metrics, model: Reader) -> dict[str, float]:
        return {"gain": model.weights[0].item()}

    monkeypatch.setattr(Metrics, "inspect_student", inspect, raising=False)
    result, _ = validate(tmp_path, "up", 0.7, 0.8)
    assert result.metrics["student_gain"] == 1.0  # of the student, also where its average is selected


@pytest.mark.parametrize("direction", ["higher", "lower"])
@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_what_is_no_number_and_what_is_equal_beats_nothing(direction: Direction, value: float) -> None:
    metric = Metric(lambda table, counts: float("nan"), direction)
    assert not metric.is_better(value, 0.5)
    assert metric.is_better(0.6, 0.5) is (direction == "higher")


def test_a_metric_without_a_value_is_left_out_of_what_json_keeps() -> None:
    metrics = {"val_auc": 0.5, "val_video_auc": float("nan"), "selected": "ema"}
    assert drop_undefined(metrics) == {"val_auc": 0.5, "selected": "ema"}
    row = CheckedModel("teacher", {"auc": float("nan"), "accuracy": 0.5}, None, {}, Metrics([]))
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["val_auc"] is None
