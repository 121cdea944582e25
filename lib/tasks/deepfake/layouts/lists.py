"""The lists that come with data sets: JSON, CSV and the names of files in them, read without trust."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.errors import Problem, UserError
from lib.tasks.deepfake.layouts.listing import is_nameable

PEEK = 4096  # [bytes]


def read_json(path: Path, *, form: str) -> Any:
    """What a JSON file holds. Raises UserError, which shows `form`, when it cannot be read or names a key twice."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_refuse_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(_explain_broken(path, "JSON", str(error), form)) from None


def read_json_object(path: Path, *, form: str) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    content = read_json(path, form=form)
    if not isinstance(content, dict):
        raise UserError(_explain_broken(path, "such a list", f"a {type(content).__name__}", form))
    return content


def read_csv(path: Path, *, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file with a header. Raises UserError when it is broken or lacks a column."""
    form = f"a first line with {','.join(columns)}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not set(columns) <= set(rows.fieldnames or []):
                got = ", ".join(rows.fieldnames or []) or "an empty file"
                raise UserError(_explain_broken(path, "such a table", got, form))
            for row in rows:
                yield rows.line_num, {name: row[name] or "" for name in columns}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(_explain_broken(path, "CSV", str(error), form)) from None


def peek(path: Path) -> str:
    """The first characters of a file, "" where there is no such file: enough to tell what it is."""
    try:
        with open(path, "rb") as file:
            return file.read(PEEK).decode("utf-8-sig", "ignore")
    except OSError:
        return ""


def split_name(name: object, *, root: Path | None = None) -> tuple[str, ...]:
    """The parts of a file's name in a list, relative; backslashes count as '/'. An absolute name below `root` is cut.

    Raises ValueError whose text says what is wrong with it: outside of the folder, empty, no text.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("is not a path")
    if not is_nameable(name):
        raise ValueError("is not a path that can be opened")
    plain = name.replace("\\", "/")
    above = "" if root is None else root.absolute().as_posix().rstrip("/") + "/"
    if above and plain.startswith(above):
        plain = plain[len(above) :]
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if plain.startswith("/") or plain[1:3] == ":/" or ".." in parts:
        raise ValueError("points outside of the folder")
    if not parts:
        raise ValueError("is not a path")
    return parts


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return content


def _explain_broken(path: Path, what: str, got: str, form: str) -> Problem:
    return Problem(
        where=str(path),
        what=f"cannot be read as {what}",
        expected=form,
        got=got,
        remedy="take the file from the data set again, or mend it",
    )
