"""Boxes and crops of faces; how sharp a crop is, and its perceptual hash.

There are two crops: the loose one, which self-blending works on, and the final one with margins, which a network sees.

The hash has 64 bits: pictures that look alike have hashes that differ in few of them. The bits are the signs of the
lowest frequencies of the picture's discrete cosine transform (Zauner, "Implementation and Benchmarking of Perceptual
Image Hash Functions", 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The loose crop around the box of landmarks 0-67, as shares of that box's sides (as in the SBI reference).
LOOSE_SIDE, LOOSE_ABOVE, LOOSE_BELOW = 0.5, 1.0, 0.4
# The final crop: each side is moved out by box / 4 times a factor, drawn in training, fixed for evaluation.
MARGIN_SHARE = 0.25
TRAIN_MARGIN_RANGE = (0.2, 0.8)
EVALUATION_MARGIN = 0.5  # 12.5 % of the box each side


@dataclass(frozen=True)
class Crop:
    """A part of an image, with the points and boxes in it.

    Attributes:
        image: uint8 (h, w, 3), a view.
        landmarks: float32 (n, 2) in the crop's pixels.
        boxes: float32 (n, 4) in the crop's pixels.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32]


def compute_landmark_box(landmarks: NDArray[np.generic]) -> NDArray[np.float32]:
    """Compute the tight box (4,), float32, of (n, 2) points."""
    points = np.asarray(landmarks, np.float32)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def compute_areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute the areas (n,) of boxes (n, 4) [px^2]; a box that is turned inside out has 0."""
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)


def compute_ious(one: NDArray[np.generic], two: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute the intersection over union of every pair of boxes.

    Args:
        one: Boxes (n, 4).
        two: Boxes (m, 4).

    Returns:
        Values in 0..1, (n, m); 0 where both boxes are empty.
    """
    first, second = (np.asarray(boxes, np.float64) for boxes in (one, two))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    union = compute_areas(first)[:, None] + compute_areas(second)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def compute_iou(box_xyxy: NDArray[np.generic], other_xyxy: NDArray[np.generic]) -> float:
    """Compute the intersection over union of two boxes.

    Args:
        box_xyxy: (4,).
        other_xyxy: (4,).

    Returns:
        A value in 0..1; 0 where both are empty.
    """
    return float(compute_ious(np.atleast_2d(box_xyxy), np.atleast_2d(other_xyxy))[0, 0])


def choose_box(
    boxes: Sequence[NDArray[np.generic]] | NDArray[np.generic], landmarks: NDArray[np.generic]
) -> NDArray[np.float32]:
    """Choose the detector's box that belongs to the landmarks.

    It is the one of the two largest boxes that has the higher intersection over union with the landmarks' box; on a tie
    the larger one.

    Args:
        boxes: (n, 4), n >= 1.
        landmarks: (68 or 81, 2).

    Returns:
        The box, float32 (4,).

    Raises:
        ValueError: Where there is no box.
    """
    candidates = np.asarray(boxes, np.float32).reshape(-1, 4)
    if len(candidates) == 0:
        raise ValueError("boxes: at least one detector box is needed")
    largest = candidates[np.argsort(-compute_areas(candidates), kind="stable")[:2]]
    return largest[np.argmax(compute_ious(largest, compute_landmark_box(landmarks)[None]))]


def compute_loose_box(landmarks: NDArray[np.generic], height: int, width: int) -> NDArray[np.int64]:
    """Compute the box of the loose crop.

    It is the box of landmarks 0-67 with 0.5 of its width added on each side, 1.0 of its height above and 0.4 below.

    Args:
        landmarks: (68 or 81, 2) [px].
        height: The height of the image [px].
        width: The width of the image [px].

    Returns:
        The box in whole pixels, clipped to the image, int64 (4,).
    """
    left, top, right, bottom = compute_landmark_box(np.asarray(landmarks)[:68])
    box_width, box_height = right - left, bottom - top
    outward = (LOOSE_SIDE * box_width, LOOSE_ABOVE * box_height, LOOSE_SIDE * box_width, LOOSE_BELOW * box_height)
    return _move_out((left, top, right, bottom), outward, height, width)


def compute_box_margins(
    box_xyxy: NDArray[np.generic], height: int, width: int, rng: np.random.Generator | None
) -> NDArray[np.int64]:
    """Compute the box of the final crop. Each side moves out by a quarter of the box times a factor.

    Args:
        box_xyxy: The detector's box (4,) [px].
        height: The height of the image [px].
        width: The width of the image [px].
        rng: Draws the factor of each side from U(0.2, 0.8); None for evaluation, where it is 0.5.

    Returns:
        The box in whole pixels, clipped to the image, int64 (4,).
    """
    factors = np.full(4, EVALUATION_MARGIN) if rng is None else rng.uniform(*TRAIN_MARGIN_RANGE, size=4)
    return expand_box(box_xyxy, MARGIN_SHARE * factors, height, width)


def expand_box(
    box_xyxy: NDArray[np.generic], shares: NDArray[np.floating], height: int, width: int
) -> NDArray[np.int64]:
    """Move the edges of a box out.

    Args:
        box_xyxy: The box (4,) [px].
        shares: How far its left, top, right and bottom edges move, as shares of its sides (4,).
        height: The height of the image [px].
        width: The width of the image [px].

    Returns:
        The box in whole pixels, clipped to the image, int64 (4,).
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    sides = np.array([right - left, bottom - top, right - left, bottom - top])
    return _move_out((left, top, right, bottom), (shares * sides).tolist(), height, width)


def crop(
    image: NDArray[np.uint8],
    box_xyxy: NDArray[np.integer],
    *,
    landmarks: NDArray[np.generic],
    boxes: NDArray[np.generic],
) -> Crop:
    """Crop an image, and move landmarks and boxes with it.

    Args:
        image: uint8 (H, W, 3).
        box_xyxy: Whole-pixel edges (4,).
        landmarks: (n, 2) [px of the image].
        boxes: (n, 4) [px of the image].

    Returns:
        The crop.
    """
    left, top, right, bottom = (int(value) for value in box_xyxy)
    shift = np.array([left, top], np.float32)
    return Crop(
        image=image[top:bottom, left:right],
        landmarks=np.asarray(landmarks, np.float32) - shift,
        boxes=np.asarray(boxes, np.float32) - np.tile(shift, 2),
    )


def _move_out(box: Sequence[float], outward: Sequence[float], height: int, width: int) -> NDArray[np.int64]:
    """Move the four edges out, round them to pixels and clip them.

    Where nothing of the image would be left, the box of the whole image is returned.
    """
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
    """Compute the perceptual hash of a picture, uint8 (H, W, 3) RGB: 0 .. 2^64 - 1, and 0 for a picture of one colour.

    Each bit tells whether a coefficient is above the median of all 64. The picture's mean is not among them, so that
    the hash does not depend on brightness.
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
    """Compute the sharpness of a face: the variance of its Laplacian [grey levels squared]; 0 for one colour.

    face: uint8 (H, W, 3) RGB, the face's box only, because a sharp background says nothing of the face. It is resized
    to 100 x 100 px in grey first, so that faces of different sizes compare (Pech-Pacheco et al., "Diatom autofocusing
    in brightfield microscopy", ICPR 2000).
    """
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if min(grey.shape) > SHARPNESS_SIDE else cv2.INTER_LINEAR
    scaled = cv2.resize(grey, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=interpolation)
    return float(cv2.Laplacian(scaled, cv2.CV_64F).var())
