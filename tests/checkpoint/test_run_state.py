"""The state a run goes on from, and the one before it."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from damage import SPECIAL, no_hang, without_permission
from sharpstudent.checkpoint.store import (
    Checkpoint,
    UnusableStateError,
    load_checkpoint,
    load_run_state,
    save_run_state,
)
from sharpstudent.core.errors import Problem, UserError


def save(folder: Path, step: int) -> None:
    save_run_state(folder, tensors={"model": {"w": torch.full((100,), float(step))}}, progress={"step": step})


def load_state(folder: Path) -> tuple[Checkpoint, tuple[str, ...]]:
    return load_run_state(folder, lambda state: state)


def test_the_last_state_comes_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    state, notes = load_state(tmp_path)
    assert state.about == {"step": 3}
    assert notes == ()
    assert state.tensors["model"]["w"].unique().tolist() == [3]
    assert load_checkpoint(tmp_path / "last_previous.pth").about == {"step": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last.pth", "last.pth.json", "last_previous.pth", "last_previous.pth.json",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_last_state_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "last.pth"
    whole = last.read_bytes()
    middle = len(whole) // 2
    damaged = {"flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "cut": whole[:middle]}
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes(damaged.get(damage, b""))
    state, notes = load_state(tmp_path)
    assert state.about == {"step": 1}
    assert len(notes) == 1
    assert notes[0].startswith("last.pth ")
    assert "going on from last_previous.pth" in notes[0]
    assert not last.exists()
    assert (tmp_path / "last.pth.damaged").exists() == (damage != "gone")
    save(tmp_path, 3)  # the damaged one does not become the save before
    assert load_checkpoint(tmp_path / "last_previous.pth").about == {"step": 1}


def test_two_damaged_states_are_reported_together(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    for name in ("last.pth", "last_previous.pth"):
        (tmp_path / name).write_bytes(b"x" * 50)
    with pytest.raises(UserError, match="2 problems"):
        load_state(tmp_path)


def test_a_damaged_only_state_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "last.pth").write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        load_state(tmp_path)


def test_a_state_that_holds_code_is_passed_over_without_running_it(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch '{tmp_path / 'it_ran'}'",)

    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "last.pth.json").unlink()
    (tmp_path / "last.pth").write_bytes(pickle.dumps(Payload()))
    state, notes = load_state(tmp_path)
    assert state.about == {"step": 1}
    assert "refused" in notes[0]
    assert not (tmp_path / "it_ran").exists()


def test_a_folder_without_a_state_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume from"):
        load_state(tmp_path)


@pytest.mark.parametrize("kind", [*SPECIAL, "no permission"])
def test_a_last_state_that_cannot_be_opened_falls_back_and_says_so(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "last.pth"
    if kind in SPECIAL:
        last.unlink()
        SPECIAL[kind](last)
        with no_hang():
            state, notes = load_state(tmp_path)
    else:
        tmp_path.chmod(0o777)
        with without_permission(last):
            state, notes = load_state(tmp_path)
            last = last.with_name("last.pth.damaged")
            last.rename(tmp_path / "last.pth")
    assert state.about == {"step": 1}
    assert "going on from last_previous.pth" in notes[0]
    assert "last.pth.damaged" in notes[0]


def test_a_state_that_cannot_be_restored_falls_back_to_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)

    def restore(state: Checkpoint) -> int:
        if state.about["step"] == 2:
            raise UnusableStateError(Problem("state", "is malformed"))
        return state.about["step"]

    step, notes = load_run_state(tmp_path, restore)
    assert step == 1
    assert notes[0].startswith("last.pth is malformed; going on from last_previous.pth")


def test_another_error_of_the_restoring_is_raised_and_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = sorted(tmp_path.iterdir())

    def restore(state: Checkpoint) -> int:
        raise UserError.about("state", "is of another model")

    with pytest.raises(UserError, match="another model"):
        load_run_state(tmp_path, restore)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["of the save before", "missing"])
def test_a_json_that_a_kill_kept_from_being_written_is_written_on_the_resume(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1)
    record = tmp_path / "last.pth.json"
    before = record.read_bytes()
    save(tmp_path, 2)
    right = record.read_bytes()
    record.unlink() if kind == "missing" else record.write_bytes(before)
    assert load_state(tmp_path)[0].about == {"step": 2}
    assert record.read_bytes() == right
    assert load_checkpoint(tmp_path / "last.pth").notes == ()
