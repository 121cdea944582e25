"""Percentile bootstrap intervals over people (Efron & Tibshirani 1993, chapters 8 and 13).

Frames of one person are not independent: a round draws as many people as there are, with replacement, and takes all
the samples of each. All models and seeds see the same drawn people, so a difference is paired. Legend: N samples, S
seeds (one column of scores each), G groups (people), R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import MetricError, check_both_classes, check_samples

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
# (scores (n,), labels (n,)) -> number, called with both classes present; `compute_auc_by_rank` is the fast one.
Statistic = Callable[[Scores, Labels], float]


@dataclass(frozen=True)
class Interval:
    """The statistic on all samples, and the ends of its interval over people."""

    value: float
    low: float
    high: float


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
    stack, label_array = _check_stack(scores, labels)

    def compute(chosen: NDArray[np.int64]) -> float:
        return _compute_mean(statistic, stack[:, chosen], label_array[chosen])

    return _compute_interval(compute, label_array, groups, rounds=rounds, level=level, seed=seed)


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
    stack_a, label_array = _check_stack(scores_a, labels)
    stack_b, _ = _check_stack(scores_b, labels)

    def compute(chosen: NDArray[np.int64]) -> float:
        chosen_labels = label_array[chosen]
        mean_a = _compute_mean(statistic, stack_a[:, chosen], chosen_labels)
        return mean_a - _compute_mean(statistic, stack_b[:, chosen], chosen_labels)

    return _compute_interval(compute, label_array, groups, rounds=rounds, level=level, seed=seed)


def _check_stack(scores: ArrayLike, labels: ArrayLike) -> tuple[Scores, Labels]:
    stack = np.asarray(scores, dtype=np.float64)
    if stack.ndim != 2 or len(stack) == 0:
        raise MetricError(f"scores of several seeds must be (S, N) with S >= 1, got {stack.shape}")
    checked = [check_samples(row, labels) for row in stack]
    check_both_classes(checked[0][1])
    return stack, checked[0][1]


def _compute_mean(statistic: Statistic, stack: Scores, labels: Labels) -> float:
    return float(np.mean([statistic(row, labels) for row in stack]))


def _compute_interval(
    compute: Callable[[NDArray[np.int64]], float],
    labels: Labels,
    groups: Sequence[str],
    *,
    rounds: int,
    level: float,
    seed: int,
) -> Interval:
    """Percentile interval of compute(positions of the chosen samples)."""
    if rounds < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"rounds must be >= 1 and level between 0 and 1, got {rounds} and {level}")
    group_of = _number_groups(groups, samples=len(labels))
    draws = _draw_counts(group_of, labels, rounds=rounds, seed=seed)
    positions = np.arange(len(labels))
    values = [compute(np.repeat(positions, counts[group_of])) for counts in draws]
    low, high = np.quantile(values, [(1.0 - level) / 2, (1.0 + level) / 2])
    return Interval(value=compute(positions), low=float(low), high=float(high))


def _number_groups(groups: Sequence[str], *, samples: int) -> NDArray[np.int64]:
    """Group names (N,) as numbers 0..G-1 in the names' order, so that the order of the samples does not matter."""
    if len(groups) != samples:
        raise MetricError(f"{len(groups)} groups for {samples} samples")
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise MetricError(f"an interval over people needs two of them or more, all samples are of {names[0].item()!r}")
    return numbers.astype(np.int64)


def _draw_counts(group_of: NDArray[np.int64], labels: Labels, *, rounds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """R times: how often each group was drawn (G,). Draws that hold one class only are drawn again."""
    generator = np.random.default_rng(seed)
    reals, fakes = np.bincount(group_of, labels == 0), np.bincount(group_of, labels == 1)
    size = len(reals)
    for _ in range(rounds):
        while True:
            counts = np.bincount(generator.integers(size, size=size), minlength=size)
            if counts @ reals > 0 and counts @ fakes > 0:
                break
        yield counts
