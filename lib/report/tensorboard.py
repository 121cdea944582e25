"""Scalars for TensorBoard. The library is loaded when the first log is opened, and TensorFlow never."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path


class TensorBoardLog:
    """Writes scalars under tags that the caller names (`train/distill_loss`). Use as a context manager, or `close()`.

    On a resume, `purge_step` hides what was logged at that step or later: those steps will be done again.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        _keep_tensorflow_out()
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log one value at a global step."""
        self._writer.add_scalar(tag, value, step, new_style=False)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Log several values at one step; None is left out."""
        for tag, value in values.items():
            if value is not None:
                self.scalar(tag, value, step)

    def flush(self) -> None:
        """Bring what was logged to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and end the writer's thread."""
        self._writer.close()

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keep_tensorflow_out() -> None:
    """TensorBoard imports an installed TensorFlow (seconds, and noise) unless this marker module exists.

    See tensorboard/compat/__init__.py: `tensorboard.compat.notf` makes it use its own small file-system stub.
    """
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
