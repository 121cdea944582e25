"""Whether two crops show the same picture: near hashes propose pairs, their pixels decide.

A 64-bit hash is near by chance among many faces of one kind of picture; two copies, laid over one another by their
landmarks, agree in what is finer than the light on the face.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.data.items import UnreadableItem
from lib.tasks.deepfake.prepare.check_columns import Faces
from lib.tasks.deepfake.prepare.check_crops import decode

SIDE = 64  # px of a face laid over another
# Where the centres of the right eye, the left eye and the mouth go, as shares of SIDE.
ANCHORS = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.75]])
ANCHOR_POINTS = (slice(36, 42), slice(42, 48), slice(48, 68))  # dlib's order
LIGHT = 4.0  # px; what changes more slowly over the face is light, not the face
ALIKE = 0.8  # correlation of two copies at least; for what it tells apart see check_near.DISTANCE


class Lookalikes:
    """Compares the crops of a set two at a time; the last thousand are kept."""

    def __init__(self, faces: Faces) -> None:
        self._faces = faces
        self._read = lru_cache(maxsize=1024)(self._read_face)

    def compare(self, one: int, other: int) -> float | None:
        """Correlation -1..1 of two rows' faces; None where a crop cannot be read (that is a fault of its own)."""
        first, second = self._read(one), self._read(other)
        return None if first is None or second is None else float(first @ second)

    def _read_face(self, index: int) -> NDArray[np.float32] | None:
        row = self._faces.row(index)
        try:
            image = decode(self._faces.manifest.read_crop_of(row))
        except UnreadableItem:
            return None
        return None if image is None else describe_face(image, row.landmarks)


def describe_face(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """A face as a vector of length 1, float32 (SIDE * SIDE,): upright, grey, without the light on it.

    image: RGB uint8 (H, W, 3); landmarks: (68 or 81, 2) [px of the image].
    """
    points = np.array([landmarks[part].mean(axis=0) for part in ANCHOR_POINTS], np.float64)
    turn = _fit_similarity(points, ANCHORS * SIDE)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = float(np.hypot(turn[0, 0], turn[0, 1]))
    if scale < 1:  # or every second pixel would decide
        grey = cv2.GaussianBlur(grey, (0, 0), 0.5 / max(scale, 0.02))
    upright = cv2.warpAffine(grey, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    fine = upright - cv2.GaussianBlur(upright, (0, 0), LIGHT)
    vector = fine.ravel() - fine.mean()
    return (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)


def _fit_similarity(points: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """The turn, scale and shift (2, 3) that brings points (n, 2) nearest to targets (n, 2), least squares."""
    x, y = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, shift_x, shift_y = np.linalg.lstsq(rows, targets.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, shift_x], [b, a, shift_y]])
