"""Bootstrap over groups: confidence intervals of a metric, and paired differences of two models.

Rows of one group, such as the pictures of one person, are not independent. So a round draws as many groups as there
are, with replacement, and takes all rows of each (Efron & Tibshirani 1993, chapter 8). The spread of the metric over
the rounds gives its standard error, and `metrics.intervals` the interval. All models and seeds see the same drawn
groups, so a difference is paired.

Legend: N rows, S seeds (one table each), G groups, R rounds in blocks of B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import plural
from sharpstudent.core.types import Table
from sharpstudent.metrics.checks import MetricError, explain_undefined, name_some, number_names
from sharpstudent.metrics.intervals import (
    LEVEL,
    SHARE,
    UNBOUNDED,
    Bounds,
    Estimate,
    Sampling,
    find_difference,
    find_evenness,
    find_interval,
)
from sharpstudent.metrics.metric import Metric, OnBlock

# How often each group was drawn (B, G). The integer type is as narrow as possible: it is read N times a round.
GroupCounts = NDArray[np.unsignedinteger[Any] | np.int64]
SEED = 0  # the default
BLOCK_CELLS = 2**18  # draws times rows in one block: it bounds the memory, whatever the number of rounds
MOST_TRIES = 1000  # attempts to draw a round that holds every stratum
MOST_UNDEFINED = 0.05  # share of the rounds without a value, above which there is no interval
MOST_LEFT_OUT = 200  # groups; of more, no few of them make the whole variance
Tables = Table | Sequence[Table]  # one model's table, or one table a seed, of the same rows


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
            the mean over the seeds, and its interval holds the spread over groups and that over seeds.
        rounds: How many resamples are drawn. Those without a value are left out; with more than 5 % of them there is
            no interval.
        level: The confidence, 0 to 1.
        seed: The seed of the draws.
        group_unit: What notes call a group.

    Returns:
        The value with its interval; a note says why there is none.
    """
    tables = join_tables(_list_tables(table), same=metric.strata)
    return _estimate(metric, [tables], rounds, level, seed, group_unit)


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
        table_b: The rows of model b: of one seed, or of as many as a has. Then the n-th of both are a pair.
        rounds: How many resamples are drawn.
        level: The confidence, 0 to 1.
        seed: The seed of the draws.
        group_unit: What notes call a group.

    Returns:
        The difference with its interval and p-values.

    Raises:
        MetricError: Where the tables do not have the same rows; the message names some. Also for several seeds of both
            models, but not equally many.
    """
    tables_a = _list_tables(table_a)
    joined = join_tables([*tables_a, *_list_tables(table_b)], same=metric.strata)
    sides = [joined[: len(tables_a)], joined[len(tables_a) :]]
    if len(sides[0]) != len(sides[1]) and 1 not in map(len, sides):
        raise MetricError(
            f"models have {len(sides[0])} and {len(sides[1])} seeds: give equally many, or one of a model"
        )
    return _estimate(metric, sides, rounds, level, seed, group_unit)


def compute_gap(
    metric: Metric,
    table: Table,
    is_second: NDArray[np.bool_],
    *,
    rounds: int = 1000,
    level: float = LEVEL,
    seed: int = SEED,
    group_unit: str = "group",
) -> Estimate:
    """Compute the metric of some rows minus that of others, such as the error rates on two parts of a data set.

    Args:
        metric: The metric.
        table: N rows of one model.
        is_second: Which rows are subtracted (N,); both kinds must occur.
        rounds: How many resamples are drawn.
        level: The confidence, 0 to 1.
        seed: The seed of the draws.
        group_unit: What notes call a group; a group may have rows of both kinds.

    Returns:
        The difference with its interval.
    """
    _, group_of = number_names(table["group"].tolist())
    strata: list[NDArray[np.int64]] = []
    forms: list[tuple[OnBlock, NDArray[np.int64]]] = []
    values: list[float] = []
    for rows in (~is_second, is_second):
        side = {name: column[rows] for name, column in table.items()}
        own, number = np.unique(group_of[rows], return_inverse=True)
        parts = [np.unique(number)] if metric.strata is None else find_strata(number, side[metric.strata])
        strata += [own[part] for part in parts]
        forms.append((_build_form(metric, side, number), own))
        values.append(metric.value(side))
    value = values[0] - values[1]
    if min(map(len, strata)) < 2:
        return Estimate(value, note=f"no interval: fewer than two {plural(group_unit)} in a part")

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        first, second = (form(counts[:, own]) for form, own in forms)
        return first - second

    try:
        draws = resample(on_block, group_of, rounds=rounds, seed=seed, must_hold=strata)
    except MetricError as error:
        return Estimate(value, note=f"no interval: {error}")
    sampling, bounds = count_sampling(group_of, strata, group_unit), _find_bounds(metric, [table])
    sampling = _find_evenness(on_block, sampling, len(group_of))
    sign = 1.0 if metric.direction == "higher" else -1.0
    return find_difference(value, draws[~np.isnan(draws)], sampling, bounds=bounds, level=level, sign=sign)


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
) -> Estimate:
    """Estimate the mean over the tables of one side, or the first side's mean minus the second's."""
    check_protocol(rounds, level)
    first = sides[0][0]
    by_seed = [np.array([metric.value(table) for table in tables]) for tables in sides]
    value = float(by_seed[0].mean() - (by_seed[1].mean() if len(sides) > 1 else 0.0))
    if np.isnan(value):
        return Estimate(value, note=f"no value: {explain_undefined(first, metric.strata)}")
    if bool((first["group"] == first["group"][0]).all()):
        return Estimate(value, note=f"no interval: fewer than two {plural(group_unit)}")
    group_of, strata = _find_groups(metric, first)
    forms = [_build_mean_form(metric, tables, group_of) for tables in sides]

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        return forms[0](counts) if len(forms) == 1 else forms[0](counts) - forms[1](counts)

    try:
        values = resample(on_block, group_of, rounds=rounds, seed=seed, must_hold=strata)
    except MetricError as error:
        return Estimate(value, note=f"no interval: {error}")
    defined = values[~np.isnan(values)]
    if len(values) - len(defined) > MOST_UNDEFINED * len(values):
        note = f"no interval: {len(values) - len(defined)} of {len(values)} draws have no value"
        return Estimate(value, note=note)
    sampling = count_sampling(group_of, strata, group_unit)
    bounds, share = _find_bounds(metric, [table for tables in sides for table in tables]), metric.falls_with_share
    if len(sides) == 1:
        return find_interval(
            value, defined, sampling, bounds=bounds, by_seed=by_seed[0].tolist(), level=level, falls_with_share=share
        )
    if _is_same(*sides):
        return Estimate(value, value, value, p_value=1.0, groups=sampling.groups)
    sampling = _find_evenness(on_block, sampling, len(group_of))
    differences: list[float] = (by_seed[0] - by_seed[1]).tolist()
    sign = 1.0 if metric.direction == "higher" else -1.0
    return find_difference(value, defined, sampling, bounds=bounds, by_seed=differences, level=level, sign=sign)


def count_sampling(group_of: NDArray[np.int64], strata: Sequence[NDArray[np.int64]], unit: str) -> Sampling:
    """Count the groups that resamples are drawn from.

    Args:
        group_of: The group of each row (N,), 0 to G - 1.
        strata: The groups of each class that the metric needs, as in `find_strata`; none for a metric of all rows.
        unit: What a group is called.

    Returns:
        The counts.
    """
    total = int(group_of.max()) + 1
    return Sampling(tuple(len(groups) for groups in strata) or (total,), total, unit)


def _find_evenness(on_block: OnBlock, sampling: Sampling, rows: int) -> Sampling:
    """Add the degrees of freedom that the groups' effects on a difference of so many rows leave, where it has few."""
    if sampling.total > MOST_LEFT_OUT or min(sampling.sizes) < 2:
        return sampling
    counts = 1 - np.eye(sampling.total, dtype=np.int64)  # each of the groups left out once
    blocks = np.array_split(counts, -(-sampling.total * rows // BLOCK_CELLS))
    return replace(
        sampling, evenness=find_evenness(np.concatenate([on_block(block) for block in blocks if len(block)]))
    )


def _find_bounds(metric: Metric, tables: Sequence[Table]) -> Bounds:
    """Find the bounds of a metric. A mean of zeros and ones is a share, whether or not the task says so."""
    if metric.bounds is None and metric.each is not None:
        values = np.concatenate([metric.each(table) for table in tables])
        return SHARE if bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()) else UNBOUNDED
    return UNBOUNDED if metric.bounds is None else metric.bounds


def _is_same(side: Sequence[Table], other: Sequence[Table]) -> bool:
    """Whether two models gave the same outputs to the last bit."""
    return len(side) == len(other) and all(
        a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a if a[name].dtype.kind == "f")
        for a, b in zip(side, other, strict=True)
    )


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
