"""The part of the target that a face swap replaces.

It goes from brows to chin, inside the outline, less the hair that hangs over it.

Legend: landmarks float32 (81, 2) pixels in dlib's order; region and every other drawn mask uint8 (H, W), 0 or 255;
face_width: the distance of the jaw's two ends [px]. Lengths in this file are shares of it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.landmarks import (
    BROWS,
    INNER_MOUTH,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE,
    NOSE_BASE,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    fill_hulls,
    raise_brows,
)

BROW_TO_FOREHEAD = 0.45  # how far the region goes above the brows, of the way to the hairline
SHRINK = 0.035  # the outline moves in by this: outside it are hair, ears and background
FEATURE_WIDENING = 0.035
CORE_WIDENING = 0.04
RIM = 0.02  # what is not skin and this near to the outline counts as reaching it
SMOOTHING = 0.04
SPECK = 0.008  # smaller spots of another colour are moles, stubble, highlights
CHEEK_SHARE = 0.75  # of the triangle-like patch between eye, nose and jaw


def measure_face_width(landmarks: NDArray[np.generic]) -> float:
    """Measure the distance of the jaw's two ends [px], at least 1."""
    return max(1.0, float(np.linalg.norm(np.asarray(landmarks[16], np.float64) - landmarks[0])))


def draw_region(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw all that may be replaced.

    The picture's outermost pixels are never part of it, so that the blend has a border everywhere.

    Args:
        landmarks: float32 (81, 2) [px].
        height: The height of the picture [px].
        width: The width of the picture [px].

    Returns:
        uint8 (height, width), 0 or 255.
    """
    raised = raise_brows(landmarks, BROW_TO_FOREHEAD)
    mask = fill_hulls([np.concatenate([landmarks[JAW], raised])], height, width)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    return _shrink(mask, SHRINK * measure_face_width(landmarks))


def draw_features(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw eyes, brows, nostrils and mouth, a little widened: what is in a face and is not skin.

    Args:
        landmarks: float32 (81, 2) [px].
        height: The height of the picture [px].
        width: The width of the picture [px].

    Returns:
        uint8 (height, width), 0 or 255.
    """
    groups = (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, OUTER_MOUTH, NOSE_BASE)
    mask = fill_hulls([landmarks[group] for group in groups], height, width)
    return _widen(mask, FEATURE_WIDENING * measure_face_width(landmarks))


def draw_core(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw what is always replaced, because a half of it would show: eyes with brows, nose, mouth.

    Args:
        landmarks: float32 (81, 2) [px].
        height: The height of the picture [px].
        width: The width of the picture [px].

    Returns:
        uint8 (height, width), 0 or 255.
    """
    groups = (np.r_[LEFT_EYE, RIGHT_EYE, BROWS], np.r_[NOSE, 39, 42, OUTER_MOUTH])
    mask = fill_hulls([landmarks[group] for group in groups], height, width)
    return _widen(mask, CORE_WIDENING * measure_face_width(landmarks))


def draw_whites(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw the inside of lids and lips: eyeballs and teeth, which do not share the skin's colour.

    Args:
        landmarks: float32 (81, 2) [px].
        height: The height of the picture [px].
        width: The width of the picture [px].

    Returns:
        uint8 (height, width), 0 or 255.
    """
    return fill_hulls([landmarks[group] for group in (LEFT_EYE, RIGHT_EYE, INNER_MOUTH)], height, width)


def draw_cheeks(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw where skin is seen most surely: from the eyes down to the nose's level, and the nose.

    Args:
        landmarks: float32 (81, 2) [px].
        height: The height of the picture [px].
        width: The width of the picture [px].

    Returns:
        uint8 (height, width), 0 or 255.
    """
    patches = [landmarks[[36, 39, 31, 2]], landmarks[[45, 42, 35, 14]], landmarks[[31, 35, 27]]]
    middles = [patch.mean(axis=0) for patch in patches]
    smaller = [middle + CHEEK_SHARE * (patch - middle) for patch, middle in zip(patches, middles, strict=True)]
    return fill_hulls(smaller, height, width)


def remove_from_rim(
    region: NDArray[np.uint8], covered: NDArray[np.bool_], core: NDArray[np.uint8], face_width: float
) -> NDArray[np.uint8]:
    """Remove covered parts that reach the region's outline (hair, beard, a hand), but nothing of the core.

    Args:
        region: uint8 (H, W), 0 or 255.
        covered: Where no skin is seen, bool (H, W).
        core: What stays, uint8 (H, W), 0 or 255.
        face_width: The distance of the jaw's two ends [px].

    Returns:
        One smooth piece, uint8 (H, W), 0 or 255.
    """
    rim = (region > 0) & (_shrink(region, RIM * face_width) == 0)
    speck = _make_disc(SPECK * face_width)
    covered = cv2.morphologyEx(covered.astype(np.uint8), cv2.MORPH_OPEN, speck) > 0
    _, parts = cv2.connectedComponents((covered & (region > 0)).astype(np.uint8), connectivity=4)
    reaching = np.unique(parts[rim & covered])
    gone = _widen((np.isin(parts, reaching[reaching > 0]) * 255).astype(np.uint8), RIM * face_width)
    kept = cv2.bitwise_and(cv2.bitwise_or(cv2.bitwise_not(gone), core), region)
    disc = _make_disc(SMOOTHING * face_width)
    kept = cv2.bitwise_or(cv2.morphologyEx(kept, cv2.MORPH_OPEN, disc), cv2.bitwise_and(core, region))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(kept, connectivity=4)
    if count > 2:
        kept = (parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8) * 255
    return np.asarray(kept, np.uint8)


def feather(region: NDArray[np.uint8], reach: float) -> NDArray[np.float32]:
    """Compute a soft mask that rises smoothly from the region's outline inwards.

    Args:
        region: uint8 (H, W), 0 or 255.
        reach: Depth at which it reaches 1 [px].

    Returns:
        float32 (H, W), 0 outside the region.
    """
    inside = np.pad((region > 0).astype(np.uint8), 1)
    # Not DIST_MASK_PRECISE: OpenCV 5 gives two results with it, one bit apart, for the same mask.
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    share = np.clip(depth / max(reach, 1.0), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _make_disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _widen(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask, _make_disc(radius)), np.uint8)


def _shrink(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.erode(mask, _make_disc(radius), borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)
