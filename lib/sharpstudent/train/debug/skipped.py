"""Files of skipped steps: the batch of each, and the state before it, from which the step can be replayed.

`skipped/epoch_E_step_S.pth` holds inputs, targets, ids and settings, `skipped/state_HASH.pth` the state. Steps skipped
in a row begin with the same state, which is then written once. Only the first few skipped steps of a run are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.config.run_config import SCRIPTS, Stage
from sharpstudent.core.archive import read_about, read_sha256
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256, remove_stray_temporaries
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult

FOLDER_NAME = "skipped"
MOST_BATCHES = 10
MOST_STATES = 3


class SkippedSteps:
    """Writes skipped batches into the folder of a run; one process at a time does."""

    def __init__(self, run_folder: Path, stage: Stage) -> None:
        """Remove the partial files of a killed process.

        Args:
            run_folder: The folder of the run.
            stage: The stage, whose script replays the steps.
        """
        self.folder, self._script = run_folder / FOLDER_NAME, SCRIPTS[stage]
        self._state_path: Path | None = None
        self._is_full = False  # no further steps are kept, and a line has said so
        with contextlib.suppress(OSError):
            remove_stray_temporaries(self.folder)

    def forget_state(self) -> None:
        """Forget the file of the state, because a step was taken and has changed the state."""
        self._state_path = None

    def keep(
        self,
        batch: Batch,
        progress: Progress,
        result: StepResult,
        *,
        settings: Mapping[str, float],
        capture_state: Callable[[], Mapping[str, Any]],
    ) -> str:
        """Write the batch and the state, unless their files exist.

        A full disk does not end the training: the returned line then says why nothing was kept.

        Args:
            batch: The batch of the step.
            progress: The epoch and number of the step.
            result: The result of the step.
            settings: lr, rho and parts of the step.
            capture_state: Returns the state before the step, as `capture_step` does.

        Returns:
            A line with the command that replays the step. Once the limit is reached, one line says so, and all later
            lines are empty.
        """
        path = self.folder / f"epoch_{progress.epoch}_step_{progress.step}.pth"
        try:
            if not path.is_file() and len(list(self.folder.glob("epoch_*.pth"))) >= MOST_BATCHES:
                return self._refuse(f"{MOST_BATCHES} batches")
            state = self._keep_state(capture_state)
            if state is None:
                return self._refuse(f"{MOST_STATES} states")
            tensors, rows = pack_batch(batch)
            about = {
                "reason": result.reason,
                "progress": asdict(progress),
                "settings": dict(settings),
                "computed_on": describe_computer(batch.device),
                "rows": rows,
                "shared": dict(batch.shared),
                "state": state.name,
                "state_sha256": compute_sha256(state),
                "batch_sha256": _compute_digest(tensors),
            }
            if not _is_whole(path) or read_about(path) != about:  # a resumed run may skip the same step again
                save_checkpoint(path, tensors, about=about)
        except UserError as error:
            return f"not kept: {'; '.join(f'{problem.where}: {problem.what}' for problem in error.problems)}"
        except OSError as error:  # this includes a folder without permission to read
            return f"not kept: {self.folder}: {error.strerror or error}"
        return f"to look at it: python {self._script} --replay {shlex.quote(str(path))}"

    def _refuse(self, what: str) -> str:
        was_said, self._is_full = self._is_full, True
        return "" if was_said else f"not kept, nor are later ones: {self.folder} holds {what}"

    def _keep_state(self, capture_state: Callable[[], Mapping[str, Any]]) -> Path | None:
        """Write the state, unless a file with the same bytes exists. Returns its path; None if there are too many."""
        if self._state_path is None:
            state = capture_state()
            path = self.folder / f"state_{_compute_digest(state)[:12]}.pth"
            if not _is_whole(path):
                others = [other for other in self.folder.glob("state_*.pth") if other != path]
                if len(others) >= MOST_STATES:
                    return None
                save_checkpoint(path, state, about={})
            self._state_path = path
        return self._state_path


@dataclass(frozen=True)
class Skipped:
    """A skipped step, as it was read from its files.

    Attributes:
        batch: The batch of the step.
        progress: The epoch and number of the step.
        reason: Why it was skipped.
        settings: lr, rho and parts of the step.
        computed_on: Device, version of torch and threads, on which the rounding of sums depends.
        state: The state before the step, as `capture_step` returns it.
    """

    batch: Batch
    progress: Progress
    reason: str
    settings: Mapping[str, float]
    computed_on: Mapping[str, Any]
    state: Mapping[str, Any]


def load_skipped(path: Path) -> Skipped:
    """Read a kept step, tensors on the CPU.

    Args:
        path: The path of the file with the batch.

    Raises:
        UserError: When a file is missing or damaged, holds no skipped batch, or holds the state of another step.
    """
    kept = load_checkpoint(path)
    tensors, about = kept.tensors, kept.about
    try:
        batch = unpack_batch(tensors, about)
        progress, reason, settings = Progress(**about["progress"]), str(about["reason"]), _read_settings(about)
        computed_on, state_path = dict(about["computed_on"]), path.with_name(str(about["state"]))
        wanted = str(about["state_sha256"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError.about(
            where=str(path),
            what="is not a skipped batch",
            expected=f"output/RUN/{FOLDER_NAME}/epoch_E_step_S.pth, as the run's log names it",
            remedy="look for `--replay` in logs/losses.logs of the run",
        ) from None
    found = compute_sha256(state_path) if state_path.is_file() else None
    if found != wanted:
        raise UserError.about(
            where=str(state_path),
            what="is not the state that this batch met: another one, or damaged" if found else "does not exist",
            expected=f"sha256 {wanted}, beside {path.name}",
            got=None if found is None else f"sha256 {found}",
            remedy="keep the files of the folder together; the state of a skipped step cannot be made again",
        )
    return Skipped(batch, progress, reason, settings, computed_on, load_checkpoint(state_path).tensors)


def pack_batch(batch: Batch) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    """Pack a batch: tensors as `inputs/NAME`, `targets/NAME` and so on, on the CPU; its other columns as JSON."""
    parts = {"inputs": batch.inputs, "targets": batch.targets, "weights": batch.weights, "rows": batch.rows}
    every = {f"{part}/{name}": value for part, named in parts.items() for name, value in named.items()}
    tensors = {name: value.detach().cpu() for name, value in every.items() if isinstance(value, Tensor)}
    # Tuples become lists, as JSON returns them, because this is compared with what was read from a file.
    rows = {
        name: [list(value) if isinstance(value, tuple) else value for value in values]
        for name, values in batch.rows.items()
        if f"rows/{name}" not in tensors
    }
    return tensors, rows


def unpack_batch(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Batch:
    """Unpack a batch that `pack_batch` of this or an earlier version packed.

    Args:
        tensors: The tensors by `PART/NAME`.
        about: The JSON beside them.

    Raises:
        ValueError: For other files; KeyError and TypeError are possible, too.
    """
    if "rows" not in about:
        names = {"id": "sample_ids", "clip": "clip_ids", "group": "identities"}
        rows: dict[str, Any] = {name: tuple(about[key]) for name, key in names.items()}
        rows |= {"mask": tensors["masks"]} if "masks" in tensors else {}
        return _deal(tensors["inputs"], tensors["labels"], rows, int(_read_settings(about)["parts"]))
    parts: dict[str, dict[str, Any]] = {"inputs": {}, "targets": {}, "weights": {}, "rows": {}}
    for key, tensor in tensors.items():
        part, name = key.split("/", 1)
        parts[part][name] = tensor
    # JSON has lists where a row's key is a tuple.
    rows = {
        name: tuple(tuple(value) if isinstance(value, list) else value for value in values)
        for name, values in about["rows"].items()
    }
    return Batch(parts["inputs"], parts["targets"], parts["weights"], {**rows, **parts["rows"]}, dict(about["shared"]))


def _deal(images: Tensor, labels: Tensor, rows: Mapping[str, Any], parts: int) -> Batch:
    """Reorder the rows of a batch kept before November 2026, when row i went to micro-batch i modulo `parts`.

    `Batch.split`, which cuts consecutive rows, then gives the same micro-batches.
    """
    order = [row for start in range(min(parts, len(labels))) for row in range(start, len(labels), parts)]
    rows = {
        name: values[order] if isinstance(values, Tensor) else tuple(values[row] for row in order)
        for name, values in rows.items()
    }
    return Batch({"image": images[order]}, {"label": labels[order]}, rows=rows)


def _read_settings(about: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(about["settings"][name]) for name in ("lr", "rho", "parts")}


def describe_computer(device: torch.device) -> dict[str, Any]:
    """Describe what decides the rounding of sums: the device, the version of torch, and the threads of a CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    return {"device": name, "torch": torch.__version__, **threads}


def _compute_digest(tensors: Mapping[str, Any]) -> str:
    """Compute the sha256 of the file that torch writes of the tensors; equal values give equal bytes."""
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether the file exists and its digest is right."""
    return path.is_file() and compute_sha256(path) == read_sha256(path)
