"""Percentile bootstrap intervals over people (Efron & Tibshirani 1993, chapters 8 and 13).

Frames of one person are not independent: a round draws as many people as there are, with replacement, and takes all
the samples of each. All models and seeds see the same drawn people, so a difference is paired. Legend: N samples, S
seeds (one column of scores each), G groups (people), R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.metrics.checks import MetricError, check_both_classes, check_samples
from lib.metrics.groups import number_groups
from lib.metrics.interval import Interval, check_protocol, find_percentile_interval
from lib.metrics.resampling import Labels, Scores, Statistic, build_mean, compute_mean, resample

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
