"""Folders on disk: listed once, in a fixed order, without a stat for every file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
