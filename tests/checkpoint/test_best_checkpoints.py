"""Which epochs are kept, and what best_model.pth is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.core.errors import UserError


def saver(epoch: int, value: float) -> Callable[[Path], None]:
    return lambda path: save_checkpoint(
        path, {"model": {"w": torch.full((4,), float(epoch))}}, about={"epoch": epoch, "val_auc": value}
    )


def consider_all(best: BestCheckpoints, values: list[float], first: int = 1) -> list[bool]:
    return [best.consider(epoch, value, saver(epoch, value)) for epoch, value in enumerate(values, start=first)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pth")


def epoch_of_best(folder: Path) -> int:
    return load_checkpoint(folder / "best_model.pth").about["epoch"]


def test_the_five_best_of_eight_stay_each_with_its_json(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    said = consider_all(best, [0.50, 0.70, 0.60, 0.90, 0.55, 0.80, 0.40, 0.65])
    assert said == [True, True, False, True, False, False, False, False]
    kept = ["2_0.7000_val.pth", "3_0.6000_val.pth", "4_0.9000_val.pth", "6_0.8000_val.pth", "8_0.6500_val.pth"]
    assert names(tmp_path) == [*kept, "best_model.pth"]
    assert len(list(tmp_path.iterdir())) == 13  # every .pth has its JSON; one .safetensors; nothing else is left
    assert (tmp_path / "best_model.pth").read_bytes() == (tmp_path / "4_0.9000_val.pth").read_bytes()
    assert best.best is not None
    assert (best.best.epoch, best.best.value) == (4, 0.9)


def test_best_model_equals_the_best_epochs_file_after_every_epoch(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, keep=2, metric="val_auc")
    values = [0.5, 0.4, 0.6, 0.6, 0.55, 0.7, 0.1]
    for epoch, value in enumerate(values, start=1):
        best.consider(epoch, value, saver(epoch, value))
        top = max(values[:epoch])
        winner = values.index(top) + 1
        file = tmp_path / f"{winner}_{top:.4f}_val.pth"
        assert best.best_path.read_bytes() == file.read_bytes()
        assert load_checkpoint(best.best_path).notes == ()


def test_of_equal_values_the_earlier_epoch_wins(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, keep=2, metric="val_auc")
    assert consider_all(best, [0.8, 0.8, 0.8]) == [True, False, False]
    assert epoch_of_best(tmp_path) == 1
    assert names(tmp_path) == ["1_0.8000_val.pth", "2_0.8000_val.pth", "best_model.pth"]


def test_values_that_look_equal_at_four_digits_are_still_ranked(tmp_path: Path) -> None:
    assert consider_all(BestCheckpoints(tmp_path, metric="val_auc"), [0.80001, 0.80002]) == [True, True]
    assert epoch_of_best(tmp_path) == 2


def test_an_epoch_that_does_not_rank_is_not_saved(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, keep=1, metric="val_auc")
    best.consider(1, 0.9, saver(1, 0.9))
    assert best.consider(2, 0.1, lambda path: pytest.fail(f"{path} was saved")) is False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_cannot_be_ranked_is_an_error(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="epoch 3: val_auc is"):
        BestCheckpoints(tmp_path, metric="val_auc").consider(3, value, saver(3, value))
    assert names(tmp_path) == []


def test_nothing_is_deleted_when_the_new_file_cannot_be_saved(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, keep=1, metric="val_auc")
    best.consider(1, 0.5, saver(1, 0.5))

    def fail(path: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        best.consider(2, 0.6, fail)
    assert names(tmp_path) == ["1_0.5000_val.pth", "best_model.pth"]
    assert best.consider(2, 0.6, saver(2, 0.6)) is True


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    values = [0.5, 0.7, 0.6, 0.65, 0.8, 0.55]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    consider_all(BestCheckpoints(whole, keep=3, metric="val_auc"), values)
    first = BestCheckpoints(halved, keep=3, metric="val_auc")
    consider_all(first, values[:3])
    second = BestCheckpoints(halved, keep=3, metric="val_auc")
    assert second.restore(first.state()) == []
    consider_all(second, values[3:], first=4)
    assert names(halved) == names(whole)
    assert (halved / "best_model.pth").read_bytes() == (whole / "best_model.pth").read_bytes()


def test_an_epoch_that_is_done_again_replaces_itself_even_if_it_was_the_best(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider_all(best, [0.6, 0.9])
    assert best.consider(2, 0.5, saver(2, 0.5)) is False
    assert names(tmp_path) == ["1_0.6000_val.pth", "2_0.5000_val.pth", "best_model.pth"]
    assert epoch_of_best(tmp_path) == 1


def test_a_file_of_an_epoch_after_the_saved_state_is_named_and_goes_when_the_epoch_is_done_again(
    tmp_path: Path,
) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    best.consider(1, 0.6, saver(1, 0.6))
    state = best.state()
    best.consider(2, 0.9, saver(2, 0.9))  # then killed before the state was saved
    again = BestCheckpoints(tmp_path, metric="val_auc")
    notes = again.restore(state)
    assert any("2_0.9000_val.pth is not in the run's table" in note for note in notes)
    assert any("made again from 1_0.6000_val.pth" in note for note in notes)
    assert epoch_of_best(tmp_path) == 1
    again.consider(2, 0.7, saver(2, 0.7))
    assert names(tmp_path) == ["1_0.6000_val.pth", "2_0.7000_val.pth", "best_model.pth"]


def test_a_deleted_epoch_leaves_the_table_and_is_named(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider_all(best, [0.6, 0.9, 0.7])
    (tmp_path / "1_0.6000_val.pth").unlink()
    again = BestCheckpoints(tmp_path, metric="val_auc")
    assert again.restore(best.state()) == ["1_0.6000_val.pth is missing: epoch 1 (val_auc 0.6000) is no longer ranked"]
    assert [kept["epoch"] for kept in again.state()["kept"]] == [2, 3]


def test_the_best_epoch_is_remembered_while_best_model_still_holds_it(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider_all(best, [0.9, 0.7])
    (tmp_path / "1_0.9000_val.pth").unlink()
    again = BestCheckpoints(tmp_path, metric="val_auc")
    assert again.restore(best.state()) == ["1_0.9000_val.pth was missing and was made again from best_model.pth"]
    assert again.consider(3, 0.8, saver(3, 0.8)) is False
    assert epoch_of_best(tmp_path) == 1


def test_a_missing_best_model_is_made_again(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider_all(best, [0.9, 0.7])
    (tmp_path / "best_model.pth").unlink()
    assert BestCheckpoints(tmp_path, metric="val_auc").restore(best.state()) == [
        "best_model.pth was missing and was made again from 1_0.9000_val.pth"
    ]
    assert epoch_of_best(tmp_path) == 1


def test_an_emptied_folder_is_named_and_the_run_can_go_on(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path / "old", metric="val_auc")
    consider_all(best, [0.9, 0.7])
    again = BestCheckpoints(tmp_path / "new", metric="val_auc")
    assert len(again.restore(best.state())) == 2
    assert again.best is None
    assert again.consider(3, 0.5, saver(3, 0.5)) is True


def test_the_table_of_another_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another metric"):
        BestCheckpoints(tmp_path, metric="val_auc").restore(BestCheckpoints(tmp_path, metric="val_eer").state())


def test_what_killed_writers_left_is_cleared_on_a_resume(tmp_path: Path) -> None:
    (tmp_path / ".5_0.9000_val.pth.123.partial").write_bytes(b"half")
    (tmp_path / "5_0.9000_val.pth.json").write_text("{}")
    best = BestCheckpoints(tmp_path, metric="val_auc")
    assert best.restore(best.state()) == []
    assert list(tmp_path.iterdir()) == []


def test_at_least_one_checkpoint_must_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        BestCheckpoints(tmp_path, keep=0, metric="val_auc")
