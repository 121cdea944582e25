"""Reads files that others wrote: what is no plain file, is too large, or changes meanwhile is refused.

Opening a named pipe or a device may wait for ever, and a sparse file of 3 GB has as many zeros. So the kind and the
size of a file are checked on its open handle, before a byte of it is read.

All that a damaged or hostile file leads to is an OSError, or a ValueError for content that is no text or no JSON;
`explain` gives the reason of either for a message.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from sharpstudent.core.errors import UserError
from sharpstudent.core.naming import unescape_cell

MOST_TEXT = 2**28  # bytes of a text that is read whole; the labels of the largest public data set have 20 MB
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_plain(path: Path, *, most_bytes: int | None = None) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: The file. Links are followed.
        most_bytes: The largest size that is accepted; None for any.

    Returns:
        The open file, at its beginning.

    Raises:
        OSError: If the file cannot be opened, is no regular file, or is larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except ValueError as error:  # a null byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
            raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
        if most_bytes is not None and about.st_size > most_bytes:
            what = f"has {about.st_size:,} bytes, more than the {most_bytes:,} that are read"
            raise OSError(errno.EFBIG, what, str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_plain(path: Path, *, most_bytes: int | None = None) -> int:
    """Check a file that a library will open by itself.

    Args:
        path: The file.
        most_bytes: The largest size that is accepted; None for any.

    Returns:
        Its size [bytes].

    Raises:
        OSError: As `open_plain`.
    """
    with open_plain(path, most_bytes=most_bytes) as file:
        return os.fstat(file.fileno()).st_size


def read_plain(path: Path, *, most_bytes: int | None = None) -> bytes:
    """Read a regular file whole.

    Args:
        path: The file.
        most_bytes: The largest size that is accepted; None for any.

    Returns:
        Its bytes.

    Raises:
        OSError: As `open_plain`, and for a file that changes while it is read.
    """
    with open_plain(path, most_bytes=most_bytes) as file:
        return read_rest(file, path)


def read_rest(file: BinaryIO, path: Path) -> bytes:
    """Read an open file from its beginning to the end that it had when this began.

    Args:
        file: The file, as `open_plain` gives it.
        path: Its path, for the error.

    Returns:
        Its bytes.

    Raises:
        OSError: If it cannot be read, or changes while it is read.
    """
    before = os.fstat(file.fileno())
    file.seek(0)
    content = file.read(before.st_size)  # no more: a file that grows without end would fill the memory
    after = os.fstat(file.fileno())
    if len(content) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise OSError(errno.EBUSY, "changed while it was read", str(path))
    return content


def read_text(path: Path, *, most_bytes: int = MOST_TEXT, errors: str = "strict") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        most_bytes: The largest size that is accepted.
        errors: What is done about bytes that are no UTF-8, as for `bytes.decode`.

    Returns:
        The text, with its line ends as they are.

    Raises:
        OSError: As `read_plain`.
        ValueError: For bytes that are no UTF-8.
    """
    return read_plain(path, most_bytes=most_bytes).decode("utf-8-sig", errors)


def read_json(path: Path, *, most_bytes: int = MOST_TEXT) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        most_bytes: The largest size that is accepted.

    Returns:
        What it holds.

    Raises:
        OSError: As `read_plain`.
        ValueError: For anything but JSON.
    """
    return parse_json(read_text(path, most_bytes=most_bytes))


def parse_json(text: str | bytes, **settings: Any) -> Any:
    """Parse JSON from a file of others.

    Args:
        text: The JSON.
        settings: Passed on to `json.loads`.

    Returns:
        What it holds.

    Raises:
        ValueError: For anything but JSON, a number of thousands of digits, and lists within lists beyond Python's
            limit.
    """
    try:
        return json.loads(text, **settings)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def explain(error: Exception) -> str:
    """Return the reason of an error on one line, without number and path."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def read_table(
    path: Path, *, form: str, remedy: str, is_strict: bool = True
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table with a header; its columns may be separated by commas, semicolons, tabs or bars.

    Args:
        path: The file, UTF-8 with or without a byte order mark.
        form: How such a file looks, for the message.
        remedy: What a message tells the user to do.
        is_strict: Refuse a line with more values than columns, which may have shifted them; else drop the last ones.

    Returns:
        The columns, and each line's number and row, "" for what is absent.

    Raises:
        UserError: If it is broken, names a column twice, or a line has more values than columns.
    """
    what = "cannot be read as CSV"
    try:
        text = read_text(path)
        delimiter = max(",;\t|", key=text.partition("\n")[0].count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, restval="")
        columns = [name.strip() for name in rows.fieldnames or ()]
        rows.fieldnames = columns
        if len(set(columns)) < len(columns):
            raise ValueError("a column stands there twice")
        read: list[tuple[int, dict[str, str]]] = []
        for row in rows:
            if row.pop(None, None) and is_strict:  # pyright: ignore[reportArgumentType, reportCallIssue]
                raise ValueError(f"line {rows.line_num} has more values than there are columns")
            read.append((rows.line_num, row))
        return columns, read
    except UnicodeDecodeError:
        remedy = "save it as UTF-8, in a spreadsheet: CSV UTF-8"
        raise UserError.about(str(path), what, form, "text that is not UTF-8", remedy) from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError.about(str(path), what, form, explain(error), remedy) from None


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


PACKED, UNPACK = "is a packed archive, not the file itself", "unpack it, and name the file inside"
# How a file begins that lies in the place of a downloaded one, what it is, and what to do.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"version https://git-lfs",
        "is a Git LFS pointer: a few lines in place of the file",
        "download it again: `git lfs pull` in its repository, or the download link of its page",
    ),
    (
        rb"(?i)\s*(?:<!doctype html|<html|<head|<\?xml|<script)",
        "is a web page, saved in place of the file",
        "download it again: open its address in a browser and use the download button of the page",
    ),
    (
        rb"\s*\{\s*\"(?:error|message|detail)",
        "is the error message of a server, saved in place of the file",
        "download it again; its address may need a login",
    ),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|(?s:.{257})ustar", PACKED, UNPACK),
    (rb"\x89HDF", "is an HDF5 file, as Keras writes it", "give weights of a torch model"),
)


def recognise_foreign(start: bytes) -> tuple[str, str] | None:
    """Recognise what lies in the place of a downloaded binary file.

    Args:
        start: The first 512 bytes of the file.

    Returns:
        What it is, as the rest of a sentence, and a remedy; None where it may be the file.
    """
    return next(((what, remedy) for form, what, remedy in _FOREIGN if re.match(form, start)), None)
