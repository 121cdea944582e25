"""What touches files and signals: whole or absent files, one process a folder, signals held back while processes start.

Writes are atomic, and files have checksums. A folder is held by a lock that the kernel takes back when its holder ends,
however it ends.

It is a POSIX record lock (`fcntl.lockf`), not `flock`: a `flock` belongs to the open file, which forked children share,
so that a loader process that outlives a killed trainer by seconds would go on holding it. A record lock belongs to
the process that took it, is not inherited by fork, and is known to NFS servers. Its one trap is that closing ANY handle
of the file in that process gives it up; so a process opens each lock file once only (`_HELD`).

The file `.lock` stays, empty: deleting it would let two processes lock two files of that name.

Ctrl-C and SIGTERM are kept out of the instants in which a process is started or ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Generator
from datetime import datetime
from io import FileIO
from pathlib import Path

from sharpstudent.core.errors import Problem, UserError

TEMPORARY_SUFFIX = ".partial"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


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
        sync_to_disk(path.parent)
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
        raise UserError.about(
            str(path), "is a file where a folder must be made", remedy="move the file, or name another folder"
        ) from None
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, None)) from error


@contextlib.contextmanager
def disk_errors_as_user_errors(path: Path) -> Generator[None, None, None]:
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


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK_NAME = ".lock"
_TAKEN = (errno.EAGAIN, errno.EACCES)  # POSIX lets a system choose between the two
_LARGEST_RECORD = 4096  # bytes of a lock file that are read


class FolderLock:
    """Holds a folder until it is released, is garbage, or the process ends."""

    def __init__(self, handle: int) -> None:
        self.release = weakref.finalize(self, _give_up, handle, os.getpid())


_HELD: weakref.WeakValueDictionary[tuple[int, int, int], FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path, say: Callable[[str], None], *, doing: str = "trained") -> FolderLock | None:
    """Take a folder for this process; doing: what for, such as "trained". Keep what is returned for as long as the
    folder is written.

    Raises UserError where another process has it, or where the lock file cannot be made. None, after a remark through
    `say`, where the system or the disk knows no locks. A process that has the folder already gets the same lock again.
    """
    if fcntl is None:
        say(f"{folder} is not locked: this system has no POSIX locks; see to it that no second process writes it")
        return None
    path = folder / LOCK_NAME
    held = _HELD.get(_identify(path))
    if held is not None and held.release.alive:
        return held
    handle = _open(path)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _describe_holder(handle)
        os.close(handle)
        if error.errno in _TAKEN:
            raise UserError(_explain_taken(folder, holder, doing)) from None
        reason = error.strerror or error
        say(f"{folder} is not locked: its disk refuses locks ({reason}); see to it that no second process writes it")
        return None
    lock = FolderLock(handle)
    _HELD[_identify(path)] = lock
    _write_holder(handle)
    return lock


def _identify(path: Path) -> tuple[int, int, int]:
    """This process and the file that `path` is now; of a file that is not there, one that none has."""
    try:
        status = path.stat()
    except OSError:
        return os.getpid(), -1, -1
    return os.getpid(), status.st_dev, status.st_ino


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError.about(
            str(path),
            f"could not be written ({error.strerror or error})",
            remedy="make the folder writable, or free space on its disk",
        ) from None


def _write_holder(handle: int) -> None:
    """Say who has it. A full disk may refuse that; the lock holds all the same."""
    record = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)


def _describe_holder(handle: int) -> str:
    try:
        record = json.loads(os.pread(handle, _LARGEST_RECORD, 0))
        return f"process {int(record['pid'])} on {record['host']}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that left no name"


def _give_up(handle: int, owner: int) -> None:
    """Unlock it, and empty the file: no host name stays in a finished run. A forked child owns nothing of it."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
    with contextlib.suppress(OSError):
        os.close(handle)


def _explain_taken(folder: Path, holder: str, doing: str) -> Problem:
    return Problem(
        str(folder),
        f"is being {doing} by another process",
        expected="one process a folder",
        got=holder,
        remedy="wait until it has ended, or stop it; the lock goes with its process, so there is no file to delete",
    )


@contextlib.contextmanager
def stop_signals_blocked() -> Generator[None]:
    """Inside, Ctrl-C and SIGTERM wait, for the processes started here too: they would die of them before they ignore
    them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """In a worker process: Ctrl-C and a scheduler's SIGTERM reach all processes alike and are the parent's to answer.

    On Linux the process also ends with its parent: one that hangs would outlive a parent that is killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:
            os._exit(1)  # it ended before the line above


def check_writable(root: Path, where: str, *, remedy: str = "choose another folder") -> None:
    """Raise UserError where no file can be made in `root`, or in what there is above it. Leaves no trace."""
    try:
        there = next(
            folder for folder in (root, *root.absolute().parents) if folder.exists()
        )  # raises for a name that is too long
        probe = there / f".writable.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError.about(
            where,
            f"cannot be written ({error.strerror or error})",
            remedy=f"make the folder writable, free space, or {remedy}",
        ) from None


def make_new_folder(base: Path) -> Path:
    """A folder of this name, with _2, _3 ... when it exists: mkdir decides who was first. Raises UserError where the
    disk refuses.
    """
    make_folder(base.parent)
    attempt = 1
    while True:
        folder = base if attempt == 1 else base.with_name(f"{base.name}_{attempt}")
        try:
            make_folder(folder, exist_ok=False)
            return folder
        except FileExistsError:
            attempt += 1
