"""Scores that are sorted once, and the ROCs of many resamples of their groups.

A resample that holds some group twice is the same samples, each counted twice: two running sums of the counts, over
fakes and reals from the highest score down, are its ROC in whole numbers. Nothing is sorted or copied again, and a
round takes time in proportion to the samples. Legend: N samples, F of them fakes and N - F reals, G groups, B rounds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import neg

import numpy as np
from numpy.typing import NDArray

from lib.metrics.groups import Counts
from lib.metrics.ranked import Ranked, find_corners, rank_scores


class GroupedScores:
    """Checked scores (N,) and labels (N,) of both classes, in groups 0..G-1: group_of (N,)."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> None:
        self.ranked: Ranked = rank_scores(scores, labels)
        is_fake = labels[self.ranked.order] == 1
        self._group_of_fakes = group_of[self.ranked.order[is_fake]]
        self._group_of_reals = group_of[self.ranked.order[~is_fake]]
        corners = find_corners(self.ranked.fakes, self.ranked.reals)
        self.fakes_at_corners, self.reals_at_corners = self.ranked.fakes[corners], self.ranked.reals[corners]

    @cached_property
    def steps_of_recall(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fakes and reals at or above each distinct score that some fake has."""
        places = np.flatnonzero(np.diff(self.ranked.fakes)) + 1
        return self.ranked.fakes[places], self.ranked.reals[places]

    def draw(self, counts: Counts) -> Drawn:
        """The ROCs of B resamples; counts (B, G): how often each group is in each."""
        return Drawn(self, _sum_up(counts, self._group_of_fakes), _sum_up(counts, self._group_of_reals))


@dataclass(frozen=True)
class Drawn:
    """B resamples of the same scores. fakes_among, reals_among: int64 (B, F + 1) and (B, N - F + 1), how often the
    highest 0, 1, 2, ... fakes and reals were drawn together.
    """

    of: GroupedScores
    fakes_among: NDArray[np.int64]
    reals_among: NDArray[np.int64]

    @cached_property
    def fakes(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.fakes_among.take(self.of.fakes_at_corners, axis=1)

    @cached_property
    def reals(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.reals_among.take(self.of.reals_at_corners, axis=1)

    def find_called_fake(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many fakes and how many reals of each resample score at the threshold or above: (B,) and (B,)."""
        ranked = self.of.ranked
        place = bisect_right(ranked.thresholds, -threshold, key=neg)  # they fall
        return self.fakes_among[:, ranked.fakes[place]], self.reals_among[:, ranked.reals[place]]


def _sum_up(counts: Counts, group_of: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(counts), len(group_of) + 1), np.int64)
    np.cumsum(counts.take(group_of, axis=1), axis=1, dtype=np.int64, out=sums[:, 1:])
    return sums
