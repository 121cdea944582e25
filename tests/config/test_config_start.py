"""The keys of a start: which stage they are of, and what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_samples import resolve_keys
from sharpstudent.config.cli import parse_command_line
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task


def test_stage_1_starts_from_start_and_stage_2_from_its_own_key() -> None:
    keys = {"start": "output/old", "pretrained_student_weights": "output/new"}
    assert [resolve_keys(stage, **keys).student.weights for stage in (1, 2)] == ["output/old", "output/new"]


def test_what_holds_a_model_near_its_start_is_set_for_both_stages_or_for_one() -> None:
    keys: dict[str, Any] = {"start": "a", "l2_start": 0.1, "start_share": 0.4, "stage2": {"l2_start": 0.0}}
    one, two = (resolve_keys(stage, **keys) for stage in (1, 2))
    assert (one.optimizer.l2_start, two.optimizer.l2_start) == (0.1, 0.0)
    assert (one.training.start_share, two.training.start_share) == (0.4, 0.4)


def test_a_config_without_them_is_kept_as_it_was_before_they_existed() -> None:
    stored = resolve_keys(1).model_dump(mode="json")
    assert "l2_start" not in stored["optimizer"]
    assert "start_share" not in stored["training"]


@pytest.mark.parametrize(
    ("stage", "keys", "words"),
    [
        (1, {"l2_start": 0.1}, ("l2_start: needs", "there is none", "--set start=RUN", "group stage2")),
        (1, {"start_share": 0.5}, ("start_share: needs", "start null")),
        (1, {"start": "a", "l2_start": 1000.0, "stage1": {"lr": 0.01}}, ("beyond its value at the", "1 / lr, 100")),
        (1, {"start": "a", "start_share": 0.5, "tune": "lora"}, ("factors of low-rank adapters", "take l2_start")),
        (1, {"start": "a", "start_share": 1.0}, ("start_share",)),
        (1, {"start": "a", "l2_start": -1.0}, ("l2_start",)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_remedy(stage: int, keys: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_keys(stage, **keys)
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", ["output/run_a", "deepfake-small", "12", "a b/c.pth"])
def test_the_option_is_short_for_the_key_whatever_the_name_looks_like(name: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    words = [str(tmp_path / "c.json"), "-n", "x", "--start", name]
    command = parse_command_line(words, stage=1, find_task=find_task)
    assert command.config.student.weights == name
    assert len(command.overrides) == 1
