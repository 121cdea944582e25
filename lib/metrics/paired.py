"""Whether two models differ on the same samples: a paired bootstrap over people, with its p-value.

Both see the same drawn people in every round. Legend: N samples, S seeds, R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.bootstrap import resample_difference
from lib.metrics.interval import Interval, check_protocol, find_percentile_interval
from lib.metrics.resampling import Statistic


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
