"""`make results`: every run that it plans is a command line that the project accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.run_config import RunConfig
from sharpstudent.registry import find_task

from demo import results


@pytest.fixture
def config_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "OUTPUT", tmp_path)
    for variant in results.VARIANTS:
        results._write_config(variant)

    def parse(what: str, seed: int = 3) -> RunConfig:
        script, arguments = results._plan(seed, what)
        stage = 1 if script == "train_student_only.py" else 2
        return parse_command_line(arguments, stage=stage, find_task=find_task).config

    return parse


@pytest.mark.parametrize("what", results.MODELS)
def test_every_planned_run_has_its_own_seed_and_is_accepted(config_of, what: str) -> None:
    assert config_of(what).seed == 3


@pytest.mark.parametrize("what", ["features", "ema", "two"])
def test_a_variant_keeps_the_loss_of_the_demo_and_differs_in_one_thing(config_of, what: str) -> None:
    demo, variant = config_of("distill"), config_of(what)
    assert variant.criterion[:2] == demo.criterion
    assert variant.optimizer == demo.optimizer
    assert variant.training.epochs == demo.training.epochs
    changed = {
        "features": any(term.term == "features" for term in variant.criterion),
        "ema": variant.training.ema_decay is not None,
        "two": len(variant.teachers) == 2,
    }
    assert [name for name, is_changed in changed.items() if is_changed] == [what]


def test_the_second_teacher_is_that_of_the_next_seed_cyclically(config_of) -> None:
    first, second = config_of("two", seed=3).teachers
    assert "s3_teacher" in str(first.weights)
    assert "s1_teacher" in str(second.weights)


def test_the_control_takes_hard_labels_only(config_of) -> None:
    hard, kd = config_of("hard").criterion
    assert hard.weight.value == 1.0
    assert kd.weight.complement
