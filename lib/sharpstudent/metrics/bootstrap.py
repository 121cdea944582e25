"""Bootstrap over groups: draws, intervals, and paired differences of two models.

A figure with its interval, from the values that it took in resamples (Efron & Tibshirani 1993, chapter 13).

A statistic on resamples of groups, averaged over seeds: the fast form where the statistic has one.

Legend: N samples, S seeds (one row of scores each), G groups, R rounds in blocks of B.

Percentile bootstrap intervals over people (Efron & Tibshirani 1993, chapters 8 and 13).

Frames of one person are not independent: a round draws as many people as there are, with replacement, and takes all
the samples of each. All models and seeds see the same drawn people, so a difference is paired. Legend: N samples, S
seeds (one column of scores each), G groups (people), R rounds.

Whether two models differ on the same samples: a paired bootstrap over people, with its p-value.

Both see the same drawn people in every round. Legend: N samples, S seeds, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.binary import compute_auc_by_rank, compute_average_precision, compute_eer
from sharpstudent.metrics.checks import MetricError, check_both_classes, check_samples
from sharpstudent.metrics.draws import (
    Counts,
    DrawStatistic,
    GroupedScores,
    OnBlock,
    draw_blocks,
    find_aucs,
    find_average_precisions,
    find_eers,
    number_groups,
)


@dataclass(frozen=True)
class Interval:
    """The statistic on all samples, and the ends of its interval over people."""

    value: float
    low: float
    high: float


def find_percentile_interval(value: float, values: NDArray[np.float64], *, level: float) -> Interval:
    """values (R,): of R resamples; level: the share of them between the ends."""
    low, high = np.quantile(values, [(1.0 - level) / 2, (1.0 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def check_protocol(rounds: int, level: float) -> None:
    """Raise ValueError for no rounds, and for a level that is no share."""
    if rounds < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"rounds must be >= 1 and level between 0 and 1, got {rounds} and {level}")


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


__all__ = [
    "Interval",
    "Statistic",
    "check_stack",
    "compute_interval_by_group",
    "compute_mean_interval_over_seeds",
    "compute_paired_interval",
    "compute_paired_mean_interval_over_seeds",
    "resample_difference",
]


def compute_interval_by_group(
    statistic: Statistic,
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Interval of one model's statistic. scores and labels (N,), groups: the N samples' people.

    A round that drew one class only is drawn again. Raises MetricError where `check_samples` does, and for one class or
    one group: one person says nothing about people.
    """
    stack = np.asarray(scores, dtype=np.float64)[np.newaxis]
    return compute_mean_interval_over_seeds(statistic, stack, labels, groups, rounds=rounds, level=level, seed=seed)


def compute_mean_interval_over_seeds(
    statistic: Statistic,
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Interval of the statistic averaged over seeds, scores (S, N): the spread over people, at these S seeds."""
    stack, label_array = check_stack(scores, labels)
    check_protocol(rounds, level)
    group_of = number_groups(groups, samples=len(label_array))
    mean = build_mean(statistic, stack, label_array, group_of)
    values = resample(mean, label_array, group_of, rounds=rounds, seed=seed)
    return find_percentile_interval(compute_mean(statistic, stack, label_array), values, level=level)


def compute_paired_interval(
    statistic: Statistic,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Interval of statistic(a) - statistic(b), two models on the same samples: scores (N,) each."""
    stack_a = np.asarray(scores_a, dtype=np.float64)[np.newaxis]
    stack_b = np.asarray(scores_b, dtype=np.float64)[np.newaxis]
    return compute_paired_mean_interval_over_seeds(
        statistic, stack_a, stack_b, labels, groups, rounds=rounds, level=level, seed=seed
    )


def compute_paired_mean_interval_over_seeds(
    statistic: Statistic,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Interval of mean over seeds of a minus that of b: scores (S_a, N) and (S_b, N) on the same samples."""
    check_protocol(rounds, level)
    value, values = resample_difference(statistic, scores_a, scores_b, labels, groups, rounds=rounds, seed=seed)
    return find_percentile_interval(value, values, level=level)


def resample_difference(
    statistic: Statistic,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int,
    seed: int,
) -> tuple[float, Scores]:
    """The difference that `compute_paired_mean_interval_over_seeds` is about: on all samples, and in R rounds (R,)."""
    stack_a, label_array = check_stack(scores_a, labels)
    stack_b, _ = check_stack(scores_b, labels)
    group_of = number_groups(groups, samples=len(label_array))
    mean_a, mean_b = (build_mean(statistic, stack, label_array, group_of) for stack in (stack_a, stack_b))
    values = resample(lambda c: mean_a(c) - mean_b(c), label_array, group_of, rounds=rounds, seed=seed)
    value = compute_mean(statistic, stack_a, label_array) - compute_mean(statistic, stack_b, label_array)
    return value, values


def check_stack(scores: ArrayLike, labels: ArrayLike) -> tuple[Scores, Labels]:
    """Scores (S, N) and labels (N,) of both classes, or a MetricError."""
    stack = np.asarray(scores, dtype=np.float64)
    if stack.ndim != 2 or len(stack) == 0:
        raise MetricError(f"scores of several seeds must be (S, N) with S >= 1, got {stack.shape}")
    checked = [check_samples(row, labels) for row in stack]
    check_both_classes(checked[0][1])
    return stack, checked[0][1]


@dataclass(frozen=True)
class PairedTest:
    """difference: statistic of a minus that of b; p_value: two-sided, of there being none."""

    difference: Interval
    p_value: float


def compute_paired_test(
    statistic: Statistic,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    level: float = 0.95,
    seed: int,
) -> PairedTest:
    """Of two models on the same samples: scores (N,) each, labels (N,), groups: the N samples' people.

    The interval is that of `compute_paired_interval`. Raises MetricError where that does.
    """
    check_protocol(rounds, level)
    stack_a = np.asarray(scores_a, dtype=np.float64)[np.newaxis]
    stack_b = np.asarray(scores_b, dtype=np.float64)[np.newaxis]
    value, values = resample_difference(statistic, stack_a, stack_b, labels, groups, rounds=rounds, seed=seed)
    return PairedTest(find_percentile_interval(value, values, level=level), find_p_value(values))


def find_p_value(differences: NDArray[np.float64]) -> float:
    """Twice the share of the R rounds on the rarer side of 0, a difference of 0 being on both; 2 / (R + 1) at least.

    It is the smallest 1 - level whose percentile interval leaves 0 out (Davison & Hinkley 1997, chapter 4), with the
    sample itself counted as one more round, so that it is never 0.
    """
    rarer = min(np.count_nonzero(differences <= 0.0), np.count_nonzero(differences >= 0.0))
    return min(1.0, 2.0 * (rarer + 1) / (len(differences) + 1))
