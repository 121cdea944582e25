"""Metrics of two classes on many resamples at once.

Scores are sorted once. Each metric equals, to 1e-12, the function of `metrics.binary` or `metrics.calibration` on the
samples, each repeated as often as it was drawn.

A resample that holds a group twice counts each of its samples twice. So the ROC of a resample is two running sums of
these counts, one over positives and one over negatives, from the highest score down. Nothing is sorted or copied again,
and the time of a resample is proportional to the samples. Brier score, log loss and calibration error are computed from
sums over each group.

Legend: N samples, P of them positives and N - P negatives, G groups, B resamples; labels: the negatives 0, the
positives 1; margins: log-odds of class 1.
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
from sharpstudent.metrics.bootstrap import GroupCounts, build_mean
from sharpstudent.metrics.calibration import BINS, find_bins, find_confidence
from sharpstudent.metrics.checks import check_samples
from sharpstudent.metrics.metric import BinaryMetric, OnBlock

# Values computed at once. They fit in the processor's cache, which is three times as fast as a million at once.
CHUNK_CELLS = 2**15


class GroupedScores:
    """Scores of both classes in groups, sorted once for all resamples."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> None:
        """Sort the scores.

        Args:
            scores: (N,), checked.
            labels: (N,), 0 and 1, both of which occur.
            group_of: The group of each sample (N,), 0 to G - 1.
        """
        self.ranked: Ranked = rank_scores(scores, labels)
        is_positive = labels[self.ranked.order] == 1
        self._group_of_positives = group_of[self.ranked.order[is_positive]]
        self._group_of_negatives = group_of[self.ranked.order[~is_positive]]
        corners = find_corners(self.ranked.positives, self.ranked.negatives)
        self.positives_at_corners = self.ranked.positives[corners]
        self.negatives_at_corners = self.ranked.negatives[corners]

    @cached_property
    def steps_of_recall(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count positives and negatives at or above each distinct score that some positive has."""
        places = np.flatnonzero(np.diff(self.ranked.positives)) + 1
        return self.ranked.positives[places], self.ranked.negatives[places]

    def draw(self, counts: GroupCounts) -> Drawn:
        """Build the ROCs of B resamples; `counts` (B, G) says how often each group was drawn."""
        return Drawn(self, _sum_up(counts, self._group_of_positives), _sum_up(counts, self._group_of_negatives))


@dataclass(frozen=True)
class Drawn:
    """B resamples of the same scores.

    Attributes:
        of: The scores that were resampled.
        positives_among: int64 (B, P + 1), how many draws fell on the highest 0, 1, 2, ... positives.
        negatives_among: int64 (B, N - P + 1), the same for negatives.
    """

    of: GroupedScores
    positives_among: NDArray[np.int64]
    negatives_among: NDArray[np.int64]

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """Return the positives at the corners of the ROC (B, corners), counted as in `Ranked`."""
        return self.positives_among.take(self.of.positives_at_corners, axis=1)

    @cached_property
    def negatives(self) -> NDArray[np.int64]:
        """Return the negatives at the corners of the ROC (B, corners), counted as in `Ranked`."""
        return self.negatives_among.take(self.of.negatives_at_corners, axis=1)

    def count_called_positive(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the positives (B,) and the negatives (B,) of each resample at the threshold or above."""
        ranked = self.of.ranked
        place = bisect_right(ranked.thresholds, -threshold, key=neg)  # thresholds fall
        return self.positives_among[:, ranked.positives[place]], self.negatives_among[:, ranked.negatives[place]]


def _sum_up(counts: GroupCounts, group_of: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(counts), len(group_of) + 1), np.int64)
    np.cumsum(counts.take(group_of, axis=1), axis=1, dtype=np.int64, out=sums[:, 1:])
    return sums


DrawStatistic = Callable[[Drawn], NDArray[np.float64]]  # -> (B,)


def compute_aucs(drawn: Drawn) -> NDArray[np.float64]:
    """Compute AUCs (B,) from the Mann-Whitney U, exactly: the numbers of pairs are integers."""
    positives, negatives = drawn.positives, drawn.negatives
    twice_won = np.vecdot(negatives[:, 1:] - negatives[:, :-1], positives[:, 1:] + positives[:, :-1])
    # The sum counts, for each step to the right, the positives before it, and half of those that are tied with it.
    return twice_won / (2 * positives[:, -1] * negatives[:, -1])


def compute_average_precisions(drawn: Drawn) -> NDArray[np.float64]:
    """Compute average precisions (B,), as `compute_average_precision`."""
    at_positives, at_negatives = drawn.of.steps_of_recall
    total = np.zeros(len(drawn.positives_among))
    before = np.zeros((len(total), 1), np.int64)
    width = max(1, CHUNK_CELLS // len(total))
    for start in range(0, len(at_positives), width):
        part = slice(start, start + width)
        positives = drawn.positives_among.take(at_positives[part], axis=1)
        found = drawn.negatives_among.take(at_negatives[part], axis=1) + positives
        # Above the first drawn sample, both counts are 0; dividing by 1 gives precision 0, and recall does not grow.
        precision = positives / np.maximum(found, 1, out=found)
        total += np.vecdot(precision, np.diff(positives, axis=1, prepend=before).astype(np.float64))
        before = positives[:, -1:]
    return total / drawn.positives_among[:, -1]


def compute_eers(drawn: Drawn) -> NDArray[np.float64]:
    """Compute equal error rates (B,), as `compute_eer`."""
    return find_eer(drawn.positives, drawn.negatives)


def compute_tprs_at_fpr(drawn: Drawn, wanted: float) -> NDArray[np.float64]:
    """Compute TPRs at a wanted FPR, as `compute_tpr_at_fpr`.

    Args:
        drawn: B resamples.
        wanted: The highest FPR that is allowed, above 0 and below 1.

    Returns:
        The rates (B,).
    """
    return find_tpr_at_fpr(drawn.positives, drawn.negatives, wanted)


def compute_accuracies(drawn: Drawn, threshold: float) -> NDArray[np.float64]:
    """Compute accuracies at a threshold, as `compute_accuracy`.

    Args:
        drawn: B resamples.
        threshold: A sample is called positive from here on.

    Returns:
        The shares (B,).
    """
    found, alarms = drawn.count_called_positive(threshold)
    positives, negatives = drawn.positives_among[:, -1], drawn.negatives_among[:, -1]
    return (found + negatives - alarms) / (positives + negatives)


def compute_balanced_accuracies(drawn: Drawn, threshold: float) -> NDArray[np.float64]:
    """Compute balanced accuracies at a threshold, as `compute_balanced_accuracy`.

    Args:
        drawn: B resamples.
        threshold: A sample is called positive from here on.

    Returns:
        The means of both classes' shares (B,).
    """
    return 1.0 - 0.5 * (compute_fnrs(drawn, threshold) + compute_fprs(drawn, threshold))


def compute_fnrs(drawn: Drawn, threshold: float) -> NDArray[np.float64]:
    """Compute false negative rates at a threshold, as `compute_fnr`.

    Args:
        drawn: B resamples.
        threshold: A sample is called positive from here on.

    Returns:
        The rates (B,).
    """
    return 1.0 - drawn.count_called_positive(threshold)[0] / drawn.positives_among[:, -1]


def compute_fprs(drawn: Drawn, threshold: float) -> NDArray[np.float64]:
    """Compute false positive rates at a threshold, as `compute_fpr`.

    Args:
        drawn: B resamples.
        threshold: A sample is called positive from here on.

    Returns:
        The rates (B,).
    """
    return drawn.count_called_positive(threshold)[1] / drawn.negatives_among[:, -1]


# Margins (N,), labels (N,) and the group of each sample (N,) -> the metric on draws of groups.
SumStatistic = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], OnBlock]


def build_briers(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """Build the Brier score on draws of groups, as `compute_brier`.

    Args:
        margins: Log-odds of class 1 (N,).
        labels: (N,), 0 and 1.
        group_of: The group of each sample (N,), 0 to G - 1.

    Returns:
        A function of draws.
    """
    probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return build_mean((probability - labels) ** 2, group_of)


def build_log_losses(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """Build the log loss on draws of groups, as `compute_log_loss`.

    Args:
        margins: Log-odds of class 1 (N,).
        labels: (N,), 0 and 1.
        group_of: The group of each sample (N,), 0 to G - 1.

    Returns:
        A function of draws.
    """
    return build_mean(np.logaddexp(0.0, np.where(labels == 1, -margins, margins)), group_of)


def build_eces(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """Build the ECE on draws of groups, as `compute_ece` with its usual bins.

    Args:
        margins: Log-odds of class 1 (N,).
        labels: (N,), 0 and 1.
        group_of: The group of each sample (N,), 0 to G - 1.

    Returns:
        A function of draws.
    """
    confidence, right = find_confidence(to_logits(margins), labels)
    cell = group_of * BINS + find_bins(confidence, BINS)
    size = int(group_of.max()) + 1
    gaps = np.bincount(cell, right - confidence, minlength=size * BINS).reshape(size, BINS)
    samples = np.bincount(group_of).astype(np.float64)
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / (counts @ samples)


# The function of each metric for a whole table (None: the one for draws), and for draws.
_FORMS: Mapping[BinaryMetric, tuple[Callable[..., float] | None, DrawStatistic]] = {
    "auc": (compute_auc, compute_aucs),
    "auc_by_rank": (None, compute_aucs),
    "average_precision": (compute_average_precision, compute_average_precisions),
    "eer": (compute_eer, compute_eers),
}


def compute_counted(
    kind: BinaryMetric,
    scores: ArrayLike,
    labels: ArrayLike,
    counts: NDArray[np.int64],
    *,
    sample_ids: Sequence[str] | None = None,
) -> float:
    """Compute a metric of rows that were drawn more than once or not at all.

    If each row was drawn once, the value equals that of the function in `metrics.binary` to the last bit.

    Args:
        kind: Which metric.
        scores: (N,).
        labels: (N,), 0 and 1.
        counts: How often each row was drawn (N,).
        sample_ids: N names for error messages.

    Returns:
        The value; NaN where no row of a class was drawn.

    Raises:
        MetricError: As `check_samples`.
    """
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    if not (bool(counts[label_array == 0].any()) and bool(counts[label_array == 1].any())):
        return float("nan")
    plain, on_draws = _FORMS[kind]
    if plain is not None and bool((counts == 1).all()):
        return plain(score_array, label_array)
    grouped = GroupedScores(score_array, label_array, np.arange(len(score_array)))  # each row is a group of its own
    return float(on_draws(grouped.draw(counts[np.newaxis]))[0])


def build_on_block(kind: BinaryMetric, scores: ArrayLike, labels: ArrayLike, group_of: NDArray[np.int64]) -> OnBlock:
    """Build a metric on draws of groups.

    Args:
        kind: Which metric.
        scores: (N,).
        labels: (N,), 0 and 1.
        group_of: The group of each row (N,), 0 to G - 1.

    Returns:
        A function of draws that hold both classes.

    Raises:
        MetricError: As `check_samples`.
    """
    grouped, form = GroupedScores(*check_samples(scores, labels), group_of), _FORMS[kind][1]
    return lambda counts: form(grouped.draw(counts))
