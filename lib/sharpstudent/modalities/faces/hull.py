"""Four blending regions drawn from landmarks: which part of the face a self-blended fake replaces.

The four names are those of the SBI training item (Shiohara and Yamasaki, CVPR 2022); the shapes are this project's own.
Lengths that are not landmarks themselves are shares of the face's width, so that a region scales with the face.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.landmark_layout import (
    BROWS,
    FOREHEAD,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE,
    NOSE_BASE,
    NOSE_BRIDGE,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
)

HULL_KINDS = ("full", "extended", "components", "parts")

# Without forehead points a brow is raised by this share of its height above the chin; with them it goes this share of
# the way to the forehead.
BROW_RAISE = 0.15
BROW_TO_FOREHEAD = 0.5
# Radius / face width. Softening shrinks a region by up to 12 px of 192-256, which must not remove the mouth.
COMPONENT_DILATION = 0.1
# fillConvexPoly takes 1/8 px, so that small crops are not all drawn from the same few whole-pixel outlines.
SUBPIXEL_BITS = 3


def draw_hull(kind: str, landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Draw one region.

    kind: one of HULL_KINDS: `full`, the convex hull of all points; `extended`, the hull of points 0-67 with the brows
    raised; `components`, widened patches of eyes with brows, nose and mouth; `parts`, a union of part-wise convex
    hulls that follows the face's outline more closely than one hull. landmarks: (68 or 81, 2) pixels, may lie outside
    the image. Returns uint8 (height, width), 0 or 255; all zero where no part of the region is inside the image or a
    landmark is not finite. Raises ValueError for an unknown kind.
    """
    if kind not in HULL_KINDS:
        raise ValueError(f"kind: expected one of {HULL_KINDS}, got {kind!r}")
    mask = np.zeros((height, width), np.uint8)
    if not np.isfinite(landmarks).all():
        return mask
    # Far outside points would overflow the fixed-point coordinates of the drawing call.
    limit = 4 * max(height, width)
    landmarks = np.clip(landmarks, -limit, limit)
    if kind == "full":
        return _fill_hulls(mask, [landmarks])
    if kind == "extended":
        return _fill_hulls(mask, [np.concatenate([landmarks[:68], compute_raised_brows(landmarks)])])
    if kind == "components":
        return _fill_hulls(mask, _list_components(landmarks), radius=_compute_radius(landmarks, mask.shape))
    return _fill_hulls(mask, _list_parts(landmarks))


def compute_raised_brows(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ten brow points moved up the face: float32 (10, 2)."""
    brows = landmarks[BROWS]
    if len(landmarks) == 68:
        return brows + BROW_RAISE * (brows - landmarks[8])
    # The forehead's 13 points and the brows' 10 both run from left to right.
    above = landmarks[FOREHEAD]
    steps = np.linspace(1, len(above) - 2, len(brows))
    reached = np.stack([np.interp(steps, np.arange(len(above)), above[:, axis]) for axis in (0, 1)], axis=1)
    return (brows + BROW_TO_FOREHEAD * (reached - brows)).astype(np.float32)


def _list_components(landmarks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    groups = (np.r_[LEFT_BROW, LEFT_EYE], np.r_[RIGHT_BROW, RIGHT_EYE], NOSE, OUTER_MOUTH)
    return [landmarks[group] for group in groups]


def _list_parts(landmarks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cheeks with the nose, chin with the mouth, brows with the nose and, where it is known, with the forehead."""
    groups = [
        np.r_[JAW[:7], LEFT_BROW, NOSE_BRIDGE, NOSE_BASE],
        np.r_[JAW[10:], RIGHT_BROW, NOSE_BRIDGE, NOSE_BASE],
        np.r_[JAW[3:14], OUTER_MOUTH, NOSE_BASE],
        np.r_[BROWS, NOSE_BRIDGE],
    ]
    if len(landmarks) > 68:
        groups.append(np.r_[BROWS, FOREHEAD])
    return [landmarks[group] for group in groups]


def _fill_hulls(
    mask: NDArray[np.uint8], groups: Iterable[NDArray[np.float32]], *, radius: int = 0
) -> NDArray[np.uint8]:
    """Fill each group's convex hull, widened by a radius [px]: a thick outline is a fast dilation by a disc."""
    for points in groups:
        outline = cv2.convexHull(np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 255, lineType=cv2.LINE_8, shift=SUBPIXEL_BITS)
        if radius:
            cv2.polylines(mask, [outline], True, 255, thickness=2 * radius + 1, shift=SUBPIXEL_BITS)
    return mask


def _compute_radius(landmarks: NDArray[np.float32], shape: tuple[int, ...]) -> int:
    """How far the components are widened [px]; bounded by the image's size where landmarks lie far outside."""
    face_width = float(np.linalg.norm(landmarks[16] - landmarks[0]))
    return int(np.clip(round(COMPONENT_DILATION * face_width), 1, max(1, max(shape) // 8)))
