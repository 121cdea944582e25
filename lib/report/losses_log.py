"""`logs/losses.logs`: one readable line an epoch, for `tail -f`. The exact figures are in the metrics file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lib.files import append_text, write_text_atomically

_EPOCH = re.compile(r"Epoch (\d+)/\d+ ")
_SKIP = re.compile(r"# skipped epoch (\d+) step (\d+): ")


def format_epoch_line(
    epoch: int,
    total_epochs: int,
    values: Mapping[str, float | int | str | None],
    *,
    best: tuple[int, float] | None = None,
    new_best: bool = False,
    best_name: str = "best",
    steering: Mapping[str, float] | None = None,
) -> str:
    """`Epoch 3/100 | train loss 0.6100 | val_auc 0.8123 | hard w=0.95 kd w=0.05 T=3.0 | best 0.8123 (epoch 3, new)`;
    values of None are left out. best_name: what the best value is called. steering: the numbers of the terms, as
    `format_steering` takes them.
    """
    parts = [f"Epoch {epoch}/{total_epochs}"]
    parts += [f"{name} {_format_value(value)}" for name, value in values.items() if value is not None]
    parts += [format_steering(steering)] if steering else []
    if best is not None:
        parts.append(f"{best_name} {best[1]:.4f} (epoch {best[0]}{', new' if new_best else ''})")
    return " | ".join(parts)


def format_steering(numbers: Mapping[str, float]) -> str:
    """`hard w=0.95 kd w=0.05 T=3.0` from `hard/weight`, `kd/weight`, `kd/temperature`, term by term."""
    short = {"weight": "w", "temperature": "T"}
    words: list[str] = []
    last = None
    for key, value in numbers.items():
        term, name = key.split("/", 1)
        words += [term] if term != last else []
        words.append(f"{short.get(name, name)}={round(value, 4)}")
        last = term
    return " ".join(words)


def _format_value(value: float | int | str) -> str:
    if isinstance(value, str | int):
        return str(value)
    small = value != 0 and abs(value) < 1e-3
    return f"{value:.2e}" if small else f"{value:.4f}"


class LossesLog:
    """Appends lines to the log; each is on its way to the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, line: str) -> None:
        """Write one line. Raises UserError where the disk refuses; the log is then as before."""
        append_text(self.path, line.rstrip("\n") + "\n")

    def read(self) -> list[str]:
        """All lines so far."""
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []

    def drop_from(self, epoch: int, step: int) -> None:
        """On a resume: forget what will be written again, that is the lines of `epoch` and later and the notes of steps
        skipped from (epoch, step) on; other lines stay.
        """
        if not self.path.is_file():
            return
        kept = [line for line in self.read() if not _is_from(line, epoch, step)]
        write_text_atomically(self.path, "".join(f"{line}\n" for line in kept))


def _is_from(line: str, epoch: int, step: int) -> bool:
    row, skip = _EPOCH.match(line), _SKIP.match(line)
    if row is not None:
        return int(row[1]) >= epoch
    return skip is not None and (int(skip[1]), int(skip[2])) >= (epoch, step)
