"""ROC, precision-recall and DET curves as points to be plotted, and thresholds that are chosen on the ROC.

A curve has one point for each threshold. It is thinned by the algorithm of Ramer, Douglas and Peucker (1972, 1973) in
one or more pairs of axes: a point is kept where leaving it out would move the curve by more than a tolerance. Of a
curve that only rises or only falls within the unit square, at most 2 / tolerance points are kept: each is further than
the tolerance from the next, and the straight parts together are no longer than 2 in width and height. Metrics are never
computed from these points. Before thinning, the points equal scikit-learn's; they are computed here from the ranking
that thresholds and resamples also use, so that scores are sorted once.

A threshold is chosen on validation scores, for use on other scores; a sample at the threshold or above is called
positive. Each rule chooses a point of the ROC. The threshold lies half-way between the lowest score that is still
called positive and the next lower score. If several points are equally good, the rule takes the one with the fewest
false alarms.

Legend: N samples, P points. A higher score means class 1; labels: the negatives 0, the positives 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.binary import Ranked, find_corners, find_place_at_fpr, rank_scores
from sharpstudent.metrics.checks import check_rate, check_two_classes

MOST_POINTS = 2000
TOLERANCE = 1e-3

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]  # x (P,) and y (P,) of the same points


def thin_curve(planes: Sequence[Axes]) -> NDArray[np.int64]:
    """Choose the points of a curve that are kept.

    The tolerance begins at an eighth of TOLERANCE, and doubles until at most MOST_POINTS are kept. A curve that only
    rises or only falls never needs more than TOLERANCE; a precision-recall curve that goes up and down often may.

    Args:
        planes: The points in each pair of axes in which the curve must not move.

    Returns:
        The places of the points that are kept, the first and the last among them.
    """
    points = [np.stack(axes, axis=1) for axes in planes]
    tolerance = TOLERANCE / 8
    while len(kept := _keep(points, tolerance)) > MOST_POINTS:
        tolerance *= 2.0
    return kept


def _keep(planes: list[NDArray[np.float64]], tolerance: float) -> NDArray[np.int64]:
    last = len(planes[0]) - 1
    kept, waiting = {0, last}, [(0, last)]
    while waiting and len(kept) <= MOST_POINTS:  # with more points the result is not used
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
    """Measure how far the points between the first and the last of (P, 2) lie from the line between those: (P - 2,)."""
    origin, way = points[0], points[-1] - points[0]
    x, y = points[1:-1, 0] - origin[0], points[1:-1, 1] - origin[1]
    length = float(way @ way)
    along = np.clip((x * way[0] + y * way[1]) / length, 0.0, 1.0) if length > 0.0 else np.zeros(len(x))
    return np.hypot(x - along * way[0], y - along * way[1])


@dataclass(frozen=True)
class Curve:
    """A thinned curve.

    Attributes:
        x_name: What is on the horizontal axis.
        y_name: What is on the vertical axis.
        x: float64 (P,), 0 to 1, from the highest threshold down.
        y: float64 (P,), 0 to 1.
        thresholds: float64 (P,), the first of them inf, where nothing is called positive.
    """

    x_name: str
    y_name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def compute_roc(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Compute FPR and TPR from (0, 0) to (1, 1).

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.

    Returns:
        The thinned curve.

    Raises:
        MetricError: As `compute_auc`.
    """
    ranked = rank_scores(*check_two_classes(scores, labels))
    corners = find_corners(ranked.positives, ranked.negatives)
    fpr, tpr = (ranked.negatives / ranked.negatives[-1])[corners], (ranked.positives / ranked.positives[-1])[corners]
    return _build(ranked, ("fpr", "tpr"), (fpr, tpr), corners)


def compute_det(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Compute FPR and FNR from (0, 1) to (1, 0), for axes of normal deviates (Martin et al. 1997).

    The curve is thinned for those axes and for plain ones. On axes of deviates, a rate of 0 or 1 is infinite: draw it
    half a sample away from there, as it was thinned.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.

    Returns:
        The thinned curve.

    Raises:
        MetricError: As `compute_auc`.
    """
    ranked = rank_scores(*check_two_classes(scores, labels))
    corners = find_corners(ranked.positives, ranked.negatives)
    positives, negatives = int(ranked.positives[-1]), int(ranked.negatives[-1])
    fpr, fnr = ranked.negatives[corners] / negatives, (positives - ranked.positives[corners]) / positives
    # The normal density is at most 0.4, so a rate changes by at most 0.4 times the change of its deviate.
    deviates = 0.4 * find_deviates(fpr, negatives), 0.4 * find_deviates(fnr, positives)
    return _build(ranked, ("fpr", "fnr"), (fpr, fnr), corners, deviates)


def compute_pr(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Compute recall and precision; the curve ends where recall first is 1.

    At recall 0, where no sample is called positive, precision is defined as 1, as in scikit-learn.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.

    Returns:
        The thinned curve.

    Raises:
        MetricError: As `compute_auc`.
    """
    ranked = rank_scores(*check_two_classes(scores, labels))
    places = np.arange(int((ranked.positives < ranked.positives[-1]).sum()) + 1)
    positives, negatives = ranked.positives[places], ranked.negatives[places]
    precision = np.concatenate([[1.0], positives[1:] / (positives[1:] + negatives[1:])])
    return _build(ranked, ("recall", "precision"), (positives / positives[-1], precision), places)


def find_deviates(rates: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """Turn rates into standard normal deviates.

    Args:
        rates: (P,), 0 to 1; 0 and 1 are taken as half a sample away from them.
        samples: How many samples the rates are computed from.

    Returns:
        The deviates (P,).
    """
    from scipy.special import ndtri  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    half = 0.5 / samples
    return cast(NDArray[np.float64], ndtri(np.clip(rates, half, 1.0 - half)))


def _build(ranked: Ranked, names: tuple[str, str], axes: Axes, places: NDArray[np.int64], *planes: Axes) -> Curve:
    """Thin a curve. `places` are its points in the ROC; `planes` are other axes in which it must not move."""
    kept = thin_curve([axes, *planes])
    thresholds = np.concatenate([[np.inf], ranked.thresholds])[places]
    return Curve(*names, axes[0][kept], axes[1][kept], thresholds[kept])


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and the TPR and FPR that it has on the samples that chose it."""

    threshold: float
    tpr: float
    fpr: float


def choose_thresholds(scores: ArrayLike, labels: ArrayLike, *, fprs: Sequence[float]) -> dict[str, OperatingPoint]:
    """Choose a threshold by each rule.

    `eer`: FPR and 1 - TPR differ least there. `youden`: TPR - FPR is largest (Youden 1950), and so is balanced
    accuracy. `fpr_1pct`, and so on: the most positives found with an FPR of at most the wanted one.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.
        fprs: The wanted FPRs, each above 0 and below 1.

    Returns:
        The operating points by the name of their rule.

    Raises:
        MetricError: As `compute_auc`, and for a wanted FPR outside (0, 1).
    """
    ranked = rank_scores(*check_two_classes(scores, labels))
    positives, negatives = ranked.positives, ranked.negatives
    all_positives, all_negatives = positives[-1], negatives[-1]
    # In integers, so that equal values are exactly equal.
    ahead = negatives * all_positives + positives * all_negatives - all_positives * all_negatives
    youden = positives * all_negatives - negatives * all_positives
    points = {
        "eer": _build_point(ranked, int(np.argmin(np.abs(ahead)))),
        "youden": _build_point(ranked, int(np.argmax(youden))),
    }
    for wanted in fprs:
        check_rate(wanted)
        last = int(find_place_at_fpr(negatives[np.newaxis], wanted)[0, 0])
        points[f"fpr_{100 * wanted:g}pct"] = _build_point(ranked, int((positives < positives[last]).sum()))
    return points


def _build_point(ranked: Ranked, place: int) -> OperatingPoint:
    """Build the operating point for a point of the ROC; its threshold calls exactly that point's samples positive."""
    thresholds = np.concatenate([[np.nextafter(ranked.thresholds[0], np.inf)], ranked.thresholds])
    threshold = float(thresholds[place])
    if 0 < place < len(ranked.thresholds):
        middle = 0.5 * threshold + 0.5 * float(thresholds[place + 1])
        threshold = middle if thresholds[place + 1] < middle <= threshold else threshold
    tpr, fpr = (float(counts[place] / counts[-1]) for counts in (ranked.positives, ranked.negatives))
    return OperatingPoint(threshold, tpr, fpr)
