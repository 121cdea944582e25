"""The reading rules of the guide: they fire on curves that were made so, and are silent on healthy ones."""

from __future__ import annotations

import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.evaluation.arms import read_plan
from sharpstudent.registry import find_task
from sharpstudent.tasks.gaze.task import GazeTask
from workplace import ROOT

HEALTHY = ([0.060, 0.051, 0.047, 0.045], [0.80, 0.62, 0.55, 0.50])


def advise(supervised: list[float], taught: list[float]) -> list[str]:
    rows = [
        {"epoch": epoch, "train_heatmap": one, "train_kd": other, "kd/weight": 0.3}
        for epoch, (one, other) in enumerate(zip(supervised, taught, strict=True), 1)
    ]
    return [one.what for one in GazeTask.advise(rows)]


def test_a_healthy_run_gets_no_advice() -> None:
    assert advise(*HEALTHY) == []


@pytest.mark.parametrize("curve", [[0.060, 0.0601, 0.0599, 0.0600], [0.060, 0.045, 0.050, 0.080]])
def test_a_supervised_loss_that_stagnates_or_spikes_means_too_much_weight(curve: list[float]) -> None:
    (found,) = advise(curve, HEALTHY[1])
    assert found.startswith("the weight of the teacher is too high")


def test_a_divergence_that_does_not_fall_means_too_little_weight() -> None:
    (found,) = advise(HEALTHY[0], [0.80, 0.81, 0.80, 0.82])
    assert found.startswith("the weight of the teacher is too low")


def test_nothing_is_read_from_few_epochs_or_without_a_teacher() -> None:
    assert advise([0.06, 0.06], [0.8, 0.8]) == []
    assert GazeTask.advise([{"epoch": n, "train_heatmap": 0.06} for n in range(9)]) == []


@pytest.mark.parametrize(
    ("config", "arms"),
    [("gaze_gazefollow", "gaze_weights"), ("demo_gaze", "demo_gaze_arms")],
)
def test_the_arms_of_an_advised_sweep_can_be_read(config: str, arms: str) -> None:
    """`ablate CONFIG --arms FILE`, up to the trained models that it begins with."""
    command = parse_command_line([str(ROOT / f"configs/{config}.json"), "-n", "x"], stage=2, find_task=find_task)
    plan = read_plan(ROOT / f"configs/{arms}.json", command.config, command.task)
    assert plan.arms[0].name == "alone"
    assert plan.arms[0].keys["terms"] == [{"term": "heatmap", "weight": 1.0}]
    weights = [arm.keys["terms"][1]["weight"] for arm in plan.arms if arm.name.startswith("weight_")]
    assert weights == ([0.1, 0.3, 0.5, 1.0] if arms == "gaze_weights" else [])
