"""Checkpoints on disk: a file of tensors with its description, and the best model as .safetensors.

A checkpoint is `NAME.pth` (tensors and plain containers, read under `weights_only`) and `NAME.pth.json` beside it.

A save has two steps, so that a kill at any instant is harmless:

1. `NAME.pth` is written to a temporary name, fsynced and renamed. It contains the description `about`, so it can be
   used without its JSON.
2. `NAME.pth.json` is written in the same way: sha256 and size of the .pth, `contents`, the format, and `about`.

A kill between the two leaves a new .pth beside the JSON of the save before. `contents` tells this from damage;
`core/archive.py` has the rule by which every reader checks a file.

The best model is also written as `best_model.safetensors`: tensors without a pickle, for other programs.

Its bytes depend on `best_model.pth` alone. So making it again and comparing shows whether it belongs to that file. Its
metadata are strings: the description of the checkpoint, `epoch`, `value` and `metric` of the selection,
`source_sha256`, the sha256 of the .pth, and `content_sha256`, the digest of its own content.

A run resumes from `last.pth`; `last_previous.pth` is the state before it, in case the last one is damaged. A save
first links `last_previous.pth` to the file that is `last.pth` now, then replaces `last.pth`. Both steps are atomic, so
that from the first save on there is always a whole `last.pth`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor

from sharpstudent.core.archive import (
    SAFETENSORS,
    compute_contents,
    load_plain,
    path_of_json,
    read_record,
    seal_safetensors,
    verify,
)
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import parse_json
from sharpstudent.core.io import (
    atomic_path,
    compute_sha256,
    set_aside,
    write_bytes_atomically,
    write_text_atomically,
)

T = TypeVar("T")

FORMAT = 1
ABOUT_KEY = "about"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        tensors: The tensors by part, `model` and others.
        about: The description that was saved with them, as JSON values; {} where there was none.
        notes: Sentences for the user about anything unexpected in the file.
    """

    tensors: dict[str, Any]
    about: dict[str, Any]
    notes: tuple[str, ...] = ()


def save_checkpoint(path: Path, tensors: Mapping[str, Any], *, about: Mapping[str, Any]) -> None:
    """Write tensors to a file, and their description into it and beside it.

    The bytes depend on the arguments only, not on the time or the process.

    Args:
        path: The path of the .pth.
        tensors: Tensors and plain containers, by part.
        about: The description, as JSON values.

    Raises:
        UserError: Where it cannot be written; the file that was there is then intact.
        ValueError: For values that `load_checkpoint` could not read back.
    """
    if ABOUT_KEY in tensors:
        raise ValueError(f"the key {ABOUT_KEY!r} of a checkpoint is taken by its description")
    about_text = json.dumps(dict(about), allow_nan=False, ensure_ascii=False)
    buffer = io.BytesIO()
    torch.save({**tensors, ABOUT_KEY: about_text}, buffer)
    _refuse_unreadable(path, buffer)
    write_bytes_atomically(path, buffer.getbuffer())
    _write_record(path, buffer, json.loads(about_text))


def _write_record(path: Path, content: io.BytesIO, about: Mapping[str, Any]) -> None:
    """Write the JSON beside a checkpoint whose bytes are `content`."""
    record = {
        "format": FORMAT,
        "sha256": hashlib.sha256(content.getbuffer()).hexdigest(),
        "bytes": content.getbuffer().nbytes,
        "contents": compute_contents(content),
        "about": about,
    }
    write_text_atomically(path_of_json(path), json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, always under `weights_only`: a file can never run code.

    Args:
        path: The path of the .pth.

    Returns:
        What the file holds.

    Raises:
        UserError: For a missing file, one that holds code, or one that is no checkpoint.
        DamagedCheckpointError: A UserError, for a file that is empty, cut off or changed.
    """
    notes = verify(path)
    payload = load_plain(path)
    if not isinstance(payload, dict):
        raise UserError.about(
            where=str(path),
            what="is not a checkpoint",
            expected="a table of named tensors",
            got=type(payload).__name__,
            remedy="give a file that this program or torch.save(model.state_dict(), ...) wrote",
        )
    try:
        about = parse_json(payload.pop(ABOUT_KEY)) if isinstance(payload.get(ABOUT_KEY), str) else {}
    except ValueError as error:
        raise UserError.about(
            where=str(path),
            what="is no checkpoint of this program: its `about` is not JSON",
            got=str(error),
            remedy="give its weights alone: torch.save(model.state_dict(), FILE)",
        ) from None
    return Checkpoint(payload, about if isinstance(about, dict) else {}, notes)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint and its JSON, atomically; by a hard link where the disk allows it.

    A hard link is as good as a copy, because no writer ever changes a checkpoint in place.

    Args:
        source: The checkpoint.
        target: The path of the copy; a file that is there is replaced.

    Raises:
        UserError: Where the disk refuses.
    """
    for old, new in ((source, target), (path_of_json(source), path_of_json(target))):
        if not old.is_file():
            new.unlink(missing_ok=True)
            continue
        with atomic_path(new, needed_bytes=old.stat().st_size) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(old, temporary)
            except OSError:
                shutil.copyfile(old, temporary)


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint, then its JSON: a JSON alone, as after a kill in between, does no harm."""
    path.unlink(missing_ok=True)
    path_of_json(path).unlink(missing_ok=True)


def _refuse_unreadable(path: Path, buffer: IO[bytes]) -> None:
    buffer.seek(0)
    unreadable = torch.serialization.get_unsafe_globals_in_checkpoint(
        buffer
    )  # reads the names in the pickle and runs no code
    if unreadable:
        names = ", ".join(sorted(unreadable))
        raise ValueError(f"{path.name}: these types cannot be read back under weights_only: {names}")


def export_model(checkpoint: Path, selection: Mapping[str, object]) -> bool:
    """Write the tensors of `model` in a checkpoint as .safetensors beside it, atomically.

    Args:
        checkpoint: Path of the .pth.
        selection: Further metadata: epoch, value and metric.

    Returns:
        Whether it was written; False where an equal file is there already.

    Raises:
        UserError: For a checkpoint that is damaged or holds no `model`, and where the disk refuses.
    """
    target = checkpoint.with_suffix(SAFETENSORS)
    content = render_model(checkpoint, selection)
    if target.is_file() and target.stat().st_size == len(content) and target.read_bytes() == content:
        return False
    write_bytes_atomically(target, content)
    return True


def render_model(checkpoint: Path, selection: Mapping[str, object]) -> bytes:
    """Build the bytes of the .safetensors of a checkpoint.

    Args:
        checkpoint: Path of the .pth.
        selection: Metadata, as in `export_model`.

    Returns:
        The whole file.

    Raises:
        UserError: For a checkpoint that is damaged or holds no `model`.
    """
    loaded = load_checkpoint(checkpoint)
    model = loaded.tensors.get("model")
    if not isinstance(model, Mapping):
        raise UserError.about(
            str(checkpoint), "holds no `model`", got=f"keys {list(loaded.tensors)[:3]}", remedy="train the run anew"
        )
    about = {**loaded.about, **selection, "source": checkpoint.name, "source_sha256": compute_sha256(checkpoint)}
    # Cloned, because the format refuses tensors that share memory, as tied weights do.
    tensors = {str(name): value.contiguous().clone() for name, value in model.items() if isinstance(value, Tensor)}
    texts = {name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for name, one in about.items()}
    return seal_safetensors(save(tensors), {"format": "pt", **texts})


LAST_NAME = "last.pth"
PREVIOUS_NAME = "last_previous.pth"


def save_run_state(folder: Path, *, tensors: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Write `last.pth` and keep the one before it as `last_previous.pth`.

    Args:
        folder: The folder of both files.
        tensors: The tensors by part (model, optimizer, criterion, rng).
        progress: How far the run is, as JSON values; `load_run_state` returns it as `about`.

    Raises:
        UserError: Where the disk refuses; what was there is then intact.
    """
    last = folder / LAST_NAME
    if last.is_file():
        copy_checkpoint(last, folder / PREVIOUS_NAME)
    save_checkpoint(last, tensors, about=progress)


class UnusableStateError(UserError):
    """A saved state that is whole and still cannot be restored; the one before it may be."""


def load_run_state(folder: Path, restore: Callable[[Checkpoint], T]) -> tuple[T, tuple[str, ...]]:
    """Restore a run from `last.pth`, or from `last_previous.pth` where the last is missing, damaged or malformed.

    A `last.pth` that could not be used is renamed, so that the next save neither overwrites it nor makes it the save
    before. Where the JSON beside the file is missing or belongs to another save, it is written again: a run that was
    killed between the two files of its very last save has no later save to do so.

    Args:
        folder: The folder of both files.
        restore: Restores the run; it may be called twice, and the second call must leave nothing of the first.

    Returns:
        What `restore` returned, and notes for the user.

    Raises:
        UserError: Where neither can be used, and what `restore` raises, apart from UnusableStateError.
    """
    last, previous = folder / LAST_NAME, folder / PREVIOUS_NAME
    if not os.path.lexists(last) and not os.path.lexists(previous):
        raise UserError.about(
            where=str(folder),
            what=f"has no {LAST_NAME}: there is nothing to resume from",
            remedy="name the folder of a run that finished at least one save, output/RUN",
        )
    problems: list[Problem] = []
    for path in (last, previous):
        try:
            state = load_checkpoint(path)
        except UserError as error:
            problems += error.problems
            continue
        try:
            restored = restore(state)
        except UnusableStateError as error:
            problems += error.problems
            continue
        if state.notes or read_record(path) is None:
            _write_record(path, io.BytesIO(path.read_bytes()), state.about)
        return restored, (*_set_aside_last(last, problems), *state.notes)
    if not os.path.lexists(previous):
        problems = problems[:1]
    raise UserError(*problems)


def _set_aside_last(last: Path, problems: Sequence[Problem]) -> list[str]:
    """Rename a `last.pth` with problems; returns the note about them."""
    if not problems:
        return []
    note = f"{LAST_NAME} {problems[0].what}; going on from {PREVIOUS_NAME}, the save before it"
    if os.path.lexists(last):
        kept = set_aside(last)
        if path_of_json(last).is_file():
            os.replace(path_of_json(last), path_of_json(kept))
        note += f" (the other is kept as {kept.name})"
    return [note]
