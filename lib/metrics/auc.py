"""Area under the ROC curve: the share of (fake, real) pairs in which the fake scores higher, ties counting one half.

Legend: N samples; scores rise with fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import MetricError, check_both_classes, check_samples

__all__ = ["MetricError", "compute_auc", "compute_auc_by_rank"]


def compute_auc(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> float:
    """AUC of scores (N,) and labels (N,), by scikit-learn.

    Raises MetricError, naming the samples, for scores that are not finite, one class only, no samples or lengths that
    differ: an AUC that does not exist is never 0.5.
    """
    # Imported here, so that what scores nothing starts 0.8 s sooner; scikit-learn ships no types.
    from sklearn.metrics import roc_auc_score  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return float(cast(float, roc_auc_score(label_array, score_array)))


def compute_auc_by_rank(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The same number, about ten times as fast and unchecked, for resampling: Mann-Whitney U over its largest value."""
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    # Twice the pairs won: an integer, so the result is exact but for the last division.
    twice_won = np.searchsorted(reals, fakes, side="left").sum() + np.searchsorted(reals, fakes, side="right").sum()
    return float(twice_won / (2 * len(fakes) * len(reals)))
