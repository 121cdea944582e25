"""The logs of a run: for each epoch, a readable line in `logs/losses.logs` and all numbers in `logs/metrics.csv`.

The first is for `tail -f`. The second has fixed columns; numbers are written to their last digit, None as an empty
cell.

No log is worth a run: damaged bytes are shown as such, damaged rows are left out, and a file that cannot be used at all
is renamed and begun anew. The notes say so.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.io import append_text, make_folder, set_aside, write_text_atomically
from sharpstudent.core.naming import format_csv, printable, unescape_cell

_EPOCH = re.compile(r"Epoch (\d+)/\d+ ")
_DAMAGE = re.compile("[\x00-\x1f\x7f\ufffd]")  # control characters, and what a byte that is no UTF-8 is decoded to
_SKIP = re.compile(r"# skipped epoch (\d+) step (\d+): ")


def format_epoch_line(
    epoch: int,
    total_epochs: int,
    values: Mapping[str, float | int | str | None],
    *,
    best: tuple[int, float] | None = None,
    new_best: bool = False,
    best_name: str = "best",
    schedules: Mapping[str, float] | None = None,
) -> str:
    """Format the line of an epoch.

    `Epoch 3/100 | train loss 0.6100 | val_accuracy 0.8123 | hard w=0.95 T=3.0 | best 0.8123 (epoch 3, new)`

    Args:
        epoch: The epoch, from 1.
        total_epochs: How many epochs the stage has.
        values: The values by name; None is left out.
        best: The best epoch and its value.
        new_best: Whether this epoch is the best.
        best_name: What the best value is called.
        schedules: The weights and temperatures of the terms, as `format_schedules` takes them.

    Returns:
        The line.
    """
    parts = [f"Epoch {epoch}/{total_epochs}"]
    parts += [f"{name} {_format_value(value)}" for name, value in values.items() if value is not None]
    parts += [format_schedules(schedules)] if schedules else []
    if best is not None:
        parts.append(f"{best_name} {best[1]:.4f} (epoch {best[0]}{', new' if new_best else ''})")
    return " | ".join(parts)


def format_schedules(numbers: Mapping[str, float]) -> str:
    """Format numbers of the terms: `hard w=0.95 kd w=0.05 T=3.0` from `hard/weight`, `kd/weight`, `kd/temperature`."""
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
    """Appends lines to the log; a line has been passed to the disk when `append` returns."""

    def __init__(self, path: Path, *, hide: Callable[[str], str] = str) -> None:
        """Make the folder of the log.

        Args:
            path: The file.
            hide: Shortens paths in a line, because the log may be passed on.
        """
        self.path, self._hide = path, hide
        make_folder(path.parent)

    def repair(self) -> list[str]:
        """Set the file aside if it cannot be read; returns a note about it."""
        if not os.path.lexists(self.path):
            return []
        try:
            read_plain(self.path)
        except OSError as error:
            return [_set_aside(self.path, explain(error))]
        return []

    def append(self, line: str) -> None:
        """Write one line. A line end within it, as in the name of a file, becomes its code and begins no line.

        Raises:
            UserError: The disk refuses; the log is then as before.
        """
        append_text(self.path, self._show(line) + "\n")

    def holds(self, line: str) -> bool:
        """Return whether a line was written before."""
        return self._show(line) in self.read()

    def _show(self, line: str) -> str:
        return printable(self._hide(line.rstrip("\n")))

    def read(self) -> list[str]:
        """All lines so far; a byte that is no text stands in them in hexadecimal digits."""
        if not self.path.is_file():
            return []
        return read_plain(self.path).decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")

    def drop_from(self, epoch: int, step: int) -> None:
        """On a resume, remove the lines that will be written again; other lines stay.

        Args:
            epoch: The lines of this epoch and of later ones are removed.
            step: The notes of steps skipped at (epoch, step) or later are removed.
        """
        if not self.path.is_file():
            return
        kept = [line for line in self.read() if line and not _is_from(line, epoch, step)]
        write_text_atomically(self.path, "".join(f"{line}\n" for line in kept))


def _set_aside(path: Path, reason: str) -> str:
    return f"{path.name} {reason}: it is kept as {set_aside(path).name}, and a new one is begun"


def _is_from(line: str, epoch: int, step: int) -> bool:
    row, skip = _EPOCH.match(line), _SKIP.match(line)
    if row is not None:
        return int(row[1]) >= epoch
    return skip is not None and (int(skip[1]), int(skip[2])) >= (epoch, step)


Value = float | int | str | None
Row = dict[str, Value]


class MetricsFile:
    """The metrics of a run by epoch; columns are those of the file, else of `columns`, else of the first row."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path = path
        self._columns = tuple(columns) if columns is not None else None
        if self._columns is not None and "epoch" not in self._columns:
            raise ValueError("a metrics file needs a column `epoch`")

    def append(self, row: Mapping[str, object]) -> None:
        """Add an epoch's row.

        Raises:
            ValueError: The columns differ, or the epoch is there already (call `drop_after` first).
        """
        self.repair()
        table = self._read_table()[0]
        columns = table[0] if table else list(self._columns or row)
        if set(row) != set(columns) or "epoch" not in columns:
            missing, strange = sorted(set(columns) - set(row)), sorted(set(row) - set(columns))
            raise ValueError(f"{self.path.name}: columns are fixed; missing {missing}, not among them {strange}")
        line = format_csv([[_to_text(row[name]) for name in columns]])
        position = columns.index("epoch")
        if any(cells[position] == _to_text(row["epoch"]) for cells in table[1:]):
            raise ValueError(f"{self.path.name}: epoch {row['epoch']} is there already; drop_after() it first")
        if not table:
            write_text_atomically(self.path, format_csv([columns]) + line)
            return
        append_text(self.path, line, sync=True)

    def repair(self) -> list[str]:
        """Make a file that was damaged usable again.

        Returns:
            Notes on what was left out, or set aside.

        Raises:
            UserError: If the disk refuses.
        """
        try:
            table, damaged, is_torn = self._read_table()
        except UserError as error:
            return [_set_aside(self.path, error.problems[0].what)]
        if damaged or is_torn:
            write_text_atomically(self.path, format_csv(table))
        return [f"{self.path.name}: left out damaged lines {', '.join(map(str, damaged))}"] if damaged else []

    def widen(self, columns: Iterable[str]) -> None:
        """Add the columns that the file does not have, empty in the rows so far; without a file this does nothing."""
        table = self._read_table()[0]
        new = [name for name in columns if table and name not in table[0]]
        if new:
            wider = [[*table[0], *new], *([*cells, *("" for _ in new)] for cells in table[1:])]
            write_text_atomically(self.path, format_csv(wider))

    def drop_undefined(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what is undefined (NaN); where the file has such a column, its cell stays empty.

        Args:
            row: The row of an epoch.

        Returns:
            The row, with None for an empty cell.
        """
        known = next(iter(self._read_table()[0]), [])
        undefined = {name for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
        return {
            name: None if name in undefined else row[name] for name in row if name in known or name not in undefined
        }

    def read(self) -> list[Row]:
        """All rows that are whole, numbers as int or float; an empty list where there is no file.

        Raises UserError for a file that is no such table.
        """
        table = self._read_table()[0]
        return [{name: _to_value(cell) for name, cell in zip(table[0], cells, strict=True)} for cells in table[1:]]

    def drop_after(self, epoch: int) -> int:
        """Remove, on a resume, the rows of epochs after `epoch`; returns how many."""
        table, damaged, is_torn = self._read_table()
        if not table:
            return 0
        position = table[0].index("epoch")
        kept = [cells for cells in table[1:] if int(cells[position]) <= epoch]
        dropped = len(table) - 1 - len(kept)
        if dropped or damaged or is_torn:
            write_text_atomically(self.path, format_csv([table[0], *kept]))
        return dropped

    def _read_table(self) -> tuple[list[list[str]], list[int], bool]:
        """Read header and rows as text.

        Returns:
            The table; the numbers of lines that are no rows of it, which it lacks; and whether the last line is
            unfinished, as a killed writer leaves it. It lacks that, too.

        Raises:
            UserError: For a file that cannot be read, or whose header is none.
        """
        if not os.path.lexists(self.path):
            return [], [], False
        try:
            lines = read_plain(self.path).decode("utf-8", "replace").split("\n")
        except OSError as error:
            raise UserError.about(str(self.path), explain(error), remedy="mend or move the file") from None
        rows = [_parse_row(line) for line in lines[:-1]]
        if not rows:
            return [], [], lines[-1] != ""
        header = rows[0]
        if header is None or "epoch" not in header or len({*header}) < len(header):
            raise UserError.about(
                f"{self.path}, line 1",
                "is not a row of this metrics file",
                expected="a header with a column `epoch`",
                remedy="mend or move the file; it is a plain CSV",
            )
        position = header.index("epoch")
        damaged = [
            number
            for number, cells in enumerate(rows[1:], start=2)
            if cells is None or len(cells) != len(header) or not re.fullmatch(r"\d{1,9}", cells[position])
        ]
        return [cells for n, cells in enumerate(rows, start=1) if n not in damaged and cells], damaged, lines[-1] != ""


def _parse_row(line: str) -> list[str] | None:
    """Split a line of a CSV into its cells; None for one with bytes that are no text, or that is no such line."""
    line = line.removesuffix("\r")  # a spreadsheet ends lines so
    try:
        cells = next(csv.reader([line]), [])
    except csv.Error:
        return None
    return None if _DAMAGE.search(line) else [unescape_cell(cell) for cell in cells]


def _to_text(value: object) -> str:
    if value is None:
        return ""
    item = getattr(value, "item", None)  # NumPy and torch scalars: repr(np.float64(1)) is not a number
    plain = item() if callable(item) else value
    return repr(plain) if isinstance(plain, int | float) else str(plain)


def _to_value(cell: str) -> Value:
    if cell == "":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
