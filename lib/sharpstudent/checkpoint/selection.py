"""Keeps the checkpoints of the best epochs of a run.

The `keep` best are `{epoch}_{value:.4f}_val.pth`. `best_model.pth` equals the first of them, and
`best_model.safetensors` holds its tensors.

Epochs are ranked by the value of a metric, in its direction; of equal values the earlier epoch comes first. At every
instant `best_model.pth` is a whole file, and an epoch's file is deleted only when the one that displaced it is safely
on the disk. The .safetensors is written after the .pth. After a kill between the two it names the sha256 of the
earlier .pth, and a resume writes it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.store import copy_checkpoint, delete_checkpoint, export_model
from sharpstudent.core.archive import SAFETENSORS, DamagedCheckpointError, read_sha256
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import remove_stray_temporaries
from sharpstudent.core.types import Direction

BEST_NAME = "best_model.pth"
EPOCH_PATTERN = "*_*_val.pth"


@dataclass(frozen=True)
class KeptEpoch:
    """An epoch whose checkpoint is kept, the value of its metric, and the sha256 in its JSON (None without one)."""

    epoch: int
    value: float
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The name of its checkpoint."""
        return f"{self.epoch}_{self.value:.4f}_val.pth"


def _read_kept(stored: Mapping[str, Any]) -> KeptEpoch:
    """Read an epoch of a stored table. Raises ValueError or TypeError for another form."""
    kept = KeptEpoch(**stored)
    is_number = isinstance(kept.value, int | float) and math.isfinite(kept.value)
    if type(kept.epoch) is not int or not is_number or not isinstance(kept.sha256, str | None):
        raise ValueError(f"selection: {stored!r} is no epoch that was kept")
    return kept


class BestCheckpoints:
    """The table of the best epochs of a run, with their files."""

    def __init__(self, folder: Path, *, keep: int = 5, metric: str, direction: Direction = "higher") -> None:
        """Begin with an empty table.

        Args:
            folder: The folder of the files.
            keep: How many epochs are kept, 1 or more.
            metric: The name of the metric that ranks them.
            direction: Which of its values are better.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder, self.keep, self.metric, self.direction = folder, keep, metric, direction
        self._kept: list[KeptEpoch] = []

    @property
    def best(self) -> KeptEpoch | None:
        """The best epoch so far."""
        return self._kept[0] if self._kept else None

    @property
    def best_path(self) -> Path:
        """The path of the best model, once there is one."""
        return self.folder / BEST_NAME

    def consider(self, epoch: int, value: float, save: Callable[[Path], None]) -> bool:
        """Save an epoch if it is among the best.

        Args:
            epoch: The number of the epoch. If it is in the table already, it is replaced.
            value: The value of the metric.
            save: Writes the checkpoint to a path.

        Returns:
            Whether it is the new best.

        Raises:
            ValueError: For a value that is not finite: it cannot be ranked.
        """
        if not math.isfinite(value):
            raise ValueError(f"epoch {epoch}: {self.metric} is {value}; it cannot be ranked")
        others = [kept for kept in self._kept if kept.epoch != epoch]
        new = KeptEpoch(epoch, value)
        ranked = self._rank([*others, new])[: self.keep]
        if new in ranked:
            save(self.folder / new.file_name)
            ranked[ranked.index(new)] = replace(new, sha256=read_sha256(self.folder / new.file_name))
        self._settle(ranked, epoch)
        return ranked[0].epoch == epoch

    def _settle(self, ranked: list[KeptEpoch], epoch: int) -> None:
        """Set the table, copy its first epoch to best_model.pth, then delete files that are no longer listed."""
        before, self._kept = self._kept, ranked
        if not before or before[0] != ranked[0]:
            copy_checkpoint(self.folder / ranked[0].file_name, self.best_path)
            self._export(ranked[0])
        staying = {kept.file_name for kept in ranked}
        leaving = {kept.file_name for kept in before}
        leaving |= {
            path.name for path in self.folder.glob(f"{epoch}_*_val.pth")
        }  # an earlier file of this epoch, with another value in its name
        for name in sorted(leaving - staying):
            delete_checkpoint(self.folder / name)

    def state(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {"metric": self.metric, "direction": self.direction, "kept": [asdict(kept) for kept in self._kept]}

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the table on a resume, and repair the folder where files are missing.

        The best epoch keeps its rank while `best_model.pth` still holds it, even if its own file was deleted, so that a
        worse epoch cannot displace it. Other epochs whose file is gone leave the table.

        Args:
            state: What `state` returned.

        Returns:
            A note for each file that had been changed or removed.

        Raises:
            UserError: For the table of another metric, and where the disk refuses.
            ValueError: For what `state` does not return; KeyError and TypeError are possible, too. Nothing has been
                changed then.
        """
        table = self._rank([_read_kept(kept) for kept in state["kept"]])
        stored = (state["metric"], state.get("direction", "higher"))  # earlier versions had no direction
        if stored != (self.metric, self.direction):
            raise UserError.about(
                where=str(self.folder),
                what="checkpoints of another metric cannot be ranked with this run's",
                expected=f"{self.metric}, {self.direction} is better",
                got=f"{stored[0]}, {stored[1]} is better",
                remedy="resume with the metric of the run, or start a new run",
            )
        remove_stray_temporaries(self.folder)
        notes: list[str] = []
        self._kept = [kept for kept in table if self._has_file(kept, kept == table[0], notes)][: self.keep]
        if self._kept:
            self._repair_best(self._kept[0], notes)
            self._repair_export(self._kept[0], notes)
        notes += self._describe_strays()
        return notes

    def _rank(self, rows: list[KeptEpoch]) -> list[KeptEpoch]:
        sign = -1.0 if self.direction == "higher" else 1.0
        return sorted(rows, key=lambda kept: (sign * kept.value, kept.epoch))

    def _has_file(self, kept: KeptEpoch, is_best: bool, notes: list[str]) -> bool:
        path = self.folder / kept.file_name
        if path.is_file():
            return True
        if is_best and self._best_holds(kept):
            copy_checkpoint(self.best_path, path)
            notes.append(f"{path.name} was missing and was made again from {BEST_NAME}")
            return True
        notes.append(f"{path.name} is missing: epoch {kept.epoch} ({self.metric} {kept.value:.4f}) is no longer ranked")
        return False

    def _best_holds(self, kept: KeptEpoch) -> bool:
        return kept.sha256 is not None and self.best_path.is_file() and read_sha256(self.best_path) == kept.sha256

    def _repair_best(self, best: KeptEpoch, notes: list[str]) -> None:
        if not self.best_path.is_file():
            notes.append(f"{BEST_NAME} was missing and was made again from {best.file_name}")
        elif not self._best_holds(best):
            notes.append(f"{BEST_NAME} was not epoch {best.epoch}, the best known; made again from {best.file_name}")
        else:
            return
        copy_checkpoint(self.folder / best.file_name, self.best_path)

    def _repair_export(self, best: KeptEpoch, notes: list[str]) -> None:
        """Write the .safetensors again if it does not belong to `best_model.pth`; a damaged .pth gives a note."""
        name = self.best_path.with_suffix(SAFETENSORS).name
        was_there = self.best_path.with_suffix(SAFETENSORS).is_file()
        try:
            made = self._export(best)
        except DamagedCheckpointError as error:
            notes.append(f"{BEST_NAME} {error.problems[0].what}; {name} is as it was left")
            return
        if made:
            notes.append(f"{name} {'was not that of' if was_there else 'was missing and was made from'} {BEST_NAME}")
            notes[-1] += "; made again" if was_there else ""

    def _export(self, kept: KeptEpoch) -> bool:
        selection = {"epoch": kept.epoch, "value": kept.value, "metric": self.metric}
        return export_model(self.best_path, selection)

    def _describe_strays(self) -> list[str]:
        for orphan in self.folder.glob(f"{EPOCH_PATTERN}.json"):
            if not orphan.with_suffix("").is_file():
                orphan.unlink(missing_ok=True)
        known = {kept.file_name for kept in self._kept}
        strays = sorted(path.name for path in self.folder.glob(EPOCH_PATTERN) if path.name not in known)
        return [f"{name} is not in the run's table; it stays until its epoch is trained again" for name in strays]
