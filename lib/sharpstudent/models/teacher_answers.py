"""Teachers' outputs that several runs share, in a file: `teacher_answers` in the config.

A sample is made from (seed, epoch, index) alone, so that runs of one seed, such as the arms of an ablation, see the
same batches. The teacher answers each of them once. An answer is found by a digest of the batch and of everything else
that the outputs depend on, so it is never that of other samples, and the steps are the same to the last bit.

The seconds that each answer took are kept, too: what a run would have cost that looked answers up is its own time and
theirs (`take_saved_seconds`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import make_folder
from sharpstudent.core.naming import printable
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.models.forward import run_model
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.models.weights import compute_weights_hash

FORMAT = 1
MOST_BYTES = 2**30  # of the file; with more, further answers are computed and not kept
WAIT_S = 120.0  # for another run that is writing
TABLES = (
    "answers (digest BLOB PRIMARY KEY, outputs BLOB, seconds DOUBLE) WITHOUT ROWID",
    "saved (process INTEGER PRIMARY KEY, seconds DOUBLE)",
)
Found = TypeVar("Found")


@dataclass(frozen=True)
class TeacherAnswers:
    """The file of answers of one teacher.

    Attributes:
        path: The file; it is made when the first answer is kept.
        teacher: The teacher, as it is during training.
        setting: What the outputs depend on besides, such as the precision.
    """

    path: Path
    teacher: nn.Module
    setting: str

    @cached_property
    def _identity(self) -> bytes:
        members = [one for one in self.teacher.modules() if isinstance(one, FrozenTeacher)]
        shares = getattr(self.teacher, "shares", torch.ones(1)).flatten().tolist()
        parts = [FORMAT, self.setting, torch.get_num_threads(), torch.__version__, compute_weights_hash(self.teacher)]
        parts += [shares, getattr(self.teacher, "average", None)]
        parts += [(one.order, sorted(one.reads.items()), one.calibration) for one in members]
        return repr(parts).encode()

    def describe(self, example: Batch, samples: int, epochs: int) -> str:
        """Say how much the answers to a run's samples take; each epoch has samples of its own, as they are augmented.

        Args:
            example: A batch of the task, on the device of the teacher.
            samples: The training samples of an epoch.
            epochs: The epochs of the run.

        Returns:
            A line.
        """
        with torch.no_grad():
            outputs = run_model(self.teacher, example.inputs)
        each = sum(value.nbytes for value in outputs.values()) / len(example)
        epoch, run = each * samples / 1e6, each * samples * epochs / 1e6
        return printable(
            f"teacher_answers: {each:.0f} bytes a sample, {epoch:.2f} MB an epoch, {run:.2f} MB this run; at most "
            f"{MOST_BYTES / 1e6:.0f} MB are kept in {self.path}"
        )

    def recall(self, inputs: Mapping[str, Tensor], compute: Callable[[], Outputs]) -> Outputs:
        """Look up the outputs for the inputs of a batch, or compute and keep them.

        Args:
            inputs: The inputs, by name.
            compute: Runs the teacher.

        Returns:
            Its outputs, on the device of the inputs.

        Raises:
            UserError: For a file that is damaged or cannot be written.
        """
        digest = hashlib.blake2b(self._identity, digest_size=20)
        for name in sorted(inputs):
            tensor = inputs[name].detach().cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        key = digest.digest()
        make_folder(self.path.parent)
        found = _ask(self.path, lambda file: _look_up(file, key))
        device = next(iter(inputs.values())).device
        if found is not None:
            return {name: value.to(device) for name, value in safetensors.torch.load(found).items()}
        begun = time.process_time()
        outputs = compute()
        seconds = time.process_time() - begun
        # A map that lies channels last would come back otherwise, and the sums of a loss in another order.
        if self.path.stat().st_size < MOST_BYTES and all(value.is_contiguous() for value in outputs.values()):
            kept = safetensors.torch.save(dict(outputs))
            row = (key, kept, seconds)
            _ask(self.path, lambda file: file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row))
        return outputs


def take_saved_seconds(path: Path, process: int) -> float:
    """Take out the seconds of processors that the answers took which a process has looked up; 0 where there are none.

    Args:
        path: The file of answers.
        process: The number of the process, which has ended.

    Raises:
        UserError: For a file that is damaged.
    """
    if not path.exists():
        return 0.0

    def take(file: sqlite3.Connection) -> float:
        row = file.execute("DELETE FROM saved WHERE process = ? RETURNING seconds", (process,)).fetchone()
        return 0.0 if row is None else float(row[0])

    return _ask(path, take)


def _look_up(file: sqlite3.Connection, key: bytes) -> bytes | None:
    row = file.execute("SELECT outputs, seconds FROM answers WHERE digest = ?", (key,)).fetchone()
    if row is None:
        return None
    added = "INSERT INTO saved VALUES (?, ?) ON CONFLICT (process) DO UPDATE SET seconds = seconds + excluded.seconds"
    file.execute(added, (os.getpid(), row[1]))
    return row[0]


def _ask(path: Path, question: Callable[[sqlite3.Connection], Found]) -> Found:
    """Open the file for one question: loader processes, which are forks of this one, then share no open file."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=WAIT_S)) as file, file:
            file.execute("PRAGMA synchronous = OFF")  # a lost file costs time only
            for table in TABLES:
                file.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            return question(file)
    except sqlite3.Error as error:
        raise UserError.about(
            f"teacher_answers: {path}",
            f"cannot be used ({error})",
            expected="a file that runs of this program have made, on a disk with space",
            remedy=f"rm {shlex.quote(str(path))}, then go on: the teacher answers again",
        ) from None
