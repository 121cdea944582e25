"""The record that every source gives, and the reading of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class LoadedFace:
    """A picture and where the face is in it.

    image: uint8 (H, W, 3) RGB; landmarks: (68 or 81, 2) pixels or None where the picture is a face crop already;
    boxes: (n, 4) detector boxes, or None.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.generic] | None = None
    boxes: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Face:
    """One face by reference: name (its path), clip_id, identity (person), label (real 0, fake 1), and how to load
    it.
    """

    name: str
    clip_id: str
    identity: str
    label: int
    load: Callable[[], LoadedFace]


@dataclass(frozen=True)
class FaceSplits:
    """What a source found: training and validation faces, and lines that say what was taken and what was left out.

    depends_on: files that decide what the faces are, beside the pictures themselves.
    """

    train: Sequence[Face]
    validation: Sequence[Face]
    notes: tuple[str, ...]
    depends_on: tuple[Path, ...] = ()


def check_disjoint(where: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    """Raise UserError that names the people or clips who stand in both splits: validation would be a test of memory."""
    shared = sorted(set(train) & set(validation))
    if shared:
        raise UserError.about(
            where=str(where),
            what=f"{len(shared)} people or clips stand in training and in validation",
            got=", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""),
            remedy="give each of them one split; --allow shared-people trains all the same",
        )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An RGB picture, uint8 (H, W, 3). Raises UnreadableSample when the file is missing, empty or no picture."""
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableSample(str(path), error.strerror or str(error)) from None
    return decode_picture(raw, str(path))


def decode_picture(content: NDArray[np.uint8], name: str, remark: str = "") -> NDArray[np.uint8]:
    """Pixels, uint8 (H, W, 3) RGB, of a picture file's bytes. Raises UnreadableSample with its name and the remark."""
    if content.size == 0:
        raise UnreadableSample(name, f"is empty (0 bytes){remark}")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # a header that claims more pixels than OpenCV allows
        raise UnreadableSample(name, f"cannot be decoded ({error.err}){remark}") from None
    if image is None:
        raise UnreadableSample(name, f"is no picture, or is cut off{remark}")
    return np.asarray(image, np.uint8)


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
