"""SOURCE of a preparation in object storage, by a folder of this machine that stands for it.

Layouts ask for names and kinds of files and read lists. So the folder has the lists, and for each other file an empty
one of the same size and time. The files of a clip are fetched for its turn, and removed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError, format_count_of
from sharpstudent.core.io import disk_errors_as_user_errors, make_folder
from sharpstudent.core.storage import Storage
from sharpstudent.tasks.deepfake.layouts.clip import FrameFiles, RawClip
from sharpstudent.tasks.deepfake.layouts.listing import TABLE_SUFFIXES

LISTS = (*TABLE_SUFFIXES, ".json", ".txt")  # what layouts read of a source; all else is read clip by clip


@dataclass(frozen=True)
class ClipFolder:
    """The folder for the clips at hand, on the machine that crops them."""

    path: Path

    @contextlib.contextmanager
    def fresh(self) -> Generator[Path]:
        """Make an empty folder for the body, and remove it afterwards; what killed processes left goes before."""
        make_folder(self.path)
        self._sweep()
        with disk_errors_as_user_errors(self.path):
            folder = Path(tempfile.mkdtemp(prefix=f"{platform.node()}.{os.getpid()}.", dir=self.path))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes of this machine left that were killed."""
        for folder in self.path.glob(f"{platform.node()}.*.*"):
            number = folder.name.removeprefix(f"{platform.node()}.").partition(".")[0]
            if number.isdigit() and not _is_running(int(number)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


@dataclass(frozen=True)
class StoredSource:
    """SOURCE in a storage.

    Attributes:
        storage: Its folder there.
        root: The folder of this machine that stands for it.
        clips: For the files of clips at hand.
    """

    storage: Storage
    root: Path
    clips: ClipFolder

    def mirror(self, say: Callable[[str], None]) -> None:
        """Make the folder that stands for SOURCE. Raises UserError where SOURCE holds nothing."""
        files = self.storage.list_files()
        size = sum(one.size for one in files.values())
        say(f"{self.storage.address}: {format_count_of(len(files), 'file')}, {size / 1e6:,.1f} MB")
        if not files:
            remedy = "check the address: a folder of photos, videos or a data set, or a .csv or .tsv table in it"
            raise UserError.about(self.storage.address, "holds no file", remedy=remedy)
        shutil.rmtree(self.root, ignore_errors=True)
        make_folder(self.root)
        lists = [name for name in files if name.lower().endswith(LISTS) and _is_inside(name)]
        self.storage.fetch_all(lists, self.root)
        for name, about in files.items():
            if not _is_inside(name):
                say(f"left out {name!r}: a name that no folder can have")
                continue
            path = self.root / name
            make_folder(path.parent)
            with disk_errors_as_user_errors(path):
                if name not in lists:
                    with open(path, "wb") as file:
                        file.truncate(about.size)  # takes no space on the disk
                os.utime(path, ns=(about.changed_ns, about.changed_ns))

    def list_stored(self, clip: RawClip) -> tuple[str, ...]:
        """List the files of a clip that SOURCE has, by their names below it."""
        paths = [path for path in _list_files(clip) if path.is_file()]
        return tuple(path.relative_to(self.root).as_posix() for path in paths)

    @contextlib.contextmanager
    def at_hand(self, clip: RawClip, stored: tuple[str, ...]) -> Generator[tuple[RawClip, Path]]:
        """Fetch the files of a clip for the body, and remove them afterwards.

        Args:
            clip: The clip.
            stored: Its files, as `list_stored` gives them.

        Yields:
            The clip with its files where they were fetched, and the folder that stands for SOURCE there.

        Raises:
            UserError: Where the storage or the disk refuses.
        """
        with self.clips.fresh() as folder:
            self.storage.fetch_all(stored, folder)
            yield _move(clip, self.root, folder), folder


def _list_files(clip: RawClip) -> list[Path]:
    frames = [(frame.picture, frame.landmarks, frame.boxes, frame.mask) for frame in clip.frames]
    return [path for path in (clip.file, clip.mask, *(one for files in frames for one in files)) if path is not None]


def _move(clip: RawClip, before: Path, after: Path) -> RawClip:
    """Name the files of a clip below another folder."""

    def move(path: Path | None) -> Any:
        return None if path is None else after / path.relative_to(before)

    frames = tuple(
        FrameFiles(one.index, move(one.picture), move(one.landmarks), move(one.boxes), move(one.mask))
        for one in clip.frames
    )
    return replace(clip, file=move(clip.file), mask=move(clip.mask), frames=frames)


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and "\0" not in name and all(len(os.fsencode(one)) < 256 for one in parts)


@contextlib.contextmanager
def naming(source: StoredSource) -> Generator[None]:
    """Name SOURCE by its address in the errors of the body, not by the folder that stands for it."""

    def name(text: str | None) -> Any:
        return None if text is None else text.replace(str(source.root), source.storage.address)

    try:
        yield
    except UserError as error:
        problems = [
            Problem(name(one.where), name(one.what), name(one.expected), name(one.got), name(one.remedy))
            for one in error.problems
        ]
        raise UserError(*problems) from None
