"""Metrics of gaze maps: AUC, distances between the peak and the marked points, in/out AP, and the right object.

The peak of a map is the first cell of the largest value; its place is column / 64, row / 64, as in the published code.
Legend: N rows, P points of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sharpstudent.core.types import Table
from sharpstudent.metrics.metric import Metric, make_binary_metric, make_mean_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAP_SIDE = 64  # cells of a side of every heat map
VAT_REACH = 9  # cells: the positive square of VideoAttentionTarget is 2 * 9 + 1 cells wide


def find_peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Find the peaks (N, 2) in 0..1, x and y, of maps (N, 64, 64)."""
    import numpy as np

    rows, columns = np.divmod(maps.reshape(len(maps), -1).argmax(1), maps.shape[-1])
    return np.stack([columns / maps.shape[-1], rows / maps.shape[-2]], 1)


def compute_distances(peaks: NDArray[np.float64], points: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Compute L2 distances in 0..1 of the picture's sides.

    Args:
        peaks: (N, 2).
        points: (N, P, 2), NaN where there is none.

    Returns:
        The distance to the nearest point (N,), and to the mean point (N,); NaN for a row without points.
    """
    import numpy as np

    has_points = ~np.isnan(points[..., 0]).all(1)
    nearest, mean = np.full(len(peaks), np.nan), np.full(len(peaks), np.nan)
    marks = points[has_points].astype(np.float64)
    nearest[has_points] = np.nanmin(np.linalg.norm(marks - peaks[has_points, None], axis=2), axis=1)
    mean[has_points] = np.linalg.norm(np.nanmean(marks, axis=1) - peaks[has_points], axis=1)
    return nearest, mean


def compute_rank_auc(values: NDArray[np.float32], positives: NDArray[np.intp]) -> float:
    """Compute the AUC of a few positive pixels against all others, by their ranks; ties count half.

    Counting what lies above the positives replaces the sorting of all pixels; pixels below the lowest one are left out.

    Args:
        values: The values of all pixels (n,).
        positives: The indices of the positive ones, each once.

    Returns:
        The AUC; NaN without positives or without others.
    """
    import numpy as np

    negatives = len(values) - len(positives)
    if not len(positives) or not negatives:
        return float("nan")
    own = np.sort(values[positives])
    upper = values[values >= own[0]]
    above = sum(int(np.count_nonzero(upper > value)) + int(np.count_nonzero(upper >= value)) for value in own)
    # What positives contribute among themselves, each pair once and each with itself, is taken out again.
    among = sum(int((own > value).sum()) + int((own >= value).sum()) for value in own)
    return 1.0 - (above - among) / (2 * len(positives) * negatives)


def compute_picture_aucs(
    maps: NDArray[np.float32], points: NDArray[np.float32], sizes: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Compute GazeFollow's AUC: each map, brought to the size of its picture, ranks the marked pixels.

    Args:
        maps: (N, 64, 64).
        points: (N, P, 2) in 0..1, NaN where there is none.
        sizes: Width and height of each picture [px] (N, 2).

    Returns:
        (N,); NaN without points.
    """
    import cv2
    import numpy as np

    found = np.full(len(maps), np.nan)
    for row, (heatmap, marked, size) in enumerate(zip(maps, points, sizes.tolist(), strict=True)):
        marks = marked[~np.isnan(marked[:, 0])].astype(np.float64)
        columns, rows = (np.minimum((marks[:, axis] * size[axis]).astype(np.intp), size[axis] - 1) for axis in (0, 1))
        pixels = cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False).ravel()
        found[row] = compute_rank_auc(pixels, np.unique(rows * size[0] + columns))
    return found


def find_squares(points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the squares of 19 x 19 cells around points (N, 2) in 0..1, cut off at the edges.

    Returns:
        The first column and row (N, 2), and those behind the last (N, 2).
    """
    import numpy as np

    centre = points.astype(np.float64) * MAP_SIDE
    low = np.maximum((centre - VAT_REACH).astype(int), 0)
    return low, np.minimum((centre + VAT_REACH + 1).astype(int), MAP_SIDE)


def compute_square_aucs(maps: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute VideoAttentionTarget's AUC: the cells of a square around the target against all others, for all maps.

    Args:
        maps: (N, 64, 64).
        points: (N, 2) in 0..1.

    Returns:
        (N,).
    """
    import numpy as np

    low, high = find_squares(points)
    ranked = np.sort(maps.reshape(len(maps), MAP_SIDE * MAP_SIDE), axis=1)
    has_ties = (ranked[:, 1:] == ranked[:, :-1]).any(1)
    found = np.full(len(maps), np.nan)
    for row, ((left, top), (right, bottom)) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        own = np.sort(maps[row, top:bottom, left:right].ravel())
        below = int(np.searchsorted(ranked[row], own, "left").sum())
        # Ranks count from 0; ties share their mean rank, and a value that is there once has one cell up to itself.
        up_to = int(np.searchsorted(ranked[row], own, "right").sum()) if has_ties[row] else below + len(own)
        found[row] = (below + up_to - len(own) ** 2) / (2 * len(own) * (ranked.shape[1] - len(own)))
    return found


def find_right_objects(
    peaks: NDArray[np.float64], points: NDArray[np.float32], objects: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Say for each row whether the object nearest to the peak is the one that is looked at.

    Args:
        peaks: (N, 2).
        points: (N, P, 2), of which the first counts.
        objects: (N, O, 2), NaN where there is none.

    Returns:
        1.0 or 0.0 (N,); NaN for a row without a point or without objects.
    """
    import numpy as np

    targets = points[:, 0].astype(np.float64)
    has_both = ~np.isnan(targets[:, 0]) & ~np.isnan(objects[:, 0, 0])
    found = np.full(len(peaks), np.nan)
    chosen, wanted = (
        np.nanargmin(np.linalg.norm(objects[has_both] - places[has_both, None], axis=2), axis=1)
        for places in (peaks, targets)
    )
    found[has_both] = chosen == wanted
    return found


def _take(column: str):
    def each(table: Table) -> NDArray[np.float64]:
        return table[column]

    return each


def _read_score(table: Table) -> NDArray[np.float64]:
    return table["inside"].astype("float64")


# Chance: a peak anywhere in GazeFollow's test, Recasens et al. 2015, "Where are they looking?", table 1.
_DISTANCE: Mapping[str, Any] = {"perfect": 0.0, "format": ".4f", "bounds": (0.0, 2.0**0.5)}
METRICS: Mapping[str, Metric] = {
    "min_l2": make_mean_metric(_take("min_l2"), "lower", chance=0.391, title="L2 to the nearest mark", **_DISTANCE),
    "avg_l2": make_mean_metric(_take("avg_l2"), "lower", chance=0.484, title="L2 to the mean mark", **_DISTANCE),
    "auc": make_mean_metric(_take("auc"), chance=0.5, perfect=1.0, title="AUC", bounds=(0.0, 1.0)),
    "inout_ap": make_binary_metric("average_precision", _read_score, label="looks", title="in/out AP"),
    "right_object": make_mean_metric(_take("right_object"), perfect=1.0, title="right object", bounds=(0.0, 1.0)),
}
