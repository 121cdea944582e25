"""Bootstrap over groups: confidence intervals of a metric, and paired differences of two models.

Rows of one group, such as the pictures of one person, are not independent. So a round draws as many groups as there
are, with replacement, and takes all rows of each. The ends of an interval are percentiles of the metric's values over
the rounds (Efron & Tibshirani 1993, chapters 8 and 13). All models and seeds see the same drawn groups, so a difference
is paired.

Legend: N rows, S seeds (one table each), G groups, R rounds in blocks of B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import plural
from sharpstudent.core.types import Table
from sharpstudent.metrics.checks import MetricError, explain_undefined, name_some, number_names
from sharpstudent.metrics.metric import Metric, OnBlock

# How often each group was drawn (B, G). The integer type is as narrow as possible: it is read N times a round.
GroupCounts = NDArray[np.unsignedinteger[Any] | np.int64]
LEVEL, SEED = 0.95, 0  # the defaults
BLOCK_CELLS = 2**18  # draws times rows in one block: it bounds the memory, whatever the number of rounds
MOST_TRIES = 1000  # attempts to draw a round that holds every stratum
MOST_UNDEFINED = 0.05  # share of the rounds without a value, above which there is no interval
Tables = Table | Sequence[Table]  # one model's table, or one table a seed, of the same rows


@dataclass(frozen=True)
class Estimate:
    """A metric on all rows, or a difference of two models, with its interval over groups.

    Attributes:
        value: The metric or the difference; NaN where it is undefined.
        low: The lower end; None without an interval.
        high: The upper end; None without an interval.
        note: Why there is no value or no interval.
        p_value: The two-sided p-value of a difference; None without an interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    note: str | None = None
    p_value: float | None = None


def compute_interval(
    metric: Metric,
    table: Tables,
    *,
    rounds: int = 1000,
    level: float = LEVEL,
    seed: int = SEED,
    group_unit: str = "group",
) -> Estimate:
    """Compute a metric with its interval over the groups in column `group`.

    Args:
        metric: The metric.
        table: The rows of one model, or a list with the rows of the same model at several seeds. Then the value is
            the mean over the seeds, and its interval shows the spread over groups for these seeds.
        rounds: How many resamples are drawn. Those without a value are left out; with more than 5 % of them there is
            no interval.
        level: The share of the resamples between the ends, 0 to 1.
        seed: The seed of the draws.
        group_unit: What the note calls a group where there are fewer than two.

    Returns:
        The value with its interval; a note says why there is none.
    """
    tables = join_tables(_list_tables(table), same=metric.strata)
    return _estimate(metric, [tables], rounds, level, seed, group_unit)[0]


def compute_paired(
    metric: Metric,
    table_a: Tables,
    table_b: Tables,
    *,
    rounds: int = 2000,
    level: float = LEVEL,
    seed: int = SEED,
    group_unit: str = "group",
) -> Estimate:
    """Compute the metric of model a minus that of model b on the same rows, which are joined by `id`.

    Both models see the same drawn groups, so that the difference is paired.

    Args:
        metric: The metric.
        table_a: The rows of model a, of one seed or of several as in `compute_interval`.
        table_b: The rows of model b.
        rounds: How many resamples are drawn.
        level: The share of the resamples between the ends, 0 to 1.
        seed: The seed of the draws.
        group_unit: What the note calls a group where there are fewer than two.

    Returns:
        The difference with its interval and p-value.

    Raises:
        MetricError: Where the tables do not have the same rows; the message names some.
    """
    tables_a = _list_tables(table_a)
    joined = join_tables([*tables_a, *_list_tables(table_b)], same=metric.strata)
    sides = [joined[: len(tables_a)], joined[len(tables_a) :]]
    difference, values = _estimate(metric, sides, rounds, level, seed, group_unit)
    return difference if difference.low is None else replace(difference, p_value=find_p_value(values))


def resample(
    on_block: OnBlock,
    group_of: NDArray[np.int64],
    *,
    rounds: int,
    seed: int,
    must_hold: Sequence[NDArray[np.int64]] = (),
) -> NDArray[np.float64]:
    """Compute a metric on R draws of the groups.

    Args:
        on_block: The metric on a block of draws; it may give K values a draw, (K, B).
        group_of: The group of each row (N,), 0 to G - 1.
        rounds: How many draws, R.
        seed: The seed of the draws.
        must_hold: Sets of groups of which every draw must hold one, as in `draw_counts`.

    Returns:
        The values (R,), or (K, R).

    Raises:
        MetricError: Where hardly any draw holds all sets.
    """
    blocks = draw_blocks(group_of, rounds=rounds, seed=seed, must_hold=must_hold)
    return np.concatenate([on_block(counts) for counts in blocks], axis=-1)


def find_strata(group_of: NDArray[np.int64], column: NDArray[Any]) -> list[NDArray[np.int64]]:
    """List the groups of each stratum.

    Args:
        group_of: The group of each row (N,).
        column: The strata: a value for each row (N,).

    Returns:
        For each distinct value, the numbers of the groups that have it.
    """
    return [np.unique(group_of[column == value]) for value in np.unique(column)]


def draw_counts(
    group_of: NDArray[np.int64], *, rounds: int, seed: int, must_hold: Sequence[NDArray[np.int64]] = ()
) -> Iterator[NDArray[np.int64]]:
    """Draw as many groups as there are, with replacement, R times.

    Args:
        group_of: The group of each row (N,), 0 to G - 1.
        rounds: How many draws, R.
        seed: The seed of the draws.
        must_hold: Sets of groups; a draw that holds none of one of the sets is drawn again.

    Yields:
        How often each group was drawn (G,).

    Raises:
        MetricError: Where none of a thousand draws holds all sets.
    """
    generator = np.random.default_rng(seed)
    size = int(group_of.max()) + 1
    for _ in range(rounds):
        for _ in range(MOST_TRIES):
            counts = np.bincount(generator.integers(size, size=size), minlength=size)
            if all(_holds_any(counts, groups) for groups in must_hold):
                break
        else:
            raise MetricError(f"of {size} groups, hardly any draw holds all {len(must_hold)} strata")
        yield counts


def draw_blocks(
    group_of: NDArray[np.int64], *, rounds: int, seed: int, must_hold: Sequence[NDArray[np.int64]] = ()
) -> Iterator[GroupCounts]:
    """Draw as `draw_counts` does, B draws at a time.

    Args:
        group_of: The group of each row (N,), 0 to G - 1.
        rounds: How many draws, R.
        seed: The seed of the draws.
        must_hold: Sets of groups of which every draw must hold one, as in `draw_counts`.

    Yields:
        How often each group was drawn (B, G).
    """
    most = max(1, BLOCK_CELLS // max(len(group_of), int(group_of.max()) + 1))
    waiting: list[GroupCounts] = []
    for done, counts in enumerate(draw_counts(group_of, rounds=rounds, seed=seed, must_hold=must_hold), start=1):
        waiting.append(counts.astype(np.uint16) if counts.max() < 2**16 else counts)
        if len(waiting) == most or done == rounds:
            yield np.stack(waiting)
            waiting.clear()


def build_mean(values: NDArray[np.float64], group_of: NDArray[np.int64]) -> OnBlock:
    """Build the mean over the rows of each draw, from sums over each group.

    Args:
        values: A value for each row (N,); rows of NaN do not count.
        group_of: The group of each row (N,), 0 to G - 1.

    Returns:
        A function of draws; NaN for a draw without any value.
    """
    has_value, size = ~np.isnan(values), int(group_of.max()) + 1
    of_value = group_of[has_value]
    sums = np.bincount(of_value, values[has_value], minlength=size)
    rows = np.bincount(of_value, minlength=size).astype(np.float64)

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # a draw without any row that has a value: 0 / 0
            return (counts @ sums) / (counts @ rows)

    return on_block


def find_percentile_interval(value: float, values: NDArray[np.float64], *, level: float) -> Estimate:
    """Find the percentile interval of a metric.

    Args:
        value: The value on all rows.
        values: The values on R resamples (R,).
        level: The share of the resamples between the ends, 0 to 1.

    Returns:
        The value with its interval.
    """
    low, high = np.quantile(values, [(1.0 - level) / 2, (1.0 + level) / 2])
    return Estimate(value, float(low), float(high))


def find_p_value(differences: NDArray[np.float64]) -> float:
    """Find the two-sided p-value of differences (R,) on R resamples.

    It is twice the share of resamples on the rarer side of 0, where a difference of 0 counts on both sides. It is the
    smallest 1 - level whose percentile interval excludes 0 (Davison & Hinkley 1997, chapter 4). The sample itself
    counts as one more round, so that the p-value is never 0: it is at least 2 / (R + 1).
    """
    rarer = min(np.count_nonzero(differences <= 0.0), np.count_nonzero(differences >= 0.0))
    return min(1.0, 2.0 * (rarer + 1) / (len(differences) + 1))


def join_tables(tables: Sequence[Table], *, same: str | None = None) -> list[Table]:
    """Put the rows of all tables in the order of the first one's, matched by `id`.

    Rows with equal ids are matched in their order.

    Args:
        tables: The tables, which must hold the same rows.
        same: Another column that must be equal in all tables.

    Returns:
        The tables in one order of rows.

    Raises:
        MetricError: Where a table has other rows, other groups or another column `same`; the message names some.
    """
    first = tables[0]
    joined: list[Table] = [first]
    for table in tables[1:]:
        if len(table["id"]) != len(first["id"]):
            sizes = f"{len(first['id'])} and {len(table['id'])} of them"
            raise MetricError(f"models were evaluated on different rows: {sizes}")
        taken = table if np.array_equal(table["id"], first["id"]) else _reorder(table, first["id"])
        for name in ("id", "group", *filter(None, [same])):
            differ = np.flatnonzero(taken[name] != first[name])
            if len(differ):
                named = name_some([str(value) for value in first["id"][differ]])
                raise MetricError(f"models were evaluated on different rows: {name} differs for {named}")
        joined.append(taken)
    return joined


def _reorder(table: Table, ids: NDArray[Any]) -> Table:
    rows = np.empty(len(ids), np.int64)
    rows[np.argsort(ids, kind="stable")] = np.argsort(table["id"], kind="stable")
    return {name: column[rows] for name, column in table.items()}


def check_protocol(rounds: int, level: float) -> None:
    """Check the settings of intervals.

    Args:
        rounds: How many resamples, 1 or more.
        level: A share above 0 and below 1.

    Raises:
        ValueError: For other values.
    """
    if rounds < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"rounds must be >= 1 and level between 0 and 1, got {rounds} and {level}")


def _estimate(
    metric: Metric, sides: Sequence[list[Table]], rounds: int, level: float, seed: int, group_unit: str
) -> tuple[Estimate, NDArray[np.float64]]:
    """Estimate the mean over the tables of one side, or the first side's mean minus the second's.

    Returns the estimate, and the values on the draws where there is one.
    """
    check_protocol(rounds, level)
    first, none = sides[0][0], np.empty(0)
    means = [float(np.mean([metric.value(table) for table in tables])) for tables in sides]
    value = means[0] if len(sides) == 1 else means[0] - means[1]
    if np.isnan(value):
        return Estimate(value, note=f"no value: {explain_undefined(first, metric.strata)}"), none
    if bool((first["group"] == first["group"][0]).all()):
        return Estimate(value, note=f"no interval: fewer than two {plural(group_unit)}"), none
    group_of, strata = _find_groups(metric, first)
    forms = [_build_mean_form(metric, tables, group_of) for tables in sides]

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        return forms[0](counts) if len(forms) == 1 else forms[0](counts) - forms[1](counts)

    try:
        values = resample(on_block, group_of, rounds=rounds, seed=seed, must_hold=strata)
    except MetricError as error:
        return Estimate(value, note=f"no interval: {error}"), none
    defined = values[~np.isnan(values)]
    if len(values) - len(defined) > MOST_UNDEFINED * len(values):
        note = f"no interval: {len(values) - len(defined)} of {len(values)} draws have no value"
        return Estimate(value, note=note), defined
    return find_percentile_interval(value, defined, level=level), defined


def _find_groups(metric: Metric, table: Table) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Find the number of each row's group (N,), and the groups of each stratum that a draw must hold."""
    _, group_of = number_names(table["group"].tolist())
    return group_of, [] if metric.strata is None else find_strata(group_of, table[metric.strata])


def _build_mean_form(metric: Metric, tables: Sequence[Table], group_of: NDArray[np.int64]) -> OnBlock:
    """Build a function of draws that gives the mean, over the tables, of the metric."""
    forms = [_build_form(metric, one, group_of) for one in tables]
    return lambda counts: np.stack([form(counts) for form in forms], axis=1).mean(axis=1)


def _build_form(metric: Metric, table: Table, group_of: NDArray[np.int64]) -> OnBlock:
    if metric.on_groups is not None:
        return metric.on_groups(table, group_of)
    if metric.each is not None:
        return build_mean(metric.each(table), group_of)
    return lambda block: np.array([metric.compute(table, counts[group_of].astype(np.int64)) for counts in block])


def _list_tables(table: Tables) -> list[Table]:
    return [table] if isinstance(table, Mapping) else list(table)


def _holds_any(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> bool:
    """Check whether any of the groups was drawn. Looking at 64 of them first is faster and nearly always enough."""
    return bool(counts[groups[:64]].any()) or bool(counts[groups].any())
