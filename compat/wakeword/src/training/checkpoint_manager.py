"""`CheckpointManager` of the wake-word guide: the folder that runs write their checkpoints to."""

from __future__ import annotations

from pathlib import Path

from sharpstudent.core.archive import BEST
from sharpstudent.core.errors import UserError
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import load_weights
from torch import nn


class CheckpointManager:
    """The runs in a folder. Each has its checkpoints, the best of them, and the state to resume from."""

    def __init__(self, checkpoint_dir: str | Path) -> None:
        """Name the folder; it is made when the first run begins."""
        self.checkpoint_dir = Path(checkpoint_dir)

    def list_runs(self, name: str) -> list[Path]:
        """List the runs of a name, the oldest first."""
        return sorted(self.checkpoint_dir.glob(f"{name}_*"), key=lambda path: path.stat().st_mtime)

    def find_best(self, name: str) -> Path:
        """Find the best checkpoint of the newest run of a name; raise UserError where there is none."""
        for run in reversed(self.list_runs(name)):
            if (run / BEST).is_file():
                return run / BEST
        raise UserError.about(
            str(self.checkpoint_dir), f"holds no finished run of {name}", remedy="train first: trainer.train()"
        )

    def load_best(self, name: str, model: nn.Module) -> Path:
        """Load that checkpoint into a model; return its path."""
        path = self.find_best(name)
        load_weights(getattr(model, "inner", model), read_tensors(path), where=str(path), needs_head=True)
        return path
