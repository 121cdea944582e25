"""Defines the result of every layout: clips by reference, and what was left out.

`ClipCollector` gathers both while a layout reads a folder.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, list_media, show_name
from sharpstudent.tasks.deepfake.layouts.names import build_keys, fold

Kind = Literal["video", "photo", "frames", "crops"]
Split = Literal["train", "val", "test"]
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


@dataclass(frozen=True)
class Rejected:
    """A file, frame or entry that cannot be used, with the reason.

    Attributes:
        source: The file (or clip) as the user knows it.
        reason: Why it cannot be used.
        frame: Its number in the video; None for a whole file.
    """

    source: str
    reason: str
    frame: int | None = None


@dataclass(frozen=True)
class Found:
    """What a layout found below a root.

    Attributes:
        clips: The clips in the order of their keys.
        rejected: What was left out, each file once.
        notes: Lines for the user, such as which list of the data set is missing.
    """

    clips: tuple[RawClip, ...]
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = field(default=())


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
        source = show_name(source)
        self._rejected.setdefault(source, Rejected(source, show_name(reason)))

    def note(self, text: str) -> None:
        """Record a line for the user; the same line is kept once."""
        if show_name(text) not in self._notes:
            self._notes.append(show_name(text))

    def note_unknown_people(self, folder: str, form: str) -> None:
        """Count a file whose name does not say who is seen; `close` makes one note of all of them.

        Args:
            folder: The folder of the file.
            form: How a name that says it looks.
        """
        self._nameless[f"{folder} are not named like {form}: each stands for a person of its own"] += 1

    def close(self) -> Found:
        """Return the clips in the order of their keys, no two of which are equal even where case is ignored."""
        taken: set[str] = set()
        clips: list[RawClip] = []
        for clip in sorted(self._clips, key=lambda clip: (clip.key, str(clip.file))):
            key, number = clip.key, 2
            while fold(key) in taken:
                key, number = f"{clip.key}~{number}", number + 1
            taken.add(fold(key))
            clips.append(clip if key == clip.key else replace(clip, key=key))
        notes = [*self._notes, *(f"{count} files of {text}" for text, count in self._nameless.items())]
        return Found(tuple(clips), tuple(self._rejected.values()), tuple(notes))
