"""The reliability diagram in numbers: of the samples given about the same probability, the share that it was true of
(DeGroot & Fienberg 1983).

Legend: N samples, C classes, M bins ((m-1)/M, m/M]; labels 0..C-1, of the deepfake task real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.calibration import BINS, compute_log_softmax, find_bins, find_confidence
from lib.metrics.checks import check_logits


@dataclass(frozen=True)
class Reliability:
    """M bins of equal width. edges: float64 (M + 1,), 0..1; counts: int64 (M,), samples in each; said: float64 (M,),
    their mean probability; true: float64 (M,), the share that it was true of; both NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    said: NDArray[np.float64]
    true: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Mean of |true - said| over the samples."""
        filled = self.counts > 0
        gaps = np.abs(self.true[filled] - self.said[filled])
        return float(gaps @ self.counts[filled] / self.counts.sum())


def compute_reliability(
    logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS, sample_ids: Sequence[str] | None = None
) -> Reliability:
    """Of the probability of the predicted class: its `ece` is that of `compute_ece`. logits (N, C), labels (N,).

    Raises MetricError as `compute_ece` does.
    """
    values, classes = check_logits(logits, labels, sample_ids=sample_ids)
    return _build(*find_confidence(values, classes), bins)


def compute_reliability_of_fake(
    logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS, sample_ids: Sequence[str] | None = None
) -> Reliability:
    """Of the probability of class 1, fake: what a reader of "80 % fake" asks. logits (N, C), labels (N,).

    Raises MetricError as `compute_ece` does.
    """
    values, classes = check_logits(logits, labels, sample_ids=sample_ids)
    return _build(np.exp(compute_log_softmax(values)[:, 1]), (classes == 1).astype(np.float64), bins)


def _build(said: NDArray[np.float64], true: NDArray[np.float64], bins: int) -> Reliability:
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    bin_of = find_bins(said, bins)
    counts = np.bincount(bin_of, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        said=np.bincount(bin_of, said, minlength=bins) / some,
        true=np.bincount(bin_of, true, minlength=bins) / some,
    )
