"""Folders on disk, listed once, in a fixed order, without a stat for every file; and the lists that come with data sets
(JSON, CSV, the names of files in them), read without trust.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

Reject = Callable[[str, str], None]  # what is left out, as the user knows it, and why


@dataclass(frozen=True)
class Listing:
    """The names in one folder, sorted, hidden ones left out. odd: name (printable) and why it cannot be used."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    odd: tuple[tuple[str, str], ...] = ()


def read_folder(folder: Path) -> Listing:
    """One directory listing; an absent folder is empty. Links are followed as they stand, never resolved."""
    files: list[str] = []
    folders: list[str] = []
    odd: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not is_nameable(entry.name):
                    odd.append((show_name(entry.name), "its name is not UTF-8 text; rename it"))
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file() or entry.is_symlink():  # a dead link is named by whoever opens it
                    files.append(entry.name)
                else:  # opening a pipe would wait for ever
                    odd.append((entry.name, "is no ordinary file"))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(odd)))


def read_names(folder: Path) -> frozenset[str]:
    """All names in a folder, for asking what is there; none where there is no such folder."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return frozenset()


def list_media(folder: Path, suffixes: tuple[str, ...], reject: Reject) -> list[Path]:
    """The files directly in a folder that end in one of the suffixes (lower case; case of the files is ignored)."""
    listing = read_folder(folder)
    _tell_odd(folder, listing, suffixes, reject)
    return [folder / name for name in listing.files if name.lower().endswith(suffixes)]


def walk_media(folder: Path, suffixes: tuple[str, ...], reject: Reject) -> list[Path]:
    """As `list_media`, for the folder and all below it, sorted by path. A link back to a folder above is
    not entered.
    """
    found: list[Path] = []
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        here, above = waiting.pop()
        if not here.is_dir():
            continue
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in above:
            continue
        listing = read_folder(here)
        _tell_odd(here, listing, suffixes, reject)
        found += [here / name for name in listing.files if name.lower().endswith(suffixes)]
        below = above | {(about.st_dev, about.st_ino)}
        waiting += [(here / name, below) for name in listing.folders]
    return sorted(found, key=lambda path: path.parts)


def is_nameable(name: str) -> bool:
    """Whether a name can be written into a manifest and opened: UTF-8 text without a null character."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def show_name(name: str) -> str:
    """A name of any bytes, from disk or from a list, as text that can be written as UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _tell_odd(folder: Path, listing: Listing, suffixes: tuple[str, ...], reject: Reject) -> None:
    for name, reason in listing.odd:
        # A folder has no suffix to tell by, so whatever has none is told as well.
        if name.lower().endswith(suffixes) or "." not in name:
            reject(str(folder / name), reason)


PEEK = 4096  # [bytes]


def read_json(path: Path, *, form: str) -> Any:
    """What a JSON file holds. Raises UserError, which shows `form`, when it cannot be read or names a key twice."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_refuse_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(explain_broken(path, "JSON", str(error), form)) from None


def read_json_object(path: Path, *, form: str) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    content = read_json(path, form=form)
    if not isinstance(content, dict):
        raise UserError(explain_broken(path, "such a list", f"a {type(content).__name__}", form))
    return content


def read_csv(
    path: Path, *, columns: tuple[str, ...], optional: tuple[str, ...] = (), remedy: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file with a header, "" for what is absent. Raises UserError when it is broken or
    lacks a column; optional: columns that it may lack.
    """
    form = f"a first line with {','.join(columns)}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            found = rows.fieldnames or []
            missing = [name for name in columns if name not in found]
            if missing:
                got = ", ".join(found) or "an empty file"
                what = f"lacks the column {' and '.join(missing)}"
                raise UserError.about(str(path), what, form, got, remedy or REMEDY)
            for row in rows:
                yield rows.line_num, {name: row.get(name) or "" for name in (*columns, *optional)}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(explain_broken(path, "CSV", str(error), form, remedy)) from None


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


REMEDY = "take the file from the data set again, or mend it"


def explain_broken(path: Path, what: str, got: str, form: str, remedy: str | None = None) -> Problem:
    """What to say of a list that cannot be read as what it should be."""
    return Problem(str(path), f"cannot be read as {what}", expected=form, got=got, remedy=remedy or REMEDY)
