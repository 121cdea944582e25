"""Accuracy at a threshold. Legend: N samples; scores rise with fakeness; labels real 0, fake 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.metrics.checks import MetricError, check_samples


def compute_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Share of samples on the right side: fake where score >= threshold. One class is enough; see `check_samples`."""
    if not np.isfinite(threshold):
        raise MetricError(f"the threshold must be finite, got {threshold}")
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return int(np.count_nonzero(right)) / len(right)
