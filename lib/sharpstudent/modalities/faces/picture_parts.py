"""Parts of pictures: where a result is needed, and what of its input that takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV computes columns by vectors of 16, 32 or 64, and those that are left at the end of a row one by one, which may
# round otherwise. So a part is computed such that the pixels in vectors are the same as in the whole picture.
VECTOR = 64  # px
FLOAT_VECTORS = VECTOR // 2  # px, two vectors of coordinates, float32


class Window(NamedTuple):
    """A part of a picture: whole-pixel edges, right and bottom not included [px]."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Return this part of a picture (H, W, ...), a view."""
        return picture[self.top : self.bottom, self.left : self.right]

    def move_into(self, outer: Window) -> Window:
        """Return the same part in the pixels of a window around it."""
        return Window(self.left - outer.left, self.top - outer.top, self.right - outer.left, self.bottom - outer.top)

    def intersect(self, other: Window) -> Window:
        """Return what both share; empty (right <= left or bottom <= top) where they share nothing."""
        return Window(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def grow(self, reach: int, whole: Window, square: int = 1) -> Window:
        """Move the edges out, then out to multiples of a square's side, and clip them to the whole picture."""
        grown = Window(
            (self.left - reach) // square * square,
            (self.top - reach) // square * square,
            -(-(self.right + reach) // square) * square,
            -(-(self.bottom + reach) // square) * square,
        )
        return grown.intersect(whole)

    def fill_vectors(self, whole: Window, known: Window) -> Window:
        """Widen it within a known window so that its columns are in vectors where those of the whole picture are."""
        end = whole.right // VECTOR * VECTOR
        if self.right > end:
            return self._replace(left=self.left // VECTOR * VECTOR, right=whole.right)
        width = -(-(self.right - self.left) // VECTOR) * VECTOR
        left = min(self.left, min(end, known.right) - width)
        return self._replace(left=left, right=left + width)

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is in it."""
        return self.right <= self.left or self.bottom <= self.top


def get_whole(picture: NDArray[Any]) -> Window:
    """Return the window of a whole picture (H, W, ...)."""
    return Window(0, 0, picture.shape[1], picture.shape[0])


@dataclass(frozen=True)
class PicturePart:
    """The pixels of a window of a picture.

    Attributes:
        pixels: uint8 (h, w, 3), those of the window, which may be a mirrored view.
        window: The window.
        whole: The window of the whole picture.
    """

    pixels: NDArray[np.uint8]
    window: Window
    whole: Window

    def cut(self, window: Window) -> NDArray[np.uint8]:
        """Return the pixels of another window within this one, given in the whole picture's pixels: a view."""
        return window.move_into(self.window).cut(self.pixels)


def take_whole(picture: NDArray[np.uint8]) -> PicturePart:
    """Take a whole picture as the part of itself."""
    return PicturePart(picture, get_whole(picture), get_whole(picture))


def flatten_view(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copy a picture whose pixels do not lie in order, such as a mirrored view; return others as they are.

    OpenCV mirrors many times as fast as NumPy copies a mirrored view.
    """
    if picture.strides[1] < 0:
        return np.asarray(cv2.flip(picture[:, ::-1], 1), np.uint8)
    return picture


def find_warp_input(matrix: NDArray[np.float64], window: Window, whole: Window) -> Window:
    """Find the part of a picture on which a part of its warp depends.

    Args:
        matrix: Scales and moves, (2, 3): from the picture to its warp [px].
        window: The part of the warp, not empty.
        whole: The window of the whole picture, which is mirrored beyond its borders.

    Returns:
        The part.
    """
    if not _can_remap(window, whole):
        return whole
    edges: list[tuple[int, int]] = []
    for axis, at in enumerate(_locate(matrix, window)):
        low, high = int(np.floor(at[0])), int(np.floor(at[-1])) + 1  # the neighbours in between which a value lies
        last = whole[axis + 2] - 1
        edges.append((max(min(low, 2 * last - high), 0) if high > last else low, max(high, -low) if low < 0 else high))
    left, top = (max(low, 0) for low, _ in edges)
    right, bottom = (high + 1 for _, high in edges)
    return Window(left, top, right, bottom).intersect(whole)


def warp_part(part: PicturePart, matrix: NDArray[np.float64], window: Window) -> NDArray[np.uint8]:
    """Compute a part of a picture's warp: bilinear, mirrored beyond the borders, to the bits of cv2.warpAffine.

    Args:
        part: `find_warp_input` of the picture.
        matrix: Scales and moves, float64 (2, 3): from the picture to its warp [px].
        window: The part of the warp.

    Returns:
        uint8 (h, w, 3).
    """
    if _can_remap(window, part.whole):
        return _remap(part, matrix, window)
    size = (min(window.right + FLOAT_VECTORS, part.whole.right), window.bottom)
    warped = cv2.warpAffine(part.pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return window.cut(np.asarray(warped, np.uint8))


def _remap(part: PicturePart, matrix: NDArray[np.float64], window: Window) -> NDArray[np.uint8]:
    """Compute a part of a warp from coordinates; columns that are not in vectors are added and cut off again."""
    x, y = _locate(matrix, window._replace(right=window.right + FLOAT_VECTORS))
    # Whole pixels less: nothing is rounded, because no coordinate gets larger than it was.
    x, y = x - np.float32(part.window.left), y - np.float32(part.window.top)
    maps = (np.broadcast_to(x, (len(y), len(x))).copy(), np.broadcast_to(y[:, None], (len(y), len(x))).copy())
    warped = cv2.remap(part.pixels, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped[:, : window.right - window.left], np.uint8)


def _locate(matrix: NDArray[np.float64], window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Locate columns and rows of a warp in the picture, rounded as cv2.warpAffine does it in vectors, float32 [px]."""
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    columns, rows = np.arange(window.left, window.right), np.arange(window.top, window.bottom, dtype=np.float32)
    # One rounding, of a sum that float64 holds without any; then two.
    x = np.float64(back[0, 0]) * columns + np.float64(back[0, 2])
    return x.astype(np.float32), back[1, 1] * rows + back[1, 2]


def _can_remap(window: Window, whole: Window) -> bool:
    """Say whether a part of a warp can be computed without what lies left of it and above it."""
    return window.right <= whole.right - FLOAT_VECTORS and _is_located_right()


@cache
def _is_located_right() -> bool:
    """Say whether this processor rounds coordinates of a warp as `_locate` does."""
    picture = np.random.default_rng(0).integers(0, 256, (300, 700, 3), dtype=np.uint8)
    whole = get_whole(picture)
    for scale in (0.951, 1.0, 1.043):
        matrix = np.array([[scale, 0, 3.7], [0, scale, -2.3]])
        warped = cv2.warpAffine(picture, matrix, (700, 300), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        remapped = _remap(take_whole(picture), matrix, whole)
        if not np.array_equal(remapped[:, :-FLOAT_VECTORS], warped[:, :-FLOAT_VECTORS]):
            return False
    return True
