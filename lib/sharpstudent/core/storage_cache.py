"""A folder of this machine that keeps files of a storage, verified and within a bound.

    FOLDER/SHA256.SUFFIX          a whole file, under its digest
    FOLDER/.SHA256.SIZE.partial   one that is being fetched; it counts with its whole size from the beginning
    FOLDER/.locks/                a lock for each of them, and one for the folder

Processes and ranks share the folder. Under a file's lock one of them fetches it; under the folder's lock room is made
and counted. The kernel releases both with their process, so a partial file without a holder is what a kill left.

The file that was used longest ago goes first. One that was used a moment ago stays: training reads samples in random
order, so where a set exceeds the bound, to remove one of its files for another would fetch hundreds of megabytes for
each sample. What has no room is read from the storage piece by piece.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import TEMPORARY_SUFFIX, disk_errors_as_user_errors, make_folder
from sharpstudent.core.storage import Storage, verify_fetched

IN_USE_SECONDS = 600.0  # a file that was used within this time is not removed for another
AGAIN_SECONDS = 60.0  # a process that found no room does not look again before: to look takes the lock of all
SPARE_BYTES = 2**28  # that are left free on the disk for others
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Names of files that this cache makes. Whatever else lies in the folder is its user's, and is never removed.
_OURS = re.compile(rf"[0-9a-f]{{64}}(\.[^.]*)?|\.[0-9a-f]{{64}}\.[0-9]+{re.escape(TEMPORARY_SUFFIX)}")


@dataclass(frozen=True)
class Kept:
    """A file of a storage as a set's list of contents names it.

    Attributes:
        size: Its size [bytes].
        sha256: Its digest, in hexadecimal digits.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class StorageCache:
    """The folder. It holds plain values only, so that a forked or pickled copy is as good.

    Attributes:
        folder: Where the files lie.
        most_bytes: How many bytes they may have together.
    """

    folder: Path
    most_bytes: int
    _refused: list[float] = field(default_factory=list[float], init=False, repr=False, compare=False)  # when, what size

    def find(self, storage: Storage, name: str, kept: Kept) -> Path | None:
        """Find a file here, or fetch it whole.

        Args:
            storage: Where it comes from.
            name: Its name there.
            kept: Its size and digest.

        Returns:
            Its path here, where it may be removed at any time, but not while it is open; None where it has no room.

        Raises:
            UserError: If the storage refuses, the file is not what it should be, or the disk refuses for another reason
                than that it is full.
        """
        path = self._place(name, kept)
        if self.use(name, kept):
            return path
        if self._refused and time.monotonic() < self._refused[0] + AGAIN_SECONDS and kept.size >= self._refused[1]:
            return None
        make_folder(self.folder / ".locks")
        with self._lock(kept.sha256):
            if self.use(name, kept):
                return path
            partial = self.folder / f".{kept.sha256}.{kept.size}{TEMPORARY_SUFFIX}"
            try:
                partial.unlink(missing_ok=True)  # a kill left it
                with self._lock("room"):
                    if not self._make_room(kept.size):
                        self._refused[:] = time.monotonic(), float(kept.size)
                        return None
                    partial.touch()
                self._fetch(storage, name, kept, partial)
                os.replace(partial, path)
            except OSError as error:
                if error.errno in _FULL:
                    return None
                with disk_errors_as_user_errors(path):
                    raise
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink()
        return path

    def use(self, name: str, kept: Kept) -> bool:
        """Note that a file is used now, so that it stays.

        Args:
            name: Its name in the storage.
            kept: Its size and digest.

        Returns:
            False where it is not here.
        """
        path = self._place(name, kept)
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the time of change stays
        except FileNotFoundError:
            return False
        except OSError:
            return path.is_file()  # a folder of another user: what is there serves, and goes sooner than it might
        return True

    def forget(self, name: str, kept: Kept) -> None:
        """Remove a file whose bytes are not as they were fetched.

        Args:
            name: Its name in the storage.
            kept: Its size and digest.
        """
        with contextlib.suppress(OSError):
            self._place(name, kept).unlink()

    def measure(self) -> tuple[int, int]:
        """Count the bytes that the files have here, and those that are free on the disk."""
        make_folder(self.folder)
        return sum(size for _, size, _ in self._list()), shutil.disk_usage(self.folder).free

    def _place(self, name: str, kept: Kept) -> Path:
        return self.folder / f"{kept.sha256}{PurePosixPath(name).suffix}"

    def _fetch(self, storage: Storage, name: str, kept: Kept, partial: Path) -> None:
        """Fetch a file whole; raises OSError where this disk is full."""
        try:
            storage.fetch(name, partial)
        except UserError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                raise error.__cause__ from None
            raise
        verify_fetched(partial, kept.sha256, f"{storage.address}/{name}")

    def _make_room(self, size: int) -> bool:
        """Remove what was used longest ago until `size` more bytes have room; return whether they have."""
        found = sorted(self._list())
        used, newest = sum(one for _, one, _ in found), time.time() - IN_USE_SECONDS
        for last_used, one, path in found:
            if self._fits(used + size) and self._has_disk(size):
                break
            if path.name.startswith(".") or last_used > newest:
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                used -= one
        return self._fits(used + size) and self._has_disk(size)

    def _fits(self, total: int) -> bool:
        return total <= self.most_bytes

    def _has_disk(self, size: int) -> bool:
        return shutil.disk_usage(self.folder).free >= size + SPARE_BYTES

    def _list(self) -> Iterator[tuple[float, int, Path]]:
        """List the files by when they were used [s], with their sizes [bytes], after removing what kills left."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process removes files, too
                    if _OURS.fullmatch(entry.name) is None or not entry.is_file(follow_symlinks=False):
                        continue
                    about, size = entry.stat(follow_symlinks=False), 0
                    if entry.name.endswith(TEMPORARY_SUFFIX):
                        if self._is_left_behind(Path(entry.path)):
                            continue
                        size = int(entry.name.split(".")[2])
                    yield about.st_atime, max(size, about.st_size), Path(entry.path)

    def _is_left_behind(self, partial: Path) -> bool:
        """Remove a partial file of a process that was killed; return whether it was one."""
        with contextlib.suppress(Timeout), self._lock(partial.name.split(".")[1], seconds=0.0):
            partial.unlink(missing_ok=True)
            return True
        return False

    def _lock(self, name: str, *, seconds: float = -1.0) -> FileLock:
        """Return a lock, for a `with`; seconds: how long is waited for it, without end where negative."""
        make_folder(self.folder / ".locks")
        return FileLock(self.folder / ".locks" / name, timeout=seconds)
