"""Files that are whole or absent: atomic writes and checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Generator
from io import FileIO
from pathlib import Path

from lib.errors import Problem, UserError

TEMPORARY_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_path(path: Path, *, needed_bytes: int | None = None) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over `path`, on error removed.

    A reader therefore sees the old file or the new one, never half of one, whatever kills the writer. Raises UserError
    when the folder cannot be written or the disk is full; the old file is intact. `needed_bytes` is named in that
    error where the writer knows it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        if _is_about_another_file(error, path, temporary):
            raise
        raise UserError(_explain_unwritable(path, error, needed_bytes)) from error
    finally:
        # A folder that is a file or read-only refuses this too; the error above says so already.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _explain_unwritable(path: Path, error: OSError, needed_bytes: int | None) -> Problem:
    return Problem(
        where=str(path),
        what=f"could not be written ({error.strerror or error})",
        expected=None if needed_bytes is None else f"room for {needed_bytes:,} bytes",
        got=_describe_free_space(path.parent),
        remedy="free space on the disk or make the folder writable; the previous file, if any, is intact",
    )


def _is_about_another_file(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether the body failed on a file of its own, such as an unreadable source: not this path's fault."""
    return isinstance(error.filename, str) and Path(error.filename) not in (temporary, path, *path.parents)


def _describe_free_space(folder: Path) -> str | None:
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return None


def write_bytes_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` so that a crash leaves the old file or the new one."""
    with atomic_path(path, needed_bytes=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text_atomically(path: Path, content: str) -> None:
    """As `write_bytes_atomically`, UTF-8."""
    write_bytes_atomically(path, content.encode("utf-8"))


def append_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Add `text`, UTF-8, to the end of `path`, all of it or nothing; with `sync` it is on the disk on return.

    Raises UserError when it cannot be written; what was there is then as before.
    """
    content = memoryview(text.encode("utf-8"))
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, content)
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)  # a nearly full disk takes the first half of a line
                raise
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, len(content))) from error


def _write_all(file: FileIO, content: memoryview) -> None:
    done = 0
    while done < len(content):
        done += file.write(content[done:])  # a full disk writes less than asked first, and fails then


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Make a folder with those above it. Raises UserError where it cannot be made, FileExistsError where it must not
    exist and does.
    """
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        if not exist_ok:
            raise
        raise UserError(
            Problem(str(path), "is a file where a folder must be made", remedy="move the file, or name another folder")
        ) from None
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, None)) from error


@contextlib.contextmanager
def disk_errors_told(path: Path) -> Generator[None, None, None]:
    """Inside, an OSError becomes a UserError about `path`: for writers of a library that open their files
    themselves.
    """
    try:
        yield
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, None)) from error


def remove_stray_temporaries(folder: Path) -> list[Path]:
    """Delete what killed writers left in `folder`; returns what was removed."""
    strays = sorted(folder.glob(f".*{TEMPORARY_SUFFIX}"))
    for stray in strays:
        stray.unlink(missing_ok=True)
    return strays


def compute_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
