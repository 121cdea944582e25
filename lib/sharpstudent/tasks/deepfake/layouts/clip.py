"""What every layout gives: clips by reference, and what it left out; and what it has found while it looks."""

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
    """One frame on disk: its number in the video, the picture, and what others have found in it.

    landmarks: .npy of one face (points, 2) or of several (faces, points, 2), points 68 or 81, dlib order, in the
    picture's pixels; boxes: .npy (faces, 7, 2), two box corners and five points; mask: picture of the manipulated
    region.
    """

    index: int
    picture: Path
    landmarks: Path | None = None
    boxes: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class RawClip:
    """One video, one photo, or one video's frames.

    key: unique in its source, such as "original_sequences/youtube/c23/videos/071"; '/' between parts, no suffix; it
    names the clip's crops and is its clip_id. kind: `frames` are whole pictures, `crops` are faces cut already.
    files: the video or photo, or none where `frames` are given. identities: the people in it, first the one whose face
    is seen; a clip of unknown people has one name of its own. split: what the data set's own lists say, else None.
    source_set: the data set's name, such as "FaceForensics++"; manipulation: "" for a real one; compression: "" where
    there is no such thing.
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
    """Something that gives no face, with the reason. source: the file (or clip) as the user knows it; frame: its
    number in the video, None for a whole file.
    """

    source: str
    reason: str
    frame: int | None = None


@dataclass(frozen=True)
class Found:
    """What a layout found below a root. notes: lines for the user, such as what of the form was missing."""

    clips: tuple[RawClip, ...]
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = field(default=())


class Gathering:
    """Collects clips, what was left out, and notes; a thing left out twice is told once."""

    def __init__(self, root: Path, source_set: str) -> None:
        self.root = root
        self._source_set = source_set
        self._clips: list[RawClip] = []
        self._rejected: dict[str, Rejected] = {}
        self._notes: list[str] = []
        self._nameless: Counter[str] = Counter()

    def add(self, clip: RawClip) -> None:
        self._clips.append(clip)

    def add_file(
        self, file: Path, *, people: tuple[str, ...] | None, key: str | None = None, kind: Kind = "video", **fields: Any
    ) -> None:
        """Add a clip that is one file.

        people None: unknown, the clip stands for itself. key: where it is not the path below the root; fields: the
        label and the others of `RawClip`.
        """
        name = build_keys(self.root, [file])[0] if key is None else key
        self.add(RawClip(name, kind, identities=people or (name,), file=file, source_set=self._source_set, **fields))

    def list_videos(self, *folders: Path) -> list[Path]:
        """The videos that lie directly in these folders; what cannot be used there is rejected."""
        return [file for folder in folders for file in list_media(folder, VIDEO_SUFFIXES, self.reject)]

    def reject(self, source: str, reason: str) -> None:
        source = show_name(source)
        self._rejected.setdefault(source, Rejected(source, show_name(reason)))

    def note(self, text: str) -> None:
        if show_name(text) not in self._notes:
            self._notes.append(show_name(text))

    def note_unknown_people(self, folder: str, form: str) -> None:
        """Count a file whose name does not tell who is seen; `close` makes one note of them."""
        self._nameless[f"{folder} are not named like {form}: each stands for a person of its own"] += 1

    def close(self) -> Found:
        """Clips in the order of their keys, no two of which are alike even where case is ignored."""
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
