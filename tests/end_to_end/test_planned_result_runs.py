"""`make results`: every run that it plans is a command line that the project accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import read_config_file
from sharpstudent.config.run_config import RunConfig
from sharpstudent.evaluation.arms import ALONE, build_keys, read_plan
from sharpstudent.registry import find_task
from workplace import ROOT

from demo import results
from demo.write_blends import TABLE


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, RunConfig]:
    """The config of each arm at the third of three seeds."""
    monkeypatch.chdir(ROOT)
    words = list(results.plan_ablation(2))
    keys = read_config_file(Path(words[2]))
    command = parse_command_line([words[2], "-n", "x"], stage=2, find_task=find_task)
    plan = read_plan(Path(words[4]), command.config, command.task)
    assert plan.references == (ALONE, "distill")
    assert {name: path for name, (_, path) in plan.models.items()} == {
        name: f"{results.OUTPUT}/s{{seed}}_{name}_*/" for name in results.FIRST
    }
    found: dict[str, RunConfig] = {}
    for arm in plan.arms:
        path = tmp_path / f"{arm.name}.json"
        path.write_text(json.dumps(build_keys(keys, arm, 3, 1)))
        found[arm.name] = parse_command_line([str(path), "-n", "x"], stage=2, find_task=find_task).config
    return found


def test_teachers_and_students_have_their_own_seeds_and_the_names_that_the_arms_look_for() -> None:
    seen = []
    for script, *words in results.plan_first():
        assert script == "train_student_only.py"
        config = parse_command_line(
            [word for word in words if word not in ("--resume", "auto")], stage=1, find_task=find_task
        ).config
        seen.append((config.name, config.seed, config.output_root))
    assert seen == [(f"s{seed}_{what}", seed, results.OUTPUT) for seed in results.SEEDS for what in results.FIRST]


def test_the_ablation_reads_the_demo_s_own_blends() -> None:
    words = results.plan_ablation(1)
    assert words[words.index("--data") + 1] == f"self-blends={TABLE}"
    assert words[words.index("--seeds") + 1] == str(len(results.SEEDS))


def test_an_arm_keeps_the_loss_of_the_demo_and_differs_in_one_thing(arms: dict[str, RunConfig]) -> None:
    demo = arms["distill"]
    assert list(arms) == [ALONE, "distill", "features", "ema", "two"]
    for name in ("features", "ema", "two"):
        arm = arms[name]
        assert arm.criterion[:2] == demo.criterion
        assert (arm.optimizer, arm.training.epochs) == (demo.optimizer, demo.training.epochs)
        changed = {
            "features": any(term.term == "features" for term in arm.criterion),
            "ema": arm.training.ema_decay is not None,
            "two": len(arm.teachers) == 2,
        }
        assert [what for what, is_changed in changed.items() if is_changed] == [name]


def test_the_second_teacher_is_that_of_the_next_seed_cyclically(arms: dict[str, RunConfig]) -> None:
    assert [str(one.weights)[len(results.OUTPUT) + 1 :][:10] for one in arms["two"].teachers] == [
        "s3_teacher",
        "s1_teacher",
    ]


def test_the_control_takes_hard_labels_only(arms: dict[str, RunConfig]) -> None:
    (hard,) = arms[ALONE].criterion
    weight: Any = hard.weight
    assert (hard.term, weight.constant) == ("hard", 1.0)
