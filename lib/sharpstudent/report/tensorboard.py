"""Scalars for TensorBoard. The library is loaded when the first log is opened; TensorFlow is never loaded."""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpstudent.core.io import disk_errors_as_user_errors, make_folder

FLUSH_SECONDS = 30


class TensorBoardLog:
    """Writes scalars under tags that the caller names, such as `train/distill_loss`; use it as a context manager.

    On a resume, `purge_step` hides what was logged at that step or later, because those steps will be done again.
    Events are written at once: torch's SummaryWriter writes in a thread, which dies with a traceback when the disk is
    full.

    Raises:
        UserError: The disk refuses.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        _keep_tensorflow_out()
        # The two modules make their classes when they are imported, where no type checker sees them.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        make_folder(folder)
        self._event, self._summary = Event, Summary
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        with disk_errors_as_user_errors(self._path):
            self._file = open(self._path, "ab")  # noqa: SIM115 (closed by `close`)
        self._records, self._flushed = RecordWriter(self._file), time.monotonic()
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log one value.

        Args:
            tag: The tag of the value.
            value: The value.
            step: The global step.
        """
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=tag, simple_value=float(value))]))

    def _write(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        with disk_errors_as_user_errors(self._path):
            self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Log several values at one step.

        Args:
            values: The values by tag; None is left out.
            step: The global step.
        """
        for tag, value in values.items():
            if value is not None:
                self.scalar(tag, value, step)

    def flush(self) -> None:
        """Write all logged values to the disk."""
        with disk_errors_as_user_errors(self._path):
            self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        with disk_errors_as_user_errors(self._path):
            self._file.close()

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keep_tensorflow_out() -> None:
    """Keep TensorBoard from importing an installed TensorFlow, which takes seconds.

    The marker module `tensorboard.compat.notf` makes it use a small file system of its own; see
    tensorboard/compat/__init__.py.
    """
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
