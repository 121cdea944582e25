"""The ROC in whole numbers: how many fakes and reals score at or above each threshold.

Legend: N samples, K distinct scores; scores rise with fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranked:
    """order: int64 (N,), the samples from the highest score down. thresholds: float64 (K,), the distinct scores, the
    highest first. fakes, reals: int64 (K + 1,), how many score at or above thresholds[k - 1]; 0 at k = 0, where nothing
    is called fake, and all of them at k = K.
    """

    order: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    fakes: NDArray[np.int64]
    reals: NDArray[np.int64]


def rank_scores(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> Ranked:
    """Of checked scores (N,) and labels (N,)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of the samples that are tied
    fakes = np.concatenate([[0], np.cumsum(labels[order])[last]])
    return Ranked(order, ranked[last], fakes, np.concatenate([[0], last + 1]) - fakes)


def find_corners(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which points of a ROC (K + 1,) are enough to draw it: not those on the way straight up (fakes alone) or straight
    to the right (reals alone), however often each sample is counted.
    """
    up, right = np.diff(fakes) > 0, np.diff(reals) > 0
    goes_on = (up[1:] == up[:-1]) & (right[1:] == right[:-1]) & (up[1:] != right[1:])
    return np.flatnonzero(np.concatenate([[True], ~goes_on, [True]]))
