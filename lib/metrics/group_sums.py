"""Brier score, log loss and calibration error of many resamples at once, from sums over each group.

All are means over samples, or made of them: a resample's sums are those of its groups, as often as they were drawn.
Legend: N samples, G groups, B resamples; margins: log-odds of fake; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lib.metrics.calibration import BINS, find_bins, find_confidence
from lib.metrics.groups import OnBlock

SumStatistic = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], OnBlock]


def find_briers(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_brier`; all three (N,)."""
    probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return _build_mean((probability - labels) ** 2, group_of)


def find_log_losses(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_log_loss`; all three (N,)."""
    return _build_mean(np.logaddexp(0.0, np.where(labels == 1, -margins, margins)), group_of)


def find_eces(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_ece` with its usual bins; all three (N,)."""
    confidence, right = find_confidence(to_logits(margins), labels)
    cell = group_of * BINS + find_bins(confidence, BINS)
    size = int(group_of.max()) + 1
    gaps = np.bincount(cell, right - confidence, minlength=size * BINS).reshape(size, BINS)
    samples = np.bincount(group_of).astype(np.float64)
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / (counts @ samples)


def to_logits(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (N, 2) of two classes, real and fake, with these log-odds."""
    return np.stack([np.zeros_like(margins), margins], axis=1)


def _build_mean(values: NDArray[np.float64], group_of: NDArray[np.int64]) -> OnBlock:
    sums, samples = np.bincount(group_of, values), np.bincount(group_of).astype(np.float64)
    return lambda counts: (counts @ sums) / (counts @ samples)
