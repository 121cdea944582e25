"""A statistic on resamples of groups, averaged over seeds: the fast form where the statistic has one.

Legend: N samples, S seeds (one row of scores each), G groups, R rounds in blocks of B.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lib.metrics.auc import compute_auc_by_rank
from lib.metrics.average_precision import compute_average_precision
from lib.metrics.draw_statistics import DrawStatistic, find_aucs, find_average_precisions, find_eers
from lib.metrics.draws import GroupedScores
from lib.metrics.eer import compute_eer
from lib.metrics.groups import Counts, OnBlock, draw_blocks

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
# (scores (n,), labels (n,)) -> number, called with both classes present. Those of _FAST_FORMS are fast, any other is
# called R * S times on copies of the samples.
Statistic = Callable[[Scores, Labels], float]

_FAST_FORMS: tuple[tuple[Statistic, DrawStatistic], ...] = (
    (compute_auc_by_rank, find_aucs),
    (compute_average_precision, find_average_precisions),
    (compute_eer, find_eers),
)


def resample(
    on_block: OnBlock, labels: Labels, group_of: NDArray[np.int64], *, rounds: int, seed: int
) -> NDArray[np.float64]:
    """The R values of R draws of the groups; see `draw_counts`."""
    return np.concatenate([on_block(c) for c in draw_blocks(group_of, labels, rounds=rounds, seed=seed)])


def build_mean(statistic: Statistic, stack: Scores, labels: Labels, group_of: NDArray[np.int64]) -> OnBlock:
    """The mean over seeds of the statistic on each resample; stack: checked scores (S, N)."""
    forms = [_build_one(statistic, row, labels, group_of) for row in stack]
    return lambda counts: np.stack([form(counts) for form in forms], axis=1).mean(axis=1)


def compute_mean(statistic: Statistic, stack: Scores, labels: Labels) -> float:
    """On all samples."""
    return float(np.mean([statistic(row, labels) for row in stack]))


def _build_one(statistic: Statistic, scores: Scores, labels: Labels, group_of: NDArray[np.int64]) -> OnBlock:
    for known, form in _FAST_FORMS:
        if statistic is known:
            grouped = GroupedScores(scores, labels, group_of)
            return lambda counts: form(grouped.draw(counts))

    positions = np.arange(len(labels))

    def call(counts: Counts) -> float:
        chosen = np.repeat(positions, counts[group_of])
        return statistic(scores[chosen], labels[chosen])

    return lambda block: np.array([call(counts) for counts in block])
