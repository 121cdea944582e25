"""Metrics of two classes on many resamples at once: scores are sorted once, and each metric equals its plain function
on the samples as often as they were drawn, to 1e-12.

A resample that holds some group twice is the same samples, each counted twice: two running sums of the counts, over
positives and negatives from the highest score down, are its ROC in whole numbers. Nothing is sorted or copied again,
and a round takes time in proportion to the samples. Brier score, log loss and calibration error are made of sums over
each group. Legend: N samples, P of them positives and N - P negatives, G groups, B resamples; labels: the negatives 0,
the positives 1; margins: log-odds of class 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import neg

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.binary import (
    Ranked,
    compute_auc,
    compute_average_precision,
    compute_eer,
    find_corners,
    find_eer,
    find_tpr_at_fpr,
    rank_scores,
    to_logits,
)
from sharpstudent.metrics.bootstrap import (
    GroupCounts,
    build_mean,
)
from sharpstudent.metrics.calibration import BINS, find_bins, find_confidence
from sharpstudent.metrics.checks import check_samples
from sharpstudent.metrics.metric import BinaryMetric, OnBlock

CHUNK_CELLS = 2**15  # in the processor's cache: three times as fast as a million at once


class GroupedScores:
    """Checked scores (N,) and labels (N,) of both classes, in groups 0..G-1: group_of (N,)."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> None:
        self.ranked: Ranked = rank_scores(scores, labels)
        is_positive = labels[self.ranked.order] == 1
        self._group_of_positives = group_of[self.ranked.order[is_positive]]
        self._group_of_negatives = group_of[self.ranked.order[~is_positive]]
        corners = find_corners(self.ranked.positives, self.ranked.negatives)
        self.positives_at_corners = self.ranked.positives[corners]
        self.negatives_at_corners = self.ranked.negatives[corners]

    @cached_property
    def steps_of_recall(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positives and negatives at or above each distinct score that some positive has."""
        places = np.flatnonzero(np.diff(self.ranked.positives)) + 1
        return self.ranked.positives[places], self.ranked.negatives[places]

    def draw(self, counts: GroupCounts) -> Drawn:
        """The ROCs of B resamples; counts (B, G): how often each group is in each."""
        return Drawn(self, _sum_up(counts, self._group_of_positives), _sum_up(counts, self._group_of_negatives))


@dataclass(frozen=True)
class Drawn:
    """B resamples of the same scores.

    positives_among, negatives_among: int64 (B, P + 1) and (B, N - P + 1), how often the highest 0, 1, 2, ... positives
    and negatives were drawn together.
    """

    of: GroupedScores
    positives_among: NDArray[np.int64]
    negatives_among: NDArray[np.int64]

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.positives_among.take(self.of.positives_at_corners, axis=1)

    @cached_property
    def negatives(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.negatives_among.take(self.of.negatives_at_corners, axis=1)

    def find_called_positive(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many positives and how many negatives of each resample score at the threshold or above: (B,) and (B,)."""
        ranked = self.of.ranked
        place = bisect_right(ranked.thresholds, -threshold, key=neg)  # they fall
        return self.positives_among[:, ranked.positives[place]], self.negatives_among[:, ranked.negatives[place]]


def _sum_up(counts: GroupCounts, group_of: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(counts), len(group_of) + 1), np.int64)
    np.cumsum(counts.take(group_of, axis=1), axis=1, dtype=np.int64, out=sums[:, 1:])
    return sums


DrawStatistic = Callable[[Drawn], NDArray[np.float64]]  # -> (B,)


def find_aucs(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_auc_by_rank`, to the last bit: the pairs won are whole numbers here, too."""
    positives, negatives = drawn.positives, drawn.negatives
    twice_won = np.vecdot(negatives[:, 1:] - negatives[:, :-1], positives[:, 1:] + positives[:, :-1])
    # Above: pairs of each step to the right with the positives before it, and half of those that are tied with it.
    return twice_won / (2 * positives[:, -1] * negatives[:, -1])


def find_average_precisions(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_average_precision`."""
    at_positives, at_negatives = drawn.of.steps_of_recall
    total = np.zeros(len(drawn.positives_among))
    before = np.zeros((len(total), 1), np.int64)
    width = max(1, CHUNK_CELLS // len(total))
    for start in range(0, len(at_positives), width):
        part = slice(start, start + width)
        positives = drawn.positives_among.take(at_positives[part], axis=1)
        found = drawn.negatives_among.take(at_negatives[part], axis=1) + positives
        # Before the first sample that was drawn nothing is found, and no recall gained: 0 / 1 of 0.
        precision = positives / np.maximum(found, 1, out=found)
        total += np.vecdot(precision, np.diff(positives, axis=1, prepend=before).astype(np.float64))
        before = positives[:, -1:]
    return total / drawn.positives_among[:, -1]


def find_eers(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_eer`."""
    return find_eer(drawn.positives, drawn.negatives)


def at_fpr(wanted: float) -> DrawStatistic:
    """As `compute_tpr_at_fpr`: the TPR."""
    return lambda drawn: find_tpr_at_fpr(drawn.positives, drawn.negatives, wanted)


def accuracy_at(threshold: float) -> DrawStatistic:
    """As `compute_accuracy`."""

    def find(drawn: Drawn) -> NDArray[np.float64]:
        found, alarms = drawn.find_called_positive(threshold)
        positives, negatives = drawn.positives_among[:, -1], drawn.negatives_among[:, -1]
        return (found + negatives - alarms) / (positives + negatives)

    return find


def balanced_accuracy_at(threshold: float) -> DrawStatistic:
    """As `compute_balanced_accuracy`."""
    fnr, fpr = fnr_at(threshold), fpr_at(threshold)
    return lambda drawn: 1.0 - 0.5 * (fnr(drawn) + fpr(drawn))


def fnr_at(threshold: float) -> DrawStatistic:
    """As `compute_fnr`."""
    return lambda drawn: 1.0 - drawn.find_called_positive(threshold)[0] / drawn.positives_among[:, -1]


def fpr_at(threshold: float) -> DrawStatistic:
    """As `compute_fpr`."""
    return lambda drawn: drawn.find_called_positive(threshold)[1] / drawn.negatives_among[:, -1]


SumStatistic = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], OnBlock]


def find_briers(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_brier`; all three (N,)."""
    probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return build_mean((probability - labels) ** 2, group_of)


def find_log_losses(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_log_loss`; all three (N,)."""
    return build_mean(np.logaddexp(0.0, np.where(labels == 1, -margins, margins)), group_of)


def find_eces(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_ece` with its usual bins; all three (N,)."""
    confidence, right = find_confidence(to_logits(margins), labels)
    cell = group_of * BINS + find_bins(confidence, BINS)
    size = int(group_of.max()) + 1
    gaps = np.bincount(cell, right - confidence, minlength=size * BINS).reshape(size, BINS)
    samples = np.bincount(group_of).astype(np.float64)
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / (counts @ samples)


_PLAIN = {"auc": compute_auc, "average_precision": compute_average_precision, "eer": compute_eer}
_ON_DRAWS: Mapping[BinaryMetric, DrawStatistic] = {
    "auc": find_aucs,
    "auc_by_rank": find_aucs,
    "average_precision": find_average_precisions,
    "eer": find_eers,
}


def compute_counted(
    kind: BinaryMetric,
    scores: ArrayLike,
    labels: ArrayLike,
    counts: NDArray[np.int64],
    *,
    sample_ids: Sequence[str] | None = None,
) -> float:
    """The metric of scores (N,) and labels (N,) that were drawn so often (N,); NaN where no row of a class was drawn.

    Of rows that were drawn once each, it is that of the plain function, to the last bit. Raises MetricError, naming
    the samples, as `check_samples`.
    """
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    if not (bool(counts[label_array == 0].any()) and bool(counts[label_array == 1].any())):
        return float("nan")
    if kind in _PLAIN and bool((counts == 1).all()):
        return _PLAIN[kind](score_array, label_array)
    grouped = GroupedScores(score_array, label_array, np.arange(len(score_array)))  # each row a group of its own
    return float(_ON_DRAWS[kind](grouped.draw(counts[np.newaxis]))[0])


def build_on_block(kind: BinaryMetric, scores: ArrayLike, labels: ArrayLike, group_of: NDArray[np.int64]) -> OnBlock:
    """The metric on draws of groups that hold both classes. scores, labels, group_of: (N,)."""
    grouped, form = GroupedScores(*check_samples(scores, labels), group_of), _ON_DRAWS[kind]
    return lambda counts: form(grouped.draw(counts))
