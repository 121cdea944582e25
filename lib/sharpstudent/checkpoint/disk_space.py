"""Checks before a run that the disk has space for it: if it were full at the first save, an epoch would be lost.

Legend, all in bytes: `model` is one file of weights; `state` is `last.pth`, the weights and the optimiser's state.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import find_free_files

RECORD_BYTES = 512  # bytes of a tensor in a file besides its values: name, sizes, alignment
FEWEST_FILES = 100  # files of a run with its report, without many epochs
LOG_BYTES = 2_000_000  # bytes of pictures, tables, descriptions and the first TensorBoard file of a run


def measure_tensors(value: Any) -> int:
    """Estimate the size of a file with these tensors (nested in mappings and lists), at the upper end."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() + RECORD_BYTES
    if isinstance(value, Mapping):
        return sum(measure_tensors(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return sum(measure_tensors(inner) for inner in value)
    return 0


def estimate_disk_space(model: int, state: int, *, keep_best: int) -> tuple[int, int]:
    """Estimate what a run writes from the sizes of its files.

    Up to the end of the first epoch there are: the state before the first step, which has the size of a model and
    becomes `last_previous.pth`; the epoch's file (`best_model.pth` is a hard link to it); the .safetensors; the next
    state. At most there are: three states (`last.pth`, `last_previous.pth` and one that is being written), `keep_best`
    epochs and one that is being written, `best_model.pth` where the disk has no hard links, and two .safetensors.

    Args:
        model: Bytes of a file of weights.
        state: Bytes of `last.pth` after a step.
        keep_best: How many epochs are kept.

    Returns:
        What the files up to the end of the first epoch need, and the largest size of the folder [bytes].
    """
    whole = 3 * state + (keep_best + 1) * model + model + 2 * model + LOG_BYTES
    return 3 * model + state + LOG_BYTES // 2, whole


def check_disk_space(
    folder: Path, model: Mapping[str, Tensor], *, optimizer_copies: int, keep_best: int, resumed: bool
) -> str:
    """Check that the disk has space for a run.

    Args:
        folder: The folder of the run's files; it need not exist yet.
        model: The state dict of the student.
        optimizer_copies: Tensors that the optimiser keeps for each weight (momentum 1, Adam 2).
        keep_best: How many epochs are kept.
        resumed: Whether the folder holds files of this run already.

    Returns:
        A sentence on what the run needs and what is free.

    Raises:
        UserError: Where the disk takes too few files, or less is free than the first saves need or, in a resumed run,
            than the next `last.pth` needs.
    """
    weights = measure_tensors(model)
    state = weights * (1 + optimizer_copies)
    first, whole = estimate_disk_space(weights, state, keep_best=keep_best)
    first, present = (state, _measure_files(folder.rglob("*"))) if resumed else (first, 0)
    files = find_free_files(folder)
    if files is not None and files < FEWEST_FILES:
        raise UserError.about(
            str(folder),
            "lies on a disk that has no numbers (inodes) left for the files of a run",
            expected=f"{FEWEST_FILES} files",
            got=f"{files} files, whatever the bytes that are free",
            remedy="delete or pack files there, or --set output_root=FOLDER on another disk",
        )
    free = _find_free(folder)
    if free is None:
        return f"the run needs up to {_show(whole)} in {folder}; how much is free there is not known"
    if free < first:
        raise UserError.about(
            str(folder),
            "there is no space for the first saves" if not resumed else "there is no space for the next save",
            expected=f"{first:,} bytes free (the whole run: up to {whole:,}, with keep_best {keep_best})",
            got=f"{free:,} bytes free",
            remedy="free space, or --set output_root=FOLDER on another disk"
            + ("" if resumed else "; --set keep_best=1 makes the whole run smaller"),
        )
    needed = max(0, whole - present)
    warning = "; warning: the disk may fill up before the run ends" if free < needed else ""
    more = " more" if resumed else ""
    return f"the run needs up to {_show(needed)}{more} in {folder}, where {_show(free)} are free{warning}"


def _measure_files(paths: Iterable[Path]) -> int:
    """Sum up the bytes of the files; a file with several hard links counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        if path.is_file():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _find_free(folder: Path) -> int | None:
    """Find the free bytes on the disk where `folder` is or will be; None where the disk does not report them."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return None
    return usage.free if usage.total else None  # some network disks report zeros


def _show(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
