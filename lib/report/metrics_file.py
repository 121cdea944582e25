"""`logs/metrics.csv`: one row an epoch, fixed columns, every number to its last digit (`repr`), nothing for None."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lib.errors import Problem, UserError
from lib.files import append_text, write_text_atomically

Value = float | int | str | None
Row = dict[str, Value]


class MetricsFile:
    """The metrics of a run by epoch. Columns are those of the file, else of `columns`, else of the first row."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path = path
        self._columns = tuple(columns) if columns is not None else None
        if self._columns is not None and "epoch" not in self._columns:
            raise ValueError("a metrics file needs a column `epoch`")

    def append(self, row: Mapping[str, object]) -> None:
        """Add an epoch's row. ValueError if the columns differ or the epoch is there already (`drop_after` first)."""
        table = self._read_table()
        columns = table[0] if table else list(self._columns or row)
        if set(row) != set(columns) or "epoch" not in columns:
            missing, strange = sorted(set(columns) - set(row)), sorted(set(row) - set(columns))
            raise ValueError(f"{self.path.name}: columns are fixed; missing {missing}, not among them {strange}")
        line = _to_csv([[_to_text(row[name]) for name in columns]])
        position = columns.index("epoch")
        if any(cells[position] == _to_text(row["epoch"]) for cells in table[1:]):
            raise ValueError(f"{self.path.name}: epoch {row['epoch']} is there already; drop_after() it first")
        if not table:
            write_text_atomically(self.path, _to_csv([columns]) + line)
            return
        self._cut_torn_line(table)
        append_text(self.path, line, sync=True)

    def widen(self, columns: Iterable[str]) -> None:
        """Add the columns that the file does not have, empty in the rows so far; nothing where there is no file."""
        table = self._read_table()
        new = [name for name in columns if table and name not in table[0]]
        if new:
            wider = [[*table[0], *new], *([*cells, *("" for _ in new)] for cells in table[1:])]
            write_text_atomically(self.path, _to_csv(wider))

    def read(self) -> list[Row]:
        """All rows, numbers as int or float; an empty list when there is no file."""
        table = self._read_table()
        return [{name: _to_value(cell) for name, cell in zip(table[0], cells, strict=True)} for cells in table[1:]]

    def drop_after(self, epoch: int) -> int:
        """On a resume: remove the rows of epochs after `epoch`, which will be done again. Returns how many."""
        table = self._read_table()
        if not table:
            return 0
        position = table[0].index("epoch")
        kept = [cells for cells in table[1:] if float(cells[position]) <= epoch]
        dropped = len(table) - 1 - len(kept)
        if dropped or self._is_torn():
            write_text_atomically(self.path, _to_csv([table[0], *kept]))
        return dropped

    def _read_table(self) -> list[list[str]]:
        """Header and rows as text, without a last line that a killed writer left unfinished."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        table = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        uneven = [number for number, cells in enumerate(table, start=1) if len(cells) != len(table[0])]
        if uneven or (table and "epoch" not in table[0]):
            raise UserError(
                Problem(
                    where=f"{self.path}, line {uneven[0] if uneven else 1}",
                    what="is not a row of this metrics file",
                    expected="one value a column" if uneven else "a header with a column `epoch`",
                    remedy="mend or move the file; it is a plain CSV",
                )
            )
        return table

    def _is_torn(self) -> bool:
        return not self.path.read_bytes().endswith(b"\n")

    def _cut_torn_line(self, table: list[list[str]]) -> None:
        if self._is_torn():
            write_text_atomically(self.path, _to_csv(table))


def _to_csv(table: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


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
