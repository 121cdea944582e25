"""One process a folder: a lock that the kernel takes back when its holder ends, however it ends.

It is a POSIX record lock (`fcntl.lockf`), not `flock`: a `flock` belongs to the open file, which forked children share,
so that a loader process that outlives a killed trainer by seconds would go on holding it. A record lock belongs to
the process that took it, is not inherited by fork, and is known to NFS servers. Its one trap is that closing ANY handle
of the file in that process gives it up; so a process opens each lock file once only (`_HELD`).

The file `.lock` stays, empty: deleting it would let two processes lock two files of that name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lib.errors import Problem, UserError

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
        raise UserError(
            Problem(
                str(path),
                f"could not be written ({error.strerror or error})",
                remedy="make the folder writable, or free space on its disk",
            )
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
