"""A private folder for uploaded files that does not outlive its process: the next start removes what a crash left.

TEMPORARY/sharpstudent-app-UID/SESSION/uploads/   files while they are judged
TEMPORARY/sharpstudent-app-UID/SESSION/answers/   the last answers, until the process ends
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import LOCK_NAME, disk_errors_as_user_errors, lock_folder, make_folder

MOST_ANSWERS = 20  # that are kept: the oldest one goes
STARTING_SECONDS = 60.0  # a folder without a lock that is younger may be of a process that is starting


def find_base() -> Path:
    """Find the folder of all sessions of this user."""
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"sharpstudent-app-{owner}"


class UploadFolder:
    """The folder of one process, locked while it runs."""

    def __init__(self) -> None:
        """Remove what dead processes left, and make a folder of its own.

        Raises:
            UserError: If the folder of all sessions belongs to somebody else, or is no folder.
        """
        base = find_base()
        with disk_errors_as_user_errors(base):
            base.mkdir(mode=0o700, exist_ok=True)
        about = base.lstat()
        if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
            raise UserError.about(
                str(base), "is no folder of this user", remedy="name another temporary folder in TMPDIR"
            )
        base.chmod(0o700)
        self.removed = _remove_dead(base)
        with disk_errors_as_user_errors(base):
            self.path = Path(tempfile.mkdtemp(prefix="session-", dir=base))
        self._lock = lock_folder(self.path, lambda line: None, doing="served")
        self.answers, self._uploads = self.path / "answers", self.path / "uploads"
        make_folder(self.answers)
        make_folder(self._uploads)
        self._kept: deque[Path] = deque()

    @contextlib.contextmanager
    def hold_upload(self) -> Generator[Path]:
        """Give an empty folder for one upload, and delete it with all that is in it afterwards."""
        with disk_errors_as_user_errors(self._uploads):
            folder = Path(tempfile.mkdtemp(dir=self._uploads))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def keep(self, answer: Path) -> None:
        """Count an answer among those that are kept; the oldest one is deleted."""
        self._kept.append(answer)
        if len(self._kept) > MOST_ANSWERS:
            shutil.rmtree(self._kept.popleft())

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path)
        if self._lock is not None:
            self._lock.release()


def _remove_dead(base: Path) -> int:
    """Remove the folders of processes that have ended without doing so; return how many."""
    removed = 0
    for folder in base.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        is_young = time.time() - folder.stat().st_mtime < STARTING_SECONDS
        if not (folder / LOCK_NAME).exists() and is_young:
            continue
        try:
            lock = lock_folder(folder, lambda line: None, doing="served")
        except UserError:
            continue  # its process runs
        if lock is not None:
            shutil.rmtree(folder)
            lock.release()
            removed += 1
    return removed
