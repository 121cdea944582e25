"""Selection by a metric of which lower values are better: ranks, ties, files, resume."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Direction


def saver(epoch: int) -> Callable[[Path], None]:
    return lambda path: save_checkpoint(path, {"model": {"w": torch.full((4,), float(epoch))}}, about={"epoch": epoch})


def open_table(folder: Path, *, keep: int = 5, direction: Direction = "lower") -> BestCheckpoints:
    return BestCheckpoints(folder, keep=keep, metric="val_eer", direction=direction)


def consider_all(best: BestCheckpoints, values: list[float], first: int = 1) -> list[bool]:
    return [best.consider(epoch, value, saver(epoch)) for epoch, value in enumerate(values, first)]


def epoch_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*_val.pth"))


def read_metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


def test_the_lowest_is_the_best_and_an_equal_later_one_is_not(tmp_path: Path) -> None:
    best = open_table(tmp_path)
    assert consider_all(best, [0.3, 0.31, 0.2, 0.2, 0.25, 0.0, 0.0]) == [True, False, True, False, False, True, False]
    assert best.best is not None
    assert (best.best.epoch, best.best.value) == (6, 0.0)
    assert load_checkpoint(best.best_path).about == {"epoch": 6}


def test_the_few_lowest_are_kept_under_their_values(tmp_path: Path) -> None:
    consider_all(open_table(tmp_path, keep=2), [0.3, 0.1, 0.2, 0.4, 0.05])
    assert epoch_files(tmp_path) == ["2_0.1000_val.pth", "5_0.0500_val.pth"]


def test_a_falling_metric_ranks_as_its_negative_rises(tmp_path: Path) -> None:
    """Whatever the order and the ties: the mirror image of the ranking that there was before."""
    for number, values in enumerate(itertools.permutations([0.1, 0.1, 0.2, 0.3])):
        falling = open_table(tmp_path / f"{number}_lower", keep=2)
        rising = open_table(tmp_path / f"{number}_higher", keep=2, direction="higher")
        for folder in (falling.folder, rising.folder):
            folder.mkdir()
        assert consider_all(falling, list(values)) == consider_all(rising, [1 - value for value in values])
        tables = [[kept["epoch"] for kept in table.state()["kept"]] for table in (falling, rising)]
        assert tables[0] == tables[1]


def test_the_safetensors_names_metric_and_value(tmp_path: Path) -> None:
    consider_all(open_table(tmp_path), [0.3, 0.1])
    metadata = read_metadata(tmp_path / "best_model.safetensors")
    assert (metadata["metric"], metadata["value"], metadata["epoch"]) == ("val_eer", "0.1", "2")


@pytest.mark.parametrize("stop", range(6))
def test_a_resumed_table_goes_on_as_if_uninterrupted(tmp_path: Path, stop: int) -> None:
    values = [0.3, 0.1, 0.2, 0.1, 0.05]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    consider_all(open_table(whole, keep=2), values)
    first = open_table(halved, keep=2)
    consider_all(first, values[:stop])
    second = open_table(halved, keep=2)
    assert second.restore(json.loads(json.dumps(first.state()))) == []
    consider_all(second, values[stop:], first=stop + 1)
    assert {path.name: path.read_bytes() for path in halved.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_a_lost_file_of_the_best_epoch_is_made_again(tmp_path: Path) -> None:
    best = open_table(tmp_path)
    consider_all(best, [0.3, 0.1, 0.2])
    (tmp_path / "2_0.1000_val.pth").unlink()
    again = open_table(tmp_path)
    assert again.restore(best.state()) == ["2_0.1000_val.pth was missing and was made again from best_model.pth"]
    assert again.consider(4, 0.15, saver(4)) is False


def test_the_same_metric_in_the_other_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another metric") as caught:
        open_table(tmp_path).restore(open_table(tmp_path, direction="higher").state())
    assert "val_eer, lower is better" in caught.value.as_text()


def test_a_state_from_before_there_was_a_direction_is_of_a_rising_metric(tmp_path: Path) -> None:
    before = BestCheckpoints(tmp_path, metric="val_auc")
    consider_all(before, [0.6, 0.8, 0.7])
    state = before.state()
    del state["direction"]
    again = BestCheckpoints(tmp_path, metric="val_auc")
    assert again.restore(state) == []
    assert again.best is not None
    assert again.best.epoch == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_never_ranked(tmp_path: Path, value: float) -> None:
    best = open_table(tmp_path)
    consider_all(best, [0.3])
    with pytest.raises(ValueError, match="epoch 2: val_eer is"):
        best.consider(2, value, saver(2))
    assert epoch_files(tmp_path) == ["1_0.3000_val.pth"]
