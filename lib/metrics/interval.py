"""A figure with its interval, from the values that it took in resamples (Efron & Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
