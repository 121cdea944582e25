"""The state to go on from: `last.pth`, and `last_previous.pth`, the one before it, should the last be damaged.

Order of a save: `last_previous.pth` becomes what `last.pth` is (a hard link), then `last.pth` is replaced. Both steps
are atomic, so that from the first save on there is always a whole `last.pth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.store import copy_checkpoint, load_checkpoint, save_checkpoint
from sharpstudent.core.errors import Problem, UserError

LAST_NAME = "last.pth"
PREVIOUS_NAME = "last_previous.pth"


@dataclass(frozen=True)
class RunState:
    """tensors: by part (model, optimizer, criterion, rng); progress: JSON values; notes: what to tell the user."""

    tensors: dict[str, Any]
    progress: dict[str, Any]
    notes: tuple[str, ...] = ()


def save_run_state(folder: Path, *, tensors: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Write `last.pth` in `folder` and keep the one before it. Raises UserError; what was there is then intact."""
    last = folder / LAST_NAME
    if last.is_file():
        copy_checkpoint(last, folder / PREVIOUS_NAME)
    save_checkpoint(last, tensors, about=progress)


def load_run_state(folder: Path) -> RunState:
    """Read `last.pth`, or `last_previous.pth` with a note when the last is missing or unreadable."""
    last, previous = folder / LAST_NAME, folder / PREVIOUS_NAME
    if not last.is_file() and not previous.is_file():
        raise UserError(
            Problem(
                where=str(folder),
                what=f"has no {LAST_NAME}: there is nothing to resume from",
                remedy="name the folder of a run that finished at least one save, output/RUN",
            )
        )
    if not last.is_file():
        return _add_note(
            _to_state(previous), f"{LAST_NAME} is missing; going on from {PREVIOUS_NAME}, the save before it"
        )
    try:
        return _to_state(last)
    except UserError as trouble:
        if not previous.is_file():
            raise
        try:
            state = _to_state(previous)
        except UserError as error:
            raise UserError(*trouble.problems, *error.problems) from error
        reason = trouble.problems[0].what
        return _add_note(state, f"{LAST_NAME} {reason}; going on from {PREVIOUS_NAME}, the save before it")


def _add_note(state: RunState, note: str) -> RunState:
    return replace(state, notes=(note, *state.notes))


def _to_state(path: Path) -> RunState:
    loaded = load_checkpoint(path)
    return RunState(loaded.tensors, loaded.about, () if loaded.note is None else (loaded.note,))
