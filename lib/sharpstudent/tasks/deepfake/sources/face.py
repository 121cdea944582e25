"""Defines the record that every source gives, and reads pictures.

Legend: H, W height and width of a picture [px].
"""

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

    Attributes:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) in dlib order [px of image]; None where the picture is a face crop without any.
        boxes: (n, 4) detector boxes left, top, right, bottom [px of image], the face's own first; None where there are
            none.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.generic] | None = None
    boxes: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Face:
    """One face by reference.

    Attributes:
        name: The path of the picture, or another name that the user knows.
        clip_id: The video or photo that it is from.
        identity: The person.
        label: Real 0, fake 1.
        load: Reads the picture. Raises UnreadableSample where it cannot.
    """

    name: str
    clip_id: str
    identity: str
    label: int
    load: Callable[[], LoadedFace]


@dataclass(frozen=True)
class FaceSplits:
    """What a source found.

    Attributes:
        train: Training faces.
        validation: Validation faces.
        notes: Lines that say what was taken and what was left out.
        depends_on: Files that decide what the faces are, beside the pictures themselves.
    """

    train: Sequence[Face]
    validation: Sequence[Face]
    notes: tuple[str, ...]
    depends_on: tuple[Path, ...] = ()


def check_disjoint(where: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    """Check that nobody is in both splits: validation would reward a model that has memorised people.

    Args:
        where: What the message names, such as the folder.
        train: People or clips in training.
        validation: People or clips in validation.

    Raises:
        UserError: If the two share any; the message names them.
    """
    shared = sorted(set(train) & set(validation))
    if shared:
        raise UserError.about(
            where=str(where),
            what=f"{len(shared)} people or clips stand in training and in validation",
            got=", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""),
            remedy="give each of them one split; --allow shared-people trains all the same",
        )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read an RGB picture, uint8 (H, W, 3). Raises UnreadableSample when it is missing, empty or no picture."""
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableSample(str(path), error.strerror or str(error)) from None
    return decode_picture(raw, str(path))


def decode_picture(content: NDArray[np.uint8], name: str, remark: str = "") -> NDArray[np.uint8]:
    """Decode the bytes of a picture file.

    Args:
        content: uint8 (n,), the bytes.
        name: What the user calls the picture, for messages.
        remark: Added to the messages.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        UnreadableSample: If the bytes are no whole picture.
    """
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
    """List all pictures below a folder, sorted by path; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
