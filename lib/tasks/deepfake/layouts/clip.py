"""What every layout gives: clips by reference, and what it left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["video", "photo", "frames", "crops"]
Split = Literal["train", "val", "test"]


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
