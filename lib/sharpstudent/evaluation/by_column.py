"""Reads columns to report metrics by, such as the sex of a speaker.

A column is one of the table that the task's rows make, or of a CSV, whose lines are joined by sample or by group.

Legend: N rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_table
from sharpstudent.core.naming import unescape_cell
from sharpstudent.core.types import Table
from sharpstudent.evaluation.command_line import EvaluationRequest
from sharpstudent.task import Task


@dataclass(frozen=True)
class ColumnTable:
    """A CSV that says something of samples, or of groups of them.

    Attributes:
        path: The file.
        keys: Its columns that may name samples or groups, the preferred one first.
        columns: The columns that were asked for.
        rows: The number and the values of each line.
    """

    path: Path
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, str]]]

    def index(self, key: str) -> dict[str, dict[str, str]]:
        """Find the values of the columns for each name in a key. Raises UserError where they are two for one name."""
        found: dict[str, dict[str, str]] = {}
        for line, row in self.rows:
            values = {column: unescape_cell(row.get(column, "").strip()) for column in self.columns}
            name = unescape_cell(row[key])  # as scores.csv and tables.csv have it
            if found.setdefault(name, values) != values:
                where, got = f"{self.path}, line {line}", f"{found[name]} and {values}"
                raise UserError.about(where, f"says two things of {name}", got=got, remedy="mend it")
        return found

    def join(self, names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Find the values of rows, by the first key that names any of them.

        Args:
            names: What each key calls the rows, N names of each.

        Returns:
            The values of each column (N,), "" for a row of which the file says nothing.

        Raises:
            UserError: If it speaks of none of them, or says two things of one.
        """
        for key in self.keys:
            found = self.index(key)
            if any(name in found for name in names[key]):
                return {column: [found.get(one, {}).get(column, "") for one in names[key]] for column in self.columns}
        raise UserError.about(
            str(self.path),
            f"speaks of no {' and no '.join(self.keys)} of the evaluated data",
            expected=f"names such as {', '.join(list(dict.fromkeys(names[self.keys[0]]))[:3])}",
            got=", ".join(row[self.keys[0]] for _, row in self.rows[:3]) or "no row",
            remedy="take the names of scores.csv or tables.csv",
        )


def read_column_table(path: Path, columns: Sequence[str], keys: Sequence[str]) -> ColumnTable:
    """Read a CSV of columns.

    Args:
        path: The file.
        columns: The columns that are wanted.
        keys: The columns that may name samples or groups, the preferred one first.

    Returns:
        The table.

    Raises:
        UserError: If it cannot be read, lacks a column or all keys, or says two things of what its only key names.
    """
    form = f"a CSV with {' or '.join(keys)}{''.join(f', {name}' for name in columns)}"
    found, rows = read_table(path, form=form, remedy=f"expected: {form}")
    present = tuple(name for name in keys if name in found)
    missing = [name for name in columns if name not in found]
    if not present or missing:
        what = f"lacks the column {' and '.join(missing)}" if missing else "has no column to join by"
        remedy = "name its columns in --by" if missing else f"add the column {keys[-1]}"
        raise UserError.about(str(path), what, form, ", ".join(found), remedy=remedy)
    table = ColumnTable(path, present, tuple(columns), rows)
    if len(present) == 1:
        table.index(present[0])  # before anything slow begins
    return table


def list_keys(task: type[Task]) -> dict[str, str]:
    """List the columns of a CSV that may name rows or their groups, each with the column of the rows that has them."""
    return {"sample": "id", task.unit: "id", "group": "group", task.group_unit: "group"}


def check_table(task: type[Task], request: EvaluationRequest) -> None:
    """Raise UserError for a table of `--by-table` that cannot be read, names no rows, or has none of the columns."""
    if request.by_table is not None:
        found, _ = read_table(request.by_table, form=f"a CSV with {', '.join(request.by)}", remedy="mend it")
        has = [name for name in request.by if name in found]  # those that it lacks may be columns of the rows
        read_column_table(request.by_table, has or request.by, tuple(list_keys(task)))


def read_columns(task: type[Task], request: EvaluationRequest, table: Table) -> dict[str, NDArray[np.str_]]:
    """Read the columns of `--by` for the rows of a set.

    Args:
        task: The class of the task.
        request: The command line.
        table: The rows of any model.

    Returns:
        The values of each column as text (N,), "" where nothing is known.

    Raises:
        UserError: For a column that neither the table of `--by-table` nor the rows have.
    """
    column_of_key = list_keys(task)
    own = [name for name, column in table.items() if column.ndim == 1 and column.dtype.kind in "iuUb"]
    wanted = [name for name in request.by if name not in own]
    if wanted and request.by_table is None:
        raise UserError.about(
            "--by",
            f"names {' and '.join(wanted)}, and no rows have such a column",
            expected=f"a column of the rows: {', '.join(own)}; or --by-table with a CSV",
            remedy=f"--by-table columns.csv, with {' or '.join(dict.fromkeys(column_of_key))}, and {', '.join(wanted)}",
        )
    found = {name: table[name].astype(str) for name in request.by if name in own}
    if wanted and request.by_table is not None:
        names = {key: table[column].tolist() for key, column in column_of_key.items()}
        values = read_column_table(request.by_table, wanted, tuple(column_of_key)).join(names)
        found |= {name: np.array(values[name]) for name in wanted}
    return {name: found[name] for name in request.by}
