"""Intervals of metrics and of differences, from their values on resamples of the groups.

An interval is value -+ t * s, with the standard error s of the bootstrap and Student's t. Percentiles of the resamples
are too narrow with few groups and lean towards the good end near a bound (Davison & Hinkley 1997, sections 2.5 and
5.3): of a nominal 95 % they cover 62 to 90 % with 10 groups (tests/metrics/test_coverage.py). Three things mend that:

- The interval of a metric with two bounds, such as an AUC, is symmetric on the logit scale; with a lower bound only,
  on the log scale. A difference has no such scale.
- s is multiplied by sqrt(G / (G - 1)), because the bootstrap's variance divides by G groups. On the logit scale, s is
  the mean of two estimates: the standard deviation of the resamples' logits, which is too large where some of them are
  close to the bound, and that of the resamples over the slope of the logit, which is too small there.
- Student's t has as many degrees of freedom as there are groups beyond one. Where the two classes are in different
  groups, it is Welch's number (Satterthwaite 1946) of two samples of groups with equal variance. Of a difference that
  few of the groups make, while the others have the same value in both models, it is less (`find_evenness`).

Where all resamples have one value, as at an AUC of exactly 1, nothing is known of s. With confidence 1 - a, at most a
share of 1 - a^(1/G) of all groups is of a kind that none of G groups is of (Clopper & Pearson 1934): the interval then
is what such groups could make of the value. At a bound it is one-sided.

Below FEWEST_GROUPS groups no interval supports a claim: there, coverage is not what it says.

Legend: G groups, R resamples, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import plural

LEVEL = 0.95  # the default
FEWEST_GROUPS = 10  # from this many groups on, intervals cover what they say, and claims are made
MARGIN = 0.01  # a model that is worse by less than this counts as equally good, where a metric is a share


@dataclass(frozen=True)
class Estimate:
    """A metric on all rows, or a difference of two models, with its interval over groups.

    Attributes:
        value: The metric or the difference; NaN where it is undefined.
        low: The lower end; None without an interval.
        high: The upper end; None without an interval.
        note: Why there is no value or no interval, or that the interval is one-sided.
        p_value: The two-sided p-value of a difference; None without an interval, and with too few groups for a claim.
        groups: The number of groups that the interval rests on, see `Sampling`; None without an interval.
        worse_p: Of a difference: the one-sided p-values of "the first is worse by the margin or more" and of "the
            second is"; None where there is no margin, no interval, or too few groups.
    """

    value: float
    low: float | None = None
    high: float | None = None
    note: str | None = None
    p_value: float | None = None
    groups: int | None = None
    worse_p: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sampling:
    """What was drawn from.

    Attributes:
        sizes: The number of groups that hold each class that the metric needs; one number for a metric of all rows.
        total: The number of groups in all.
        unit: What a group is called.
        evenness: The degrees of freedom that the groups' effects on a difference leave, see `find_evenness`; infinite
            where they are not known.
    """

    sizes: tuple[int, ...]
    total: int
    unit: str = "group"
    evenness: float = math.inf

    @property
    def freedom(self) -> float:
        """Degrees of freedom, above 0 for two groups or more."""
        return max(min(self.total - 1.0, _compute_welch(self.sizes)), 0.0)

    @property
    def groups(self) -> int:
        """The number of groups that the interval rests on: one more than the degrees of freedom, rounded down."""
        return math.floor(self.freedom + 1.0 + 1e-9)

    @property
    def is_enough(self) -> bool:
        """Whether there are enough groups for a claim."""
        return self.groups >= FEWEST_GROUPS

    def find_unseen(self, level: float) -> float:
        """Compute the largest share of all groups that may be of a kind that none of the drawn ones is of.

        Args:
            level: The confidence, 0 to 1.

        Returns:
            The share: about 3 / G at 95 %, the rule of three.
        """
        return float(1.0 - (1.0 - level) ** (1.0 / min(self.sizes)))


def find_evenness(without_one: NDArray[np.float64]) -> float:
    """Find the degrees of freedom of a variance that a few of the groups make, while the others have no effect.

    The variance of a sample variance s^2 of n values with fourth moment m4 is about (m4 - s^4) / n, so that it is as
    uncertain as one of 2 / (sum d^4 / (sum d^2)^2 - 1 / n) degrees of freedom (Satterthwaite 1946; effects d by the
    jackknife). For normal effects that is n; where 2 of 16 groups differ at all, 6.2.

    Args:
        without_one: The difference without each of the groups (n,); NaN where it is undefined.

    Returns:
        The degrees of freedom, 1 or more; infinite for fewer than two effects.
    """
    known = without_one[~np.isnan(without_one)]
    squares = (known - known.mean()) ** 2 if len(known) > 1 else np.zeros(1)
    if squares.sum() <= 0.0:
        return math.inf
    uneven = float((squares**2).sum() / squares.sum() ** 2) - 1.0 / len(known)
    return max(2.0 / uneven, 1.0) if uneven > 0.0 else math.inf


def _compute_welch(sizes: Sequence[int]) -> float:
    """Compute Welch's degrees of freedom for means of samples of these sizes and of equal variance."""
    if len(sizes) < 2:
        return math.inf
    if min(sizes) < 2:
        return min(sizes) - 1.0
    return sum(1 / n for n in sizes) ** 2 / sum(1 / (n * n * (n - 1)) for n in sizes)


Bounds = tuple[float, float]  # the lowest and the highest possible value, infinite where there is none
UNBOUNDED: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)


@dataclass(frozen=True)
class Spread:
    """The standard error of a value, or of a mean over seeds.

    Attributes:
        of_groups: The part that is due to the groups, corrected for their number.
        freedom: The degrees of freedom of that part, above 0.
        of_seeds: The part that is due to the seeds; 0 where they do not enter.
        seeds: How many seeds there are, S; 1 where they do not enter.
    """

    of_groups: float
    freedom: float
    of_seeds: float = 0.0
    seeds: int = 1

    @property
    def total(self) -> float:
        """The standard error of both parts."""
        return math.hypot(self.of_groups, self.of_seeds)

    @property
    def total_freedom(self) -> float:
        """The degrees of freedom of both parts together (Satterthwaite 1946)."""
        if self.of_seeds == 0.0:
            return self.freedom
        groups, seeds = self.of_groups**2, self.of_seeds**2
        return (groups + seeds) ** 2 / (groups**2 / self.freedom + seeds**2 / (self.seeds - 1))

    def find_reach(self, level: float) -> float:
        """Find how far an interval of this level reaches to either side: t * s."""
        from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        return float(cast(float, stdtrit(self.total_freedom, 0.5 + level / 2))) * self.total

    def find_tail(self, value: float) -> float:
        """Find the one-sided p-value of a value that is expected to be 0 or less."""
        from scipy.special import stdtr  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        return float(cast(float, stdtr(self.total_freedom, -value / self.total)))


def measure_spread(draws: NDArray[np.float64], sampling: Sampling, by_seed: Sequence[float] = ()) -> Spread:
    """Measure the standard error of a value.

    Args:
        draws: Its values on the resamples (R,).
        sampling: What was drawn from.
        by_seed: The value at each seed (S,), whose spread then enters; empty for a single training.

    Returns:
        The standard error in its parts.
    """
    freedom, seeds = max(sampling.freedom, 1e-3), len(by_seed)
    of_seeds = float(np.std(by_seed, ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    of_groups = float(draws.std()) * math.sqrt((freedom + 1) / freedom)
    return Spread(of_groups, min(freedom, sampling.evenness), of_seeds, max(seeds, 1))


def find_interval(
    value: float,
    draws: NDArray[np.float64],
    sampling: Sampling,
    *,
    bounds: Bounds = UNBOUNDED,
    by_seed: Sequence[float] = (),
    level: float = LEVEL,
    falls_with_share: bool = True,
) -> Estimate:
    """Find the interval of a metric.

    Args:
        value: The value on all rows; with several seeds their mean.
        draws: The values on the resamples (R,), finite.
        sampling: What was drawn from.
        bounds: The lowest and the highest possible value.
        by_seed: As in `measure_spread`.
        level: The confidence, 0 to 1.
        falls_with_share: Whether other groups, a share p of all, change the value by at most p of the way to a bound.

    Returns:
        The value with its interval.
    """
    spread, low, high = measure_spread(draws, sampling, by_seed), *bounds
    if is_flat(value, draws):
        return _bound_flat(value, sampling, bounds if falls_with_share else UNBOUNDED, spread, level)
    if math.isinf(low) or value in bounds:  # at a bound, where other resamples are not, there is no logit
        reach = spread.find_reach(level)
        return Estimate(value, max(value - reach, low), min(value + reach, high), groups=sampling.groups)
    scale = _Scale(low, high)
    slope = scale.find_slope(value)
    by_logits = float(scale.find(scale.pull_in(draws)).std()) * math.sqrt((spread.freedom + 1) / spread.freedom)
    of_groups = 0.5 * (slope * spread.of_groups + by_logits)
    there = float(scale.find(np.array(value)))
    reach = Spread(of_groups, spread.freedom, slope * spread.of_seeds, spread.seeds).find_reach(level)
    return Estimate(value, scale.turn_back(there - reach), scale.turn_back(there + reach), groups=sampling.groups)


def find_difference(
    value: float,
    draws: NDArray[np.float64],
    sampling: Sampling,
    *,
    bounds: Bounds = UNBOUNDED,
    by_seed: Sequence[float] = (),
    level: float = LEVEL,
    sign: float = 1.0,
) -> Estimate:
    """Find the interval of a difference of two models, its p-value, and the test of non-inferiority.

    Args:
        value: The difference on all rows, first minus second.
        draws: The differences on the resamples (R,).
        sampling: What was drawn from.
        bounds: The lowest and the highest possible value of the metric. The test of non-inferiority is made where both
            are finite; its margin is MARGIN of the way between them.
        by_seed: The difference at each seed (S,), as in `measure_spread`.
        level: The confidence, 0 to 1.
        sign: 1 where higher values are better, -1 where lower ones are.

    Returns:
        The difference with its interval; p-values where there are groups enough for a claim.
    """
    spread, size = measure_spread(draws, sampling, by_seed), bounds[1] - bounds[0]
    if is_flat(value, draws) and not spread.of_seeds:
        found = _bound_flat(value, sampling, (-size, size), spread, level)

        def find_tail(value: float) -> float:
            return (1.0 - min(max(value / (value + size), 0.0), 1.0)) ** min(sampling.sizes)
    else:
        reach = spread.find_reach(level)
        found, find_tail = Estimate(value, value - reach, value + reach, groups=sampling.groups), spread.find_tail
    if found.low is None or not sampling.is_enough:
        return found
    worse = None
    if math.isfinite(size):
        worse = find_tail(MARGIN * size + sign * value), find_tail(MARGIN * size - sign * value)
    return replace(found, p_value=min(1.0, 2.0 * find_tail(abs(value))), worse_p=worse)


def is_flat(value: float, draws: NDArray[np.float64]) -> bool:
    """Whether all resamples have the value itself, but for rounding."""
    return bool(np.abs(draws - value).max() <= 1e-12 * max(1.0, abs(value)))


def _bound_flat(value: float, sampling: Sampling, bounds: Bounds, spread: Spread, level: float) -> Estimate:
    """Bound a value that no resample changes; at a bound of the metric this is one-sided."""
    if not all(map(math.isfinite, bounds)):
        return Estimate(value, note="no interval: every resample has this value")
    unseen = sampling.find_unseen(level)
    more = replace(spread, of_groups=0.0).find_reach(level)
    low = max(value - unseen * (value - bounds[0]) - more, bounds[0])
    high = min(value + unseen * (bounds[1] - value) + more, bounds[1])
    note = (
        f"{'one-sided' if value in bounds else 'widest'} interval: every resample has this value, so its end is what "
        f"{plural(sampling.unit)} of another kind could make of it, of whom there may be {100 * unseen:.1f} % after "
        f"{min(sampling.sizes)} without one"
    )
    return Estimate(value, low, high, note=note, groups=sampling.groups)


@dataclass(frozen=True)
class _Scale:
    """The logit between two bounds, or the logarithm above one: ends of intervals are symmetric there."""

    low: float
    high: float

    def find(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        above = np.log(values - self.low)
        return above if math.isinf(self.high) else above - np.log(self.high - values)

    def find_slope(self, value: float) -> float:
        below = 0.0 if math.isinf(self.high) else 1.0 / (self.high - value)
        return 1.0 / (value - self.low) + below

    def turn_back(self, there: float) -> float:
        if math.isinf(self.high):
            return self.low + math.exp(there)
        return self.low + (self.high - self.low) * 0.5 * (1.0 + math.tanh(0.5 * there))

    def pull_in(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move resamples at a bound half-way to the nearest one that is not, for a bound has no logit."""
        inner = draws[(draws > self.low) & (draws < self.high)]
        least, most = float(inner.min()), float(inner.max())
        top = math.inf if math.isinf(self.high) else 0.5 * (most + self.high)
        return np.clip(draws, 0.5 * (least + self.low), top)
