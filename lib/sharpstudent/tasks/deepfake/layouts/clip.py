"""Defines the result of every layout: clips by reference, and what was left out.

`ClipCollector` gathers both while a layout reads a folder.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.naming import printable
from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, list_media
from sharpstudent.tasks.deepfake.layouts.names import Split, build_keys, fold

Kind = Literal["video", "photo", "frames", "crops"]
SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class FrameFiles:
    """One frame on disk.

    Attributes:
        index: Its number in the video.
        picture: The picture's file.
        landmarks: A .npy file of one face (points, 2) or of several (faces, points, 2), with 68 or 81 points in dlib
            order [px of the picture]; None where there is none.
        boxes: A .npy file (faces, 7, 2) of two box corners and five points each [px of the picture]; None where there
            is none.
        mask: A picture of the manipulated region; None where there is none.
    """

    index: int
    picture: Path
    landmarks: Path | None = None
    boxes: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class RawClip:
    """One video, one photo, or the frames of one video.

    Attributes:
        key: Its name, unique in its source, such as "original_sequences/youtube/c23/videos/071": parts with '/' between
            them, no suffix. It names the clip's crops and is its clip_id.
        kind: "video", "photo", "frames" (whole pictures) or "crops" (pictures of one face each).
        label: Real 0, fake 1.
        identities: The people in it, first the one whose face is seen. A clip of unknown people has one name of its
            own.
        file: The video or photo; None where `frames` are given.
        frames: The frames, for the kinds "frames" and "crops".
        split: What the data set's own lists say; None where they say nothing.
        source_set: The data set's name, such as "FaceForensics++".
        manipulation: The method that made the fake, "" for a real clip.
        compression: The data set's name of it, such as "c23", "" where there is no such thing.
        film: The clip that a picture of a folder is a frame of, as a path; "" where the picture is a clip of its own.
        mask: A video of the manipulated region, bright on black, with the same frames as `file`; None where there is
            none.
        columns: Further columns of the user's table, such as sex, each with its value.
    """

    key: str
    kind: Kind
    label: int
    identities: tuple[str, ...]
    file: Path | None = None
    frames: tuple[FrameFiles, ...] = ()
    split: Split | None = None
    source_set: str = ""
    manipulation: str = ""
    compression: str = ""
    film: str = ""
    mask: Path | None = None
    columns: tuple[tuple[str, str], ...] = ()

    def read_film(self, root: Path) -> str:
        """Return the film that the picture's name gives; "" where the film is only the folder that it lies in.

        A folder is a person's as often as a film's, and only the user knows.
        """
        is_folder = self.file is not None and self.film == self.file.parent.relative_to(root).as_posix()
        return "" if is_folder else self.film


USED = "used, "  # how the remark on a frame that is used begins


@dataclass(frozen=True)
class Rejected:
    """A file, frame or entry that cannot be used, with the reason; or one that is used with a remark.

    Attributes:
        source: The file (or clip) as the user knows it.
        reason: Why it cannot be used; a remark begins with USED.
        frame: Its number in the video; None for a whole file.
    """

    source: str
    reason: str
    frame: int | None = None

    @property
    def is_used(self) -> bool:
        """Whether it is used all the same."""
        return self.reason.startswith(USED)


@dataclass(frozen=True)
class Found:
    """What a layout found below a root.

    Attributes:
        clips: The clips in the order of their keys.
        rejected: What was left out, each file once.
        notes: Lines for the user, such as which list of the data set is missing.
        says_labels: Whether folders, a table or the user say what is real; else all is taken for real.
        root: The folder that all files lie below.
        known: Files that were read as lists, and those that the layout knows and has no use for, such as masks.
        order: The files of a user's own folder or table in their own order; () for a data set.
    """

    clips: tuple[RawClip, ...]
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = field(default=())
    says_labels: bool = True
    root: Path = Path()
    known: tuple[Path, ...] = ()
    order: tuple[Path, ...] = ()

    def list_in_order(self) -> list[tuple[RawClip, Path]]:
        """List the clips that are files, each with its file, in the order of the folder or table."""
        place = {file: number for number, file in enumerate(self.order)}
        files = [(clip, clip.file) for clip in self.clips if clip.file is not None]
        return sorted(files, key=lambda pair: place.get(pair[1], 0))

    @contextlib.contextmanager
    def told(self) -> Generator[None]:
        """Add what was left out to a UserError that is raised inside: it may be why something is missing."""
        try:
            yield
        except UserError as error:
            lines = self.describe_rejected()
            if not lines:
                raise
            what = f"{len(self.rejected):,} files were left out"
            problem = Problem(str(self.root), what, got="\n".join(lines[:SHOWN]), remedy="correct these first")
            raise UserError(*error.problems, problem) from None

    def with_notes(self, *notes: str) -> Found:
        """Return the same with further notes."""
        return replace(self, notes=(*self.notes, *map(printable, notes)))

    def with_rejected(self, *rejected: Rejected) -> Found:
        """Return the same with more left out."""
        return replace(self, rejected=(*self.rejected, *rejected))

    def describe_rejected(self) -> list[str]:
        """Return a line for each reason why files were left out, with the first few names."""
        reasons: dict[str, list[str]] = {}
        for one in self.rejected:
            reasons.setdefault(_NUMBER.sub("N", one.reason), []).append(one.source)
        first = {_NUMBER.sub("N", one.reason): one.reason for one in reversed(self.rejected)}
        return [
            f"left out {f'{len(names):,} x ' if len(names) > 1 else ''}{', '.join(names[:SHOWN])}"
            f"{', ...' if len(names) > SHOWN else ''}: {first[key]}"
            for key, names in reasons.items()
        ]


SHOWN = 3  # names of files in a line
_NUMBER = re.compile(r"\d[\d.,]*")


class ClipCollector:
    """Collects clips, what was left out, and notes; each thing left out is kept once.

    Attributes:
        root: The folder that the layout reads.
    """

    def __init__(self, root: Path, source_set: str) -> None:
        self.root = root
        self._source_set = source_set
        self._clips: list[RawClip] = []
        self._rejected: dict[str, Rejected] = {}
        self._notes: list[str] = []
        self._nameless: Counter[str] = Counter()
        self._known: list[Path] = []

    def add(self, clip: RawClip) -> None:
        """Add a clip."""
        self._clips.append(clip)

    def add_file(
        self, file: Path, *, people: tuple[str, ...] | None, key: str | None = None, kind: Kind = "video", **fields: Any
    ) -> None:
        """Add a clip that is one file.

        Args:
            file: The video or photo.
            people: The people in it; None where they are unknown, and the clip stands for itself.
            key: Its key; None for the path below the root.
            kind: "video" or "photo".
            **fields: The label and other fields of `RawClip`.
        """
        name = build_keys(self.root, [file])[0] if key is None else key
        self.add(RawClip(name, kind, identities=people or (name,), file=file, source_set=self._source_set, **fields))

    def list_videos(self, *folders: Path) -> list[Path]:
        """Return the videos that lie directly in these folders; what cannot be used there is rejected."""
        return [file for folder in folders for file in list_media(folder, VIDEO_SUFFIXES, self.reject)]

    def reject(self, source: str, reason: str) -> None:
        """Record something that was left out.

        Args:
            source: The file or entry as the user knows it.
            reason: Why it was left out.
        """
        source = printable(source)
        self._rejected.setdefault(source, Rejected(source, printable(reason)))

    def know(self, *paths: Path) -> None:
        """Record lists that are read, and files (or folders of files) that the layout knows and has no use for."""
        self._known += [path for path in paths if path not in self._known]

    def note(self, text: str) -> None:
        """Record a line for the user; the same line is kept once."""
        if printable(text) not in self._notes:
            self._notes.append(printable(text))

    def note_unknown_people(self, folder: str, form: str) -> None:
        """Count a file whose name does not say who is seen; `close` makes one note of all of them.

        Args:
            folder: The folder of the file.
            form: How a name that says it looks.
        """
        self._nameless[f"{folder} are not named like {form}: each stands for a person of its own"] += 1

    def close(self, *, says_labels: bool = True) -> Found:
        """Return the clips in the order of their keys, no two of which are equal even where case is ignored.

        says_labels: whether anything says what is real and what is fake.
        """
        taken: set[str] = set()
        clips: list[RawClip] = []
        for clip in sorted(self._clips, key=lambda clip: (clip.key, str(clip.file))):
            key, number = clip.key, 2
            while fold(key) in taken:
                key, number = f"{clip.key}~{number}", number + 1
            taken.add(fold(key))
            clips.append(clip if key == clip.key else replace(clip, key=key))
        notes = [*self._notes, *(f"{count} files of {text}" for text, count in self._nameless.items())]
        rejected = tuple(self._rejected.values())
        return Found(tuple(clips), rejected, tuple(notes), says_labels, self.root, tuple(self._known))
