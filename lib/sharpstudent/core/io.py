"""Atomic writes, locks on folders, and blocking of signals while processes start or end.

After a write the file is the old one or the new one, even if the writer was killed. A folder is reserved by a lock that
the kernel releases when the process ends, however it ends.

The lock is a POSIX record lock (`fcntl.lockf`) and not a `flock`. A `flock` belongs to the open file, which forked
children share: a loader process that outlives a killed trainer by seconds would still hold it. A record lock belongs to
the process that took it, is not inherited by a fork, and works on NFS. But closing ANY handle of the file in that
process releases it. So a process opens each lock file only once (`_HELD`).

The file `.lock` stays in the folder, empty. If it were deleted, two processes could lock two files of that name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from datetime import datetime
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path
from typing import NoReturn

from sharpstudent.core.errors import ExitCode, Problem, RunInterrupted, UserError
from sharpstudent.core.files import open_plain

TEMPORARY_SUFFIX = ".partial"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


@contextlib.contextmanager
def atomic_path(path: Path, *, needed_bytes: int | None = None) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path`, and rename it over `path` after the body.

    After a success, the temporary file is fsynced and renamed; after an error it is removed. A reader therefore sees
    the old file or the new one, never a part of one.

    Args:
        path: The file to write.
        needed_bytes: The size of the content, for the message about a full disk; None if it is not known.

    Yields:
        The temporary path, for the body to write.

    Raises:
        UserError: If the folder cannot be written or the disk is full. The old file is intact.
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
        # This fails, too, for a folder that is a file or read-only; the error above says so already.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _explain_unwritable(path: Path, error: OSError, needed_bytes: int | None) -> Problem:
    return Problem(
        where=str(path),
        what=f"could not be written ({error.strerror or error})",
        expected=None if needed_bytes is None else f"{needed_bytes:,} bytes of free space",
        got=_describe_free_space(path.parent),
        remedy=f"{_advise(error, path.parent)}; the previous file, if any, is intact",
    )


def _advise(error: OSError, folder: Path) -> str:
    """Say what would let a file be written: the bytes that are free mislead where something else is used up."""
    if error.errno == errno.EDQUOT:
        return "free space: your quota of this disk is used up, whatever the disk itself has free"
    if error.errno == errno.ENOSPC and find_free_files(folder) == 0:
        return "delete or pack files: the disk has free space, and no number (inode) left for one file more"
    return "free space on the disk or make the folder writable"


def find_free_files(folder: Path) -> int | None:
    """Find how many files (inodes) the disk of a folder, or of the nearest one above it, takes; None if unknown."""
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir()), Path())
    try:
        about = os.statvfs(there)
    except (OSError, AttributeError):  # AttributeError: not a POSIX system
        return None
    return about.f_favail if about.f_files else None  # some disks have no table of files, and report zeros


def _is_about_another_file(error: OSError, path: Path, temporary: Path) -> bool:
    """Return whether an error is about another file than the one to write, such as a source that cannot be read."""
    return isinstance(error.filename, str) and Path(error.filename) not in (temporary, path, *path.parents)


def _describe_free_space(folder: Path) -> str | None:
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return None


def write_bytes_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a crash leaves the old content or the new one.

    Args:
        path: The file.
        content: Its new content.
    """
    with atomic_path(path, needed_bytes=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text_atomically(path: Path, content: str) -> None:
    """Write a text file so that a crash leaves the old content or the new one.

    Args:
        path: The file.
        content: Its new content, which is written as UTF-8. A lone surrogate, as in the name of a file that is no text,
            is written as its escape sequence, which JSON reads back as the same character.
    """
    write_bytes_atomically(path, content.encode("utf-8", "backslashreplace"))


def append_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Add text to the end of a file: all of it, or nothing.

    Args:
        path: The file.
        text: The text, which is written as by `write_text_atomically`.
        sync: Whether the text is on the disk when the function returns.

    Raises:
        UserError: If the text cannot be written. The file is then as before.
    """
    content = memoryview(text.encode("utf-8", "backslashreplace"))
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, content)
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)  # a nearly full disk may write only the first part of a line
                raise
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, len(content))) from error


def _write_all(file: FileIO, content: memoryview) -> None:
    done = 0
    while done < len(content):
        done += file.write(content[done:])  # on a full disk, one call writes too little and the next fails


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Make a folder, and those above it.

    Args:
        path: The folder.
        exist_ok: Whether the folder may exist already.

    Raises:
        UserError: If the folder cannot be made.
        FileExistsError: If the folder exists and must not.
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
    """Turn an OSError of the body into a UserError about `path`.

    This is for libraries that open and write the file themselves.
    """
    try:
        yield
    except OSError as error:
        raise UserError(_explain_unwritable(path, error, None)) from error


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that nothing overwrites it.

    Args:
        path: The file, or whatever lies under its name.

    Returns:
        Its new path, `NAME.damaged` or with a number.

    Raises:
        UserError: If the disk refuses.
    """
    names = (f"{path.name}.damaged{'' if number == 1 else f'_{number}'}" for number in itertools.count(1))
    target = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    with disk_errors_as_user_errors(path):
        os.rename(path, target)
    return target


def remove_stray_temporaries(folder: Path) -> list[Path]:
    """Delete the temporary files that killed writers left in `folder`; returns their paths."""
    strays = sorted(folder.glob(f".*{TEMPORARY_SUFFIX}"))
    for stray in strays:
        stray.unlink(missing_ok=True)
    return strays


def list_foreign(folder: Path) -> list[str]:
    """List the names in a folder besides those that a command leaves which is killed at its start.

    Those are its lock and its temporary files: a folder with nothing else in it is as good as an empty one.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if name != LOCK_NAME and not fnmatch(name, f".*{TEMPORARY_SUFFIX}")]


def compute_sha256(path: Path) -> str:
    """Compute the sha256 of a file, in hexadecimal digits. Raises OSError for what is no plain file."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk (fsync)."""
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
_TAKEN = (errno.EAGAIN, errno.EACCES)  # another process holds the lock; POSIX lets a system choose between the two
_LARGEST_RECORD = 4096  # bytes of a lock file that are read


class FolderLock:
    """A lock on a folder. It lasts until it is released or garbage-collected, or until the process ends."""

    def __init__(self, handle: int) -> None:
        """Keep the handle of a lock file that is locked."""
        self.release: weakref.finalize[[int, int], FolderLock] = weakref.finalize(self, _release, handle, os.getpid())


_HELD: weakref.WeakValueDictionary[tuple[int, int, int], FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path, say: Callable[[str], None], *, doing: str = "trained") -> FolderLock | None:
    """Reserve a folder for this process.

    A process that has the folder already gets the same lock again.

    Args:
        folder: The folder.
        say: Is called with a warning where the system or the disk has no locks.
        doing: What the process does with the folder, for messages, such as "trained".

    Returns:
        The lock, to be kept for as long as the folder is written; None where there are no locks.

    Raises:
        UserError: If another process has the folder, or if the lock file cannot be made.
    """
    if fcntl is None:
        say(f"{folder} is not locked: this system has no POSIX locks; make sure that no other process writes to it")
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
        say(f"{folder} is not locked: its disk refuses locks ({reason}); make sure that no other process writes to it")
        return None
    lock = FolderLock(handle)
    _HELD[_identify(path)] = lock
    _write_holder(handle)
    return lock


def _identify(path: Path) -> tuple[int, int, int]:
    """Identify this process and the file at `path` by numbers; (-1, -1) stands for a file that does not exist."""
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
    """Write who holds the lock. A full disk may refuse that; the lock is valid all the same."""
    record = {"pid": os.getpid(), "machine": _identify_machine(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)


def _identify_machine() -> str:
    """Return a digest of the host name. The name itself would stay in the folder after a kill, and be passed on."""
    return hashlib.sha256(socket.gethostname().encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _describe_holder(handle: int) -> str:
    try:
        record = json.loads(os.pread(handle, _LARGEST_RECORD, 0))
        here = "this machine" if record["machine"] == _identify_machine() else "another machine"
        return f"process {int(record['pid'])} on {here}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"


def _release(handle: int, owner: int) -> None:
    """Empty the lock file and release the lock.

    A forked child releases nothing, because the lock is not its own.
    """
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
def stop_signals_raised(
    message: str = "stopped; what is finished is kept: go on with the same command",
) -> Generator[None]:
    """Raise RunInterrupted for Ctrl-C and SIGTERM inside, once: the cleanup after it is not interrupted again.

    Args:
        message: What the user is told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def _raise(number: int, _: object) -> NoReturn:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        raise RunInterrupted(message, code)

    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_signals_blocked() -> Generator[None]:
    """Block Ctrl-C and SIGTERM until the body has ended.

    Processes that the body starts inherit this block. Without it, a signal could end them before they have set their
    own handlers.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(number: signal.Signals) -> None:
    """Ask Linux for a signal to this process as soon as its parent ends; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def leave_signals_to_parent() -> None:
    """Make a worker process ignore Ctrl-C and SIGTERM, which its parent handles.

    Both reach all processes of a run alike. On Linux the worker also ends when its parent ends: otherwise a worker that
    hangs would outlive a parent that was killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    end_with_parent(signal.SIGKILL)
    if sys.platform == "linux":
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:
            os._exit(1)  # the parent ended before the line above


def check_writable(root: Path, where: str, *, remedy: str = "choose another folder") -> None:
    """Check that files can be made in a folder, or in the nearest folder above it that exists.

    Args:
        root: The folder. Nothing is left in it.
        where: What messages call it, such as a config key.
        remedy: What the message advises besides freeing space.

    Raises:
        UserError: If no file can be made there.
    """
    try:
        there = next(
            folder for folder in (root, *root.absolute().parents) if folder.exists()
        )  # raises for a name that is too long
        probe = there / f".writable.{os.getpid()}{TEMPORARY_SUFFIX}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError.about(
            where,
            f"cannot be written ({error.strerror or error})",
            remedy=f"make the folder writable, free space, or {remedy}",
        ) from None


def make_new_folder(base: Path) -> Path:
    """Make the folder `base`, or the first of `base_2`, `base_3` and so on that does not exist.

    `mkdir` decides between two processes that want the same name. Raises UserError where the disk refuses.
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
