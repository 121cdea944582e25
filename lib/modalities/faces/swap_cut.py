"""A photo's face as a swap needs it, and the picture that is kept: one path for real and fake."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.modalities.faces.crop import compute_box_margins, compute_landmark_box
from lib.modalities.faces.swap import PointedFace

ROOM = 0.15  # around the face's points and the final crop, share of their box
SPARE = 1.5  # the final crop is at most this times the wanted size when the swap is made


@dataclass(frozen=True)
class CutFace:
    """face: the photo's part around a face, scaled down (never up); final_xyxy: int (4,), the crop to keep, in it."""

    face: PointedFace
    final_xyxy: tuple[int, int, int, int]


def cut_face(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    box_xyxy: NDArray[np.float32],
    image_size: int,
) -> CutFace:
    """image: uint8 (H, W, 3) RGB, the photo; points: (468 or 81, 2) and box_xyxy: (4,) of the detector, in its pixels;
    image_size: side of the picture to keep [px]. The crop to keep is that of evaluation: 12.5 % around the box.
    """
    height, width = image.shape[:2]
    final = compute_box_margins(box_xyxy, height, width, None)
    spread = compute_landmark_box(points)
    low, high = np.minimum(spread[:2], final[:2]), np.maximum(spread[2:], final[2:])
    room = ROOM * (high - low)
    left, top = (int(value) for value in np.clip(np.floor(low - room), 0, (width - 1, height - 1)))
    right, bottom = (int(value) for value in np.clip(np.ceil(high + room), (left + 1, top + 1), (width, height)))
    part = image[top:bottom, left:right]
    factor = min(1.0, SPARE * image_size / float(max(final[2] - final[0], final[3] - final[1])))
    scale = np.ones(2)
    if factor < 1:
        size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
        scale = np.array([size[0] / part.shape[1], size[1] / part.shape[0]])
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    moved = (np.asarray(points, np.float64) - (left, top) + 0.5) * scale - 0.5
    corners = np.rint((final - np.array([left, top] * 2)) * np.tile(scale, 2)).astype(int)
    kept = (int(corners[0]), int(corners[1]), max(int(corners[2]), int(corners[0]) + 1), int(corners[3]))
    face = PointedFace(np.ascontiguousarray(part), moved.astype(np.float32))
    return CutFace(face, (*kept[:3], max(kept[3], kept[1] + 1)))


def keep_picture(image: NDArray[np.uint8], final_xyxy: tuple[int, int, int, int], image_size: int) -> NDArray[np.uint8]:
    """The crop as a square of image_size [px], real and fake alike: uint8 (S, S, 3)."""
    left, top, right, bottom = final_xyxy
    part = image[top:bottom, left:right]
    smaller = max(part.shape[:2]) > image_size
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (image_size, image_size), interpolation=interpolation), np.uint8)
