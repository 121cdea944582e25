"""Equal error rate: the rate at which as many reals are called fake as fakes are called real.

The ROC is taken as the line from each of its points straight to the next, one point for each distinct score and (0, 0)
where nothing is called fake; the EER is the false positive rate where that line meets FPR = 1 - TPR. It is not the EER
of the ROC's convex hull, which is never larger. Legend: N samples, K distinct scores, B resamples; scores rise with
fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import check_both_classes, check_samples
from lib.metrics.ranked import rank_scores


def compute_eer(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> float:
    """EER of scores (N,) and labels (N,), 0..1; 0.5 for a model that guesses. Raises MetricError as `compute_auc`."""
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    ranked = rank_scores(score_array, label_array)
    return float(find_eer(ranked.fakes[np.newaxis], ranked.reals[np.newaxis])[0])


def find_eer(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> NDArray[np.float64]:
    """EER (B,) of B ROCs in whole numbers: fakes, reals (B, K + 1) as in `Ranked`, both classes present in each."""
    return np.array([_find_crossing(*roc) for roc in zip(fakes, reals, strict=True)])


def _find_crossing(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> float:
    all_fakes, all_reals = int(fakes[-1]), int(reals[-1])

    def ahead(place: int) -> int:
        """(FPR - FNR) * fakes * reals: whole, never falling, below 0 at the first point and above 0 at the last."""
        return int(reals[place]) * all_fakes + int(fakes[place]) * all_reals - all_fakes * all_reals

    after = bisect_left(range(len(fakes)), 0, key=ahead)
    share = ahead(after - 1) / (ahead(after - 1) - ahead(after))
    return (int(reals[after - 1]) + share * int(reals[after] - reals[after - 1])) / all_reals
