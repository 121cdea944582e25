"""ROC, precision-recall and DET curves as points for pictures and CSV files: one for each threshold, thinned.

Figures are never made of these points. Legend: P points; scores rise with fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import check_both_classes, check_samples
from lib.metrics.ranked import Ranked, find_corners, rank_scores
from lib.metrics.thinning import Axes, thin_curve


@dataclass(frozen=True)
class Curve:
    """x, y: float64 (P,), 0..1, from the highest threshold down; thresholds: float64 (P,), the first of them inf, where
    nothing is called fake; moved: how far the curve lies, at most, from the one through all thresholds.
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
    corners = find_corners(ranked.fakes, ranked.reals)
    fpr, tpr = (ranked.reals / ranked.reals[-1])[corners], (ranked.fakes / ranked.fakes[-1])[corners]
    return _build("fpr", "tpr", (fpr, tpr), _list_thresholds(ranked)[corners], [(fpr, tpr)])


def compute_det(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> Curve:
    """FPR and FNR from (0, 1) to (1, 0), for axes of normal deviates (Martin et al. 1997).

    Thinned for those axes and for plain ones. There a rate of 0 or 1 has no place; draw it as half a sample, as it was
    thinned. Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    corners = find_corners(ranked.fakes, ranked.reals)
    fakes, reals = int(ranked.fakes[-1]), int(ranked.reals[-1])
    fpr, fnr = ranked.reals[corners] / reals, (fakes - ranked.fakes[corners]) / fakes
    # 0.4 of a deviate is at least the change of rate: the density of the normal distribution is nowhere higher.
    deviates = 0.4 * find_deviates(fpr, reals), 0.4 * find_deviates(fnr, fakes)
    return _build("fpr", "fnr", (fpr, fnr), _list_thresholds(ranked)[corners], [(fpr, fnr), deviates])


def compute_pr(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> Curve:
    """Recall and precision; at recall 0, where nothing is called fake, precision is 1 by convention (scikit-learn's).

    Ends where recall first is 1. Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    end = int((ranked.fakes < ranked.fakes[-1]).sum()) + 1
    fakes, reals = ranked.fakes[:end], ranked.reals[:end]
    recall = fakes / fakes[-1]
    precision = np.concatenate([[1.0], fakes[1:] / (fakes[1:] + reals[1:])])
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
