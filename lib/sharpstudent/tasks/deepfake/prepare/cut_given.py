"""Read what comes with a frame on disk: the picture, within limits, and the landmarks and boxes that others found."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sharpstudent.data.dataset import UnreadableItem
from sharpstudent.modalities.faces.crop import compute_iou, compute_landmark_box
from sharpstudent.tasks.deepfake.sources.face import read_picture

# A photo of a medium-format camera has 102 million pixels; measured, a process then takes 1.2 GB at most to look for
# faces in it (0.1 GB for ordinary photos).
LARGEST_PICTURE = 120_000_000  # [px]
LARGEST_FILE = 500_000_000  # bytes; an uncompressed picture of LARGEST_PICTURE has 360 million
LARGEST_ARRAY_FILE = 1_000_000  # bytes; the 81 points of 300 faces
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
LARGEST_POSITION = 1e6  # px
FARTHEST = 0.5  # how far outside a point may lie, of the picture's longer side


def read_limited_picture(path: Path) -> NDArray[np.uint8]:
    """As `read_picture`; the header is read first, so that a picture too large is refused before it takes memory.

    Raises UnreadableItem.
    """
    _check_file(path, LARGEST_FILE)
    width, height = _read_size(path)
    if width * height > LARGEST_PICTURE:
        limit = f"more than the {LARGEST_PICTURE / 1e6:.0f} megapixels that are read"
        raise UnreadableItem(str(path), f"is {width} x {height} px, {limit}")
    return read_picture(path)


def read_landmarks(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """The landmarks of every face in a picture of height x width pixels: float32 (faces, 68 or 81, 2).

    Raises UnreadableItem for another shape, for what is no number, and for points far outside the picture.
    """
    found = _read_array(path)
    faces = found[None] if found.ndim == 2 else found
    if faces.ndim != 3 or len(faces) == 0 or faces.shape[1:] not in ((68, 2), (81, 2)):
        expected = "(points, 2) or (faces, points, 2) with 68 or 81 points"
        raise UnreadableItem(str(path), f"expected landmarks of shape {expected}, got {found.shape}")
    points = _check_finite(path, faces)
    reach = FARTHEST * max(height, width)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    if (low < -reach).any() or (high > np.array([width, height]) + reach).any():
        raise UnreadableItem(
            str(path),
            f"has points far outside the picture of {width} x {height} px (x {low[0]:.4g} to {high[0]:.4g}, "
            f"y {low[1]:.4g} to {high[1]:.4g})",
        )
    return points.astype(np.float32)


def read_boxes(path: Path) -> NDArray[np.float32]:
    """Detector boxes, float32 (faces, 4): the first two of the seven points of each face. Raises UnreadableItem."""
    found = _read_array(path)
    if found.ndim != 3 or found.shape[1:] != (7, 2):
        raise UnreadableItem(str(path), f"expected boxes of shape (faces, 7, 2), got {found.shape}")
    corners = _check_finite(path, found)[:, :2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def match_box(landmarks: NDArray[np.float32], boxes: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The box that overlaps the landmarks' own best, float32 (4,); their own where none does."""
    own = compute_landmark_box(landmarks[:68])
    overlaps = [] if boxes is None else [compute_iou(box, own) for box in boxes]
    return own if boxes is None or max(overlaps, default=0.0) == 0 else boxes[int(np.argmax(overlaps))]


def _check_file(path: Path, largest: int) -> None:
    """Opening a pipe would wait for ever, so what is no plain file is refused before."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise UnreadableItem(str(path), getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableItem(str(path), "is no file")
    if found.st_size == 0:
        raise UnreadableItem(str(path), "is empty (0 bytes)")
    if found.st_size > largest:
        raise UnreadableItem(str(path), f"has {found.st_size:,} bytes, more than the {largest:,} that are read")


def _read_size(path: Path) -> tuple[int, int]:
    """Width and height [px] by the header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures, and of odd headers
            with Image.open(path, formats=FORMATS) as picture:
                return picture.size
    except Image.DecompressionBombError as error:
        raise UnreadableItem(str(path), f"is too large ({error})") from None
    except Exception:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        raise UnreadableItem(str(path), "is no picture, or is cut off") from None


def _read_array(path: Path) -> NDArray[np.generic]:
    _check_file(path, LARGEST_ARRAY_FILE)
    try:
        found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except Exception as error:  # noqa: BLE001 (hostile bytes may raise anything: ValueError, MemoryError, BadZipFile)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnreadableItem(str(path), f"cannot be read as an array ({reason})") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf":
        kind = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise UnreadableItem(str(path), f"expected an array of numbers, got {kind}")
    return found


def _check_finite(path: Path, numbers: NDArray[np.generic]) -> NDArray[np.float64]:
    positions = numbers.astype(np.float64)
    if not (np.abs(positions) < LARGEST_POSITION).all():  # NaN is not below it either
        raise UnreadableItem(str(path), "holds numbers that are no pixel positions (NaN, infinite or above 1e6)")
    return positions
