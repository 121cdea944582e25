"""Accuracy at a threshold. Legend: N samples; scores rise with fakeness; labels real 0, fake 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.metrics.checks import check_both_classes, check_samples, check_threshold


def compute_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Share of samples on the right side: fake where score >= threshold. One class is enough; see `check_samples`."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return int(np.count_nonzero(right)) / len(right)


def compute_balanced_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Mean of the share of fakes and the share of reals on the right side: 0.5 for a model that says one thing of all.

    Raises MetricError as `compute_auc` does.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return float(0.5 * (right[label_array == 1].mean() + right[label_array == 0].mean()))
