"""A piecewise affine warp between two faces: triangles over the target's points, each pulled from the source's.

Legend: points float (n, 2) x, y in pixels, the same n >= 3 points in the same order on both faces.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

# Points far outside, moved by the one affine that fits all points best, carry the warp on beyond the face.
RING_REACH = 2.0  # their distance from the face's middle / that of the face's outline
# A source larger than the target is brought to its size first; below this ratio the warp itself samples finely enough.
SHRINK_FROM = 1.15


class FaceWarp:
    """Where each pixel of the target face comes from in the source."""

    def __init__(self, source_points: NDArray[np.generic], target_points: NDArray[np.generic]) -> None:
        """Raises ValueError where the points are not n >= 3 pairs of finite points that span a plane."""
        source, target = (np.asarray(points, np.float64) for points in (source_points, target_points))
        if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 3:
            raise ValueError(f"points: expected the same (n, 2) twice, n >= 3, got {source.shape} and {target.shape}")
        if not (np.isfinite(source).all() and np.isfinite(target).all()):
            raise ValueError("points: must be finite")
        affine = fit_affine(target, source)
        outline = cv2.convexHull(target.astype(np.float32))[:, 0].astype(np.float64)
        middle = target.mean(axis=0)
        ring = middle + RING_REACH * (outline - middle)
        self._from = np.concatenate([target, ring])
        self._to = np.concatenate([source, apply_affine(affine, ring)])
        if min(abs(np.linalg.det(affine[:, :2])), np.linalg.matrix_rank(target - middle) - 1) < 1e-6:
            raise ValueError("points: lie on a line")
        self._triangles = Delaunay(self._from)
        self.scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))  # source pixels / target pixel

    def locate(self, points: NDArray[np.generic]) -> NDArray[np.float64]:
        """The source's place of points (m, 2) of the target: float64 (m, 2), NaN far outside the face."""
        return LinearNDInterpolator(self._triangles, self._to)(np.asarray(points, np.float64))

    def measure_folds(self) -> float:
        """The share of the target's triangles, by area, that are pulled from a triangle turned inside out: 0..1."""
        areas = [_compute_areas(points[self._triangles.simplices]) for points in (self._from, self._to)]
        folded = areas[0] * areas[1] <= 0
        return float(np.abs(areas[0])[folded].sum() / np.abs(areas[0]).sum())

    def apply(
        self, image: NDArray[np.uint8], box_xyxy: NDArray[np.integer] | tuple[int, int, int, int]
    ) -> NDArray[np.uint8]:
        """Pull the source's picture, uint8 (H, W, 3), into a box of the target with whole-pixel edges: uint8 (h, w, 3).

        Beyond the source's border its outermost pixels are repeated.
        """
        left, top, right, bottom = (int(value) for value in box_xyxy)
        grid = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), axis=-1).reshape(-1, 2)
        places = self.locate(grid).reshape(bottom - top, right - left, 2)
        if self.scale > SHRINK_FROM:
            height, width = image.shape[:2]
            size = (max(1, round(width / self.scale)), max(1, round(height / self.scale)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            places = (places + 0.5) * (size[0] / width, size[1] / height) - 0.5
        x, y = cv2.split(places.astype(np.float32))
        return np.asarray(
            cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        )


def fit_affine(points: NDArray[np.floating], onto: NDArray[np.floating]) -> NDArray[np.float64]:
    """The affine (2, 3) that brings points (n, 2) closest to others (n, 2), by least squares."""
    solution, *_ = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), onto, rcond=None)
    return np.asarray(solution.T, np.float64)


def apply_affine(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def _compute_areas(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the signed areas of (n, 3, 2) triangles."""
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
