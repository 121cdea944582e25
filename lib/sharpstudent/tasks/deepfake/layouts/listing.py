"""Lists folders, and reads the lists that come with data sets: JSON, CSV, names of files in them.

A folder is listed once, in a fixed order and without a stat for every file. Nothing in a list is trusted.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import explain, open_plain, parse_json, read_table, read_text
from sharpstudent.core.naming import printable

# What FFmpeg reads; a file of another kind with one of these names is named when it is opened.
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".wmv", ".asf", ".flv"),
    *(".f4v", ".mpg", ".mpeg", ".vob", ".ogv", ".divx"),
)
TABLE_SUFFIXES = (".csv", ".tsv")
# Files that hold faces and cannot be read as they are, with what to do.
UNREAD = {
    (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"): "is a camera's raw file; develop it as JPEG",
    (".psd", ".svg", ".pdf", ".xcf", ".jxl", ".ico", ".eps", ".ai"): "is no photo that is read; export it as PNG",
    (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"): "is an archive; unpack it",
    (".part", ".crdownload", ".tmp"): "is an unfinished download; finish it",
}
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

Reject = Callable[[str, str], object]  # what is left out, as the user knows it, and why


@dataclass(frozen=True)
class Listing:
    """The names in one folder, sorted, without hidden ones.

    Attributes:
        files: Names of files, and of links whose target is gone.
        folders: Names of folders.
        odd: Name (printable) of each other thing, and why it cannot be used.
    """

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    odd: tuple[tuple[str, str], ...] = ()


def read_folder(folder: Path, *, any_name: bool = False) -> Listing:
    """List one folder; an absent folder is empty. Links are followed as they stand, never resolved.

    Args:
        folder: The folder.
        any_name: Whether names that are not UTF-8 are taken, too; else they are odd.

    Returns:
        What is in it.

    Raises:
        UserError: If the folder is there and cannot be listed.
    """
    files: list[str] = []
    folders: list[str] = []
    odd: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not any_name and not is_nameable(entry.name):
                    odd.append((printable(entry.name), "its name is not UTF-8 text; rename it"))
                    continue
                kind = _find_kind(entry)
                if kind == "folder":
                    folders.append(entry.name)
                elif kind == "file":
                    files.append(entry.name)
                else:
                    odd.append((entry.name, kind))
    except OSError as error:
        if error.errno not in ABSENT:
            raise _explain_unlisted(folder, error) from None
    return Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(odd)))


def _explain_unlisted(folder: Path, error: OSError) -> UserError:
    """Return the error about a folder without permission: to go on without it would leave out who knows how much."""
    remedy = f"chmod -R u+rX {shlex.quote(printable(str(folder)))}, or move it elsewhere"
    return UserError.about(printable(str(folder)), f"cannot be listed ({explain(error)})", remedy=remedy)


def _find_kind(entry: os.DirEntry[str]) -> str:
    """Return "file", "folder", or why an entry is neither. A dead link is a file: whoever opens it names it."""
    try:
        if entry.is_dir():
            return "folder"
        # Opening a pipe would wait for ever.
        return "file" if entry.is_file() or entry.is_symlink() else "is no ordinary file"
    except OSError as error:  # a link to itself, or into a folder without permission
        return f"is a link that cannot be followed ({explain(error)})"


def read_names(folder: Path) -> frozenset[str]:
    """Return all names in a folder; none where there is no such folder."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return frozenset()


def list_media(folder: Path, suffixes: tuple[str, ...], reject: Reject) -> list[Path]:
    """List the files directly in a folder that end in one of the suffixes.

    Args:
        folder: The folder.
        suffixes: Suffixes in lower case; the case of the files is ignored.
        reject: Takes each name that cannot be used, and why.

    Returns:
        The files, sorted by name.
    """
    listing = read_folder(folder)
    _reject_odd(folder, listing, reject)
    return [folder / name for name in listing.files if name.lower().endswith(suffixes)]


def walk_files(folder: Path, reject: Reject, *, any_name: bool = False) -> list[Path]:
    """List all files in a folder and below it, without hidden ones.

    Links are followed. One that leads back to a folder above is rejected.

    Args:
        folder: The folder.
        reject: Takes each path that cannot be used, and why.
        any_name: Whether names that are not UTF-8 are taken, too.

    Returns:
        The files, sorted by path.

    Raises:
        UserError: If a folder is there and cannot be listed.
    """
    found: list[Path] = []
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        here, above = waiting.pop()
        try:
            about = os.stat(here)
        except OSError as error:
            if error.errno in ABSENT:
                continue
            raise _explain_unlisted(here, error) from None
        if (about.st_dev, about.st_ino) in above:
            reject(str(here), "is a link back to a folder above it")
            continue
        listing = read_folder(here, any_name=any_name)
        _reject_odd(here, listing, reject)
        found += [here / name for name in listing.files]
        below = above | {(about.st_dev, about.st_ino)}
        waiting += [(here / name, below) for name in listing.folders]
    return sorted(found, key=lambda path: path.parts)


def explain_file(name: str) -> str:
    """Return why a file of this name cannot be used, and what to do; "" for pictures and videos."""
    lower = name.lower()
    for suffixes, reason in UNREAD.items():
        if lower.endswith(suffixes):
            return reason
    return "" if lower.endswith(VIDEO_SUFFIXES) else "is neither a picture nor a video"


def is_nameable(name: str) -> bool:
    """Return whether a name can be written into a manifest and opened: UTF-8 text without a null character."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def _reject_odd(folder: Path, listing: Listing, reject: Reject) -> None:
    for name, reason in listing.odd:
        reject(str(folder / name), reason)


PEEK = 4096  # [bytes]


def read_json(path: Path, *, form: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        form: How such a file looks, for the message.

    Returns:
        What it holds.

    Raises:
        UserError: If it cannot be read, or names a key twice.
    """
    try:
        return parse_json(read_text(path), object_pairs_hook=_refuse_twice)
    except (OSError, ValueError) as error:
        raise UserError(explain_broken(path, "JSON", explain(error), form)) from None


def read_json_object(path: Path, *, form: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Args:
        path: The file.
        form: How such a file looks, for the message.

    Returns:
        The object.

    Raises:
        UserError: If it cannot be read, names a key twice, or holds something else.
    """
    content = read_json(path, form=form)
    if not isinstance(content, dict):
        raise UserError(explain_broken(path, "such a list", f"a {type(content).__name__}", form))
    return content


def read_csv(
    path: Path, *, columns: tuple[str, ...], optional: tuple[str, ...] = (), remedy: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header.

    Args:
        path: The file.
        columns: Columns that it must have.
        optional: Columns that it may lack.
        remedy: What a message tells the user to do; None for the advice on a data set's own file.

    Yields:
        The line's number and its row, "" for what is absent.

    Raises:
        UserError: If it is broken or lacks a column.
    """
    form = f"a first line with {','.join(columns)}"
    # A published list is not the user's to correct: cells of a line beyond its header are not read.
    found, rows = read_table(path, form=form, remedy=remedy or REMEDY, is_strict=False)
    missing = [name for name in columns if name not in found]
    if missing:
        what = f"lacks the column {' and '.join(missing)}"
        raise UserError.about(str(path), what, form, ", ".join(found) or "an empty file", remedy or REMEDY)
    for line, row in rows:
        yield line, {name: row.get(name, "") for name in (*columns, *optional)}


def peek(path: Path) -> str:
    """Return the first characters of a file, "" where there is no such file: enough to know its form."""
    try:
        with open_plain(path) as file:
            return file.read(PEEK).decode("utf-8-sig", "ignore")
    except OSError:
        return ""


def split_name(name: object, *, root: Path | None = None) -> tuple[str, ...]:
    """Split the name of a file in a list into its parts; backslashes count as '/'.

    Args:
        name: What stands in the list.
        root: A folder; an absolute name below it is taken relative to it.

    Returns:
        The parts of a relative path.

    Raises:
        ValueError: If it is no path, or leads outside of the folder. The text says which.
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
    """Return the message about a list that cannot be read.

    Args:
        path: The file.
        what: What it should be, such as "CSV".
        got: What is wrong with it.
        form: How such a file looks.
        remedy: What to do; None for the advice on a data set's own file.

    Returns:
        The problem.
    """
    return Problem(str(path), f"cannot be read as {what}", expected=form, got=got, remedy=remedy or REMEDY)
