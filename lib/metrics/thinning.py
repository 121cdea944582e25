"""Fewer points of a curve that looks the same: Ramer-Douglas-Peucker (1972, 1973), in one or more pairs of axes.

A point is kept where leaving it out would move the curve by more than a tolerance. Of a curve that only rises or only
falls within the unit square, at most 2 / tolerance points are kept: each is further than the tolerance from the next,
and the straight parts together are no longer than 2 in width and height. Legend: P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 2000
TOLERANCE = 1e-3

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]  # x (P,) and y (P,) of the same points


def thin_curve(planes: Sequence[Axes]) -> tuple[NDArray[np.int64], float]:
    """Which points to keep, with the first and the last, and by how much the curve moves at most in any of the planes.

    An eighth of TOLERANCE; where more than MOST_POINTS would be kept, twice as much, and so on. A rising or falling
    curve in the unit square never has so many at TOLERANCE; one of precision and recall that rises and falls without
    end could.
    """
    points = [np.stack(axes, axis=1) for axes in planes]
    tolerance = TOLERANCE / 8
    while True:
        kept = _keep(points, tolerance)
        if len(kept) <= MOST_POINTS:
            return kept, tolerance
        tolerance *= 2.0


def _keep(planes: list[NDArray[np.float64]], tolerance: float) -> NDArray[np.int64]:
    last = len(planes[0]) - 1
    kept, waiting = {0, last}, [(0, last)]
    while waiting and len(kept) <= MOST_POINTS:  # more of them are too many, whichever they are
        start, end = waiting.pop()
        if end - start < 2:
            continue
        distance = np.max([find_distances(points[start : end + 1]) for points in planes], axis=0)
        furthest = int(distance.argmax())
        if distance[furthest] > tolerance:
            middle = start + 1 + furthest
            kept.add(middle)
            waiting += [(start, middle), (middle, end)]
    return np.array(sorted(kept), np.int64)


def find_distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of all but the first and the last of points (P, 2) from the straight line between those two: (P - 2,)."""
    origin, way = points[0], points[-1] - points[0]
    x, y = points[1:-1, 0] - origin[0], points[1:-1, 1] - origin[1]
    length = float(way @ way)
    along = np.clip((x * way[0] + y * way[1]) / length, 0.0, 1.0) if length > 0.0 else np.zeros(len(x))
    return np.hypot(x - along * way[0], y - along * way[1])
