"""ROC, precision-recall and DET curves as points for pictures and CSV files, and thresholds chosen on them.

A curve has one point for each threshold, thinned by Ramer-Douglas-Peucker (1972, 1973) in one or more pairs of axes: a
point is kept where leaving it out would move the curve by more than a tolerance. Of a curve that only rises or only
falls within the unit square, at most 2 / tolerance points are kept: each is further than the tolerance from the next,
and the straight parts together are no longer than 2 in width and height. Metrics are never made of these points.

A threshold is chosen on validation scores, for use on other ones; what scores at it or above is called positive. Each
rule chooses one of the ROC's points; the threshold itself is put half-way between the lowest score that is then called
positive and the next one below, as far from both as can be. Of points that a rule finds equally good it takes the one
with the fewest false alarms.

Legend: N samples, P points; scores rise with class 1; labels: the negatives 0, the positives 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.binary import Ranked, find_corners, find_place_at_fpr, rank_scores
from sharpstudent.metrics.checks import check_both_classes, check_rate, check_samples

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


@dataclass(frozen=True)
class Curve:
    """x, y: float64 (P,), 0..1, from the highest threshold down; thresholds: float64 (P,), the first of them inf, where
    nothing is called positive; moved: how far the curve lies, at most, from the one through all thresholds.
    """

    x_name: str
    y_name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    moved: float

    def as_columns(self) -> dict[str, NDArray[np.float64]]:
        """By name, as a CSV file has them."""
        return {"threshold": self.thresholds, self.x_name: self.x, self.y_name: self.y}


def compute_roc(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> Curve:
    """FPR and TPR from (0, 0) to (1, 1). Raises MetricError as `compute_auc` does."""
    ranked = _rank(scores, labels, sample_ids)
    corners = find_corners(ranked.positives, ranked.negatives)
    fpr, tpr = (ranked.negatives / ranked.negatives[-1])[corners], (ranked.positives / ranked.positives[-1])[corners]
    return _build("fpr", "tpr", (fpr, tpr), _list_thresholds(ranked)[corners], [(fpr, tpr)])


def compute_det(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> Curve:
    """FPR and FNR from (0, 1) to (1, 0), for axes of normal deviates (Martin et al. 1997).

    Thinned for those axes and for plain ones. There a rate of 0 or 1 has no place; draw it as half a sample, as it was
    thinned. Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    corners = find_corners(ranked.positives, ranked.negatives)
    positives, negatives = int(ranked.positives[-1]), int(ranked.negatives[-1])
    fpr, fnr = ranked.negatives[corners] / negatives, (positives - ranked.positives[corners]) / positives
    # 0.4 of a deviate is at least the change of rate: the density of the normal distribution is nowhere higher.
    deviates = 0.4 * find_deviates(fpr, negatives), 0.4 * find_deviates(fnr, positives)
    return _build("fpr", "fnr", (fpr, fnr), _list_thresholds(ranked)[corners], [(fpr, fnr), deviates])


def compute_pr(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> Curve:
    """Recall and precision; at recall 0, where nothing is called positive, precision is 1, as scikit-learn has it.

    Ends where recall first is 1. Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    end = int((ranked.positives < ranked.positives[-1]).sum()) + 1
    positives, negatives = ranked.positives[:end], ranked.negatives[:end]
    recall = positives / positives[-1]
    precision = np.concatenate([[1.0], positives[1:] / (positives[1:] + negatives[1:])])
    return _build("recall", "precision", (recall, precision), _list_thresholds(ranked)[:end], [(recall, precision)])


def find_deviates(rates: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """Standard normal deviates of rates (P,); 0 and 1 as half a sample of `samples` away from them."""
    from scipy.special import ndtri  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    half = 0.5 / samples
    return cast(NDArray[np.float64], ndtri(np.clip(rates, half, 1.0 - half)))


def _rank(scores: ArrayLike, labels: ArrayLike, sample_ids: Sequence[str] | None) -> Ranked:
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return rank_scores(score_array, label_array)


def _list_thresholds(ranked: Ranked) -> NDArray[np.float64]:
    return np.concatenate([[np.inf], ranked.thresholds])


def _build(x_name: str, y_name: str, axes: Axes, thresholds: NDArray[np.float64], planes: Sequence[Axes]) -> Curve:
    kept, moved = thin_curve(planes)
    return Curve(x_name, y_name, axes[0][kept], axes[1][kept], thresholds[kept], moved)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and the TPR and FPR that it has on the samples that chose it."""

    threshold: float
    tpr: float
    fpr: float


def choose_threshold_at_fpr(
    scores: ArrayLike, labels: ArrayLike, *, wanted: float, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """The most positives found with an FPR of at most `wanted`, 0 < wanted < 1. scores and labels (N,).

    Raises MetricError as `compute_tpr_at_fpr` does.
    """
    check_rate(wanted)
    ranked = _rank(scores, labels, sample_ids)
    last = int(find_place_at_fpr(ranked.negatives[np.newaxis], wanted)[0, 0])
    return _build_point(ranked, int((ranked.positives < ranked.positives[last]).sum()))


def choose_threshold_at_eer(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """Where FPR and 1 - TPR differ least. scores and labels (N,). Raises MetricError as `compute_auc` does."""
    ranked = _rank(scores, labels, sample_ids)
    positives, negatives = int(ranked.positives[-1]), int(ranked.negatives[-1])
    ahead = ranked.negatives * positives + ranked.positives * negatives - positives * negatives  # whole: ties are ties
    return _build_point(ranked, int(np.argmin(np.abs(ahead))))


def choose_threshold_by_youden(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """Where TPR - FPR is largest (Youden 1950), and so balanced accuracy is. scores and labels (N,).

    Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    return _build_point(
        ranked, int(np.argmax(ranked.positives * ranked.negatives[-1] - ranked.negatives * ranked.positives[-1]))
    )


def _build_point(ranked: Ranked, place: int) -> OperatingPoint:
    return OperatingPoint(
        threshold=_find_threshold(ranked, place),
        tpr=float(ranked.positives[place] / ranked.positives[-1]),
        fpr=float(ranked.negatives[place] / ranked.negatives[-1]),
    )


def _find_threshold(ranked: Ranked, place: int) -> float:
    """That calls the samples of point `place` positive and no others."""
    thresholds = ranked.thresholds
    if place == 0:
        return float(np.nextafter(thresholds[0], np.inf))
    lowest = float(thresholds[place - 1])
    if place == len(thresholds):
        return lowest
    middle = 0.5 * lowest + 0.5 * float(thresholds[place])
    return middle if thresholds[place] < middle <= lowest else lowest
