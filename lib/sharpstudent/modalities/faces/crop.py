"""Boxes and crops: which box belongs to the landmarks, the loose crop for blending, the final crop with margins; how
sharp a crop is, and a perceptual hash of it.

The hash has 64 bits: pictures that look alike have hashes that differ in few of them. They are the signs of the lowest
frequencies of the picture's discrete cosine transform, after Zauner, "Implementation and Benchmarking of Perceptual
Image Hash Functions" (2010). The figure for sharpness compares faces of different sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The loose crop around the box of landmarks 0-67, as shares of that box's sides (the SBI training item).
LOOSE_SIDE, LOOSE_ABOVE, LOOSE_BELOW = 0.5, 1.0, 0.4
# The final crop: each side is moved out by box / 4 times a factor, drawn in training, fixed for evaluation.
MARGIN_SHARE = 0.25
TRAIN_MARGIN_RANGE = (0.2, 0.8)
EVALUATION_MARGIN = 0.5  # 12.5 % of the box each side


@dataclass(frozen=True)
class Crop:
    """A part of an image with the geometry that moved with it.

    image: uint8 (h, w, 3), a view; landmarks: float32 (n, 2) and boxes: float32 (n, 4), both in the crop's pixels.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32]


def compute_landmark_box(landmarks: NDArray[np.generic]) -> NDArray[np.float32]:
    """The tight box of (n, 2) points: float32 (4,)."""
    points = np.asarray(landmarks, np.float32)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def compute_areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """The areas (n,) of boxes (n, 4) [px^2]; 0 of a box that is turned inside out."""
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)


def compute_ious(one: NDArray[np.generic], two: NDArray[np.generic]) -> NDArray[np.float64]:
    """Intersection over union, 0..1, of every pair of boxes (n, 4) and (m, 4): (n, m); 0 where both are empty."""
    first, second = (np.asarray(boxes, np.float64) for boxes in (one, two))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    union = compute_areas(first)[:, None] + compute_areas(second)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def compute_iou(box_xyxy: NDArray[np.generic], other_xyxy: NDArray[np.generic]) -> float:
    """Intersection over union of two boxes (4,), 0..1; 0 when both are empty."""
    return float(compute_ious(np.atleast_2d(box_xyxy), np.atleast_2d(other_xyxy))[0, 0])


def choose_box(
    boxes: Sequence[NDArray[np.generic]] | NDArray[np.generic], landmarks: NDArray[np.generic]
) -> NDArray[np.float32]:
    """Of the two largest detector boxes the one with the best IoU with the landmarks' box; on a tie the larger.

    boxes: (n, 4), n >= 1; landmarks: (68 or 81, 2). Returns float32 (4,). Raises ValueError when there is no box.
    """
    candidates = np.asarray(boxes, np.float32).reshape(-1, 4)
    if len(candidates) == 0:
        raise ValueError("boxes: at least one detector box is needed")
    largest = candidates[np.argsort(-compute_areas(candidates), kind="stable")[:2]]
    return largest[np.argmax(compute_ious(largest, compute_landmark_box(landmarks)[None]))]


def compute_loose_box(landmarks: NDArray[np.generic], height: int, width: int) -> NDArray[np.int64]:
    """The loose box: 0.5 w each side, 1.0 h above and 0.4 h below the box of landmarks 0-67.

    Returns int64 (4,) clipped to the image of (height, width) pixels.
    """
    left, top, right, bottom = compute_landmark_box(np.asarray(landmarks)[:68])
    box_width, box_height = right - left, bottom - top
    outward = (LOOSE_SIDE * box_width, LOOSE_ABOVE * box_height, LOOSE_SIDE * box_width, LOOSE_BELOW * box_height)
    return _move_out((left, top, right, bottom), outward, height, width)


def compute_box_margins(
    box_xyxy: NDArray[np.generic], height: int, width: int, rng: np.random.Generator | None
) -> NDArray[np.int64]:
    """The final crop box: each side moved out by a quarter of the box times U(.2, .8), independently.

    rng: None for evaluation, where every side moves by 12.5 % of the box. Returns int64 (4,) clipped to the image.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    factors = np.full(4, EVALUATION_MARGIN) if rng is None else rng.uniform(*TRAIN_MARGIN_RANGE, size=4)
    sides = np.array([right - left, bottom - top, right - left, bottom - top])
    outward = (MARGIN_SHARE * sides * factors).tolist()
    return _move_out((left, top, right, bottom), outward, height, width)


def crop(
    image: NDArray[np.uint8],
    box_xyxy: NDArray[np.integer],
    *,
    landmarks: NDArray[np.generic],
    boxes: NDArray[np.generic],
) -> Crop:
    """Cut a box with whole-pixel edges out of an image and shift landmarks (n, 2) and boxes (n, 4) with it."""
    left, top, right, bottom = (int(value) for value in box_xyxy)
    shift = np.array([left, top], np.float32)
    return Crop(
        image=image[top:bottom, left:right],
        landmarks=np.asarray(landmarks, np.float32) - shift,
        boxes=np.asarray(boxes, np.float32) - np.tile(shift, 2),
    )


def _move_out(box: Sequence[float], outward: Sequence[float], height: int, width: int) -> NDArray[np.int64]:
    """Move the four edges out, round to pixels and clip; a box that leaves nothing of the image gives all of it."""
    if not (np.isfinite(box).all() and np.isfinite(outward).all()):
        return np.array([0, 0, width, height])
    left, top = round(box[0] - outward[0]), round(box[1] - outward[1])
    right, bottom = round(box[2] + outward[2]), round(box[3] + outward[3])
    left, right = max(left, 0), min(right, width)
    top, bottom = max(top, 0), min(bottom, height)
    if right <= left or bottom <= top:
        left, top, right, bottom = 0, 0, width, height
    return np.array([left, top, right, bottom])


HASH_SIDE = 32  # px, what is transformed
LOWEST = 8  # frequencies each way
BITS = 64
LEAST = 0.01  # grey levels; smaller coefficients are rounding, and must not decide bits


def compute_phash(picture: NDArray[np.uint8]) -> int:
    """The hash, 0 .. 2^64 - 1; 0 for a picture of one colour.

    picture: uint8 (H, W, 3) RGB. Each bit tells whether a coefficient is above the median of all 64. The mean of the
    picture is none of them: the hash says nothing of brightness.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))
    chosen = np.append(frequencies[:LOWEST, :LOWEST].ravel()[1:], frequencies[0, LOWEST])
    chosen[np.abs(chosen) < LEAST] = 0
    bits = chosen > np.median(chosen)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


SHARPNESS_SIDE = 100  # px


def compute_sharpness(face: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of the face, brought to 100 x 100 px in grey [grey levels squared]; 0 for one
    colour.

    face: uint8 (H, W, 3) RGB, the face's box only: a sharp background says nothing of the face. After Pech-Pacheco et
    al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if min(grey.shape) > SHARPNESS_SIDE else cv2.INTER_LINEAR
    scaled = cv2.resize(grey, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=interpolation)
    return float(cv2.Laplacian(scaled, cv2.CV_64F).var())
