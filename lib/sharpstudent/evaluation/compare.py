"""Builds the results of an evaluation for any task: metrics with intervals, and pairs of models on the same rows.

Legend: N rows of a table.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, plural
from sharpstudent.core.files import read_column_table, read_table
from sharpstudent.core.io import write_bytes_atomically, write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.core.types import Table
from sharpstudent.evaluation.command_line import EvaluationRequest
from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
from sharpstudent.evaluation.renderer import Measurements, Session
from sharpstudent.evaluation.tables import SplitSet, join_parts
from sharpstudent.metrics.bootstrap import SEED, compute_gap, compute_interval, compute_paired
from sharpstudent.metrics.calibration import compute_reliability
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.intervals import FEWEST_GROUPS, LEVEL, MARGIN, Estimate
from sharpstudent.metrics.metric import Metric
from sharpstudent.report.results import (
    ColumnGap,
    ColumnResult,
    ColumnValue,
    EvaluatedModel,
    EvaluationResults,
    MetricAbout,
    MetricValue,
    NonInferiority,
    PairResult,
    ReliabilityBins,
    SummaryTile,
)
from sharpstudent.report.sentences import NO_DIFFERENCE, find_side
from sharpstudent.report.summary import list_limits
from sharpstudent.report.verdict import write_verdict
from sharpstudent.task import ClassificationTask, Task

NOT_BY_GROUP = "whether a model is worse on some groups than on others was not measured"
MOST_CELLS = 32  # values per row; columns with more, such as maps, are in tables.npz only, not in tables.csv


def build_results(
    task: type[Task],
    session: Session,
    evaluation: Evaluation,
    measured: Measurements,
    heading: Heading,
    *,
    build_tiles: Callable[..., tuple[SummaryTile, ...]],
) -> EvaluationResults:
    """Build the results for a task whose renderer has no form of its own.

    Args:
        task: The class of the task.
        session: The session, with the request.
        evaluation: The tables of all models.
        measured: The calibrations and costs of the models.
        heading: Title, time, command and environment.
        build_tiles: Builds the tiles, as `Renderer.build_tiles` does.

    Returns:
        The results, with the verdict.

    Raises:
        UserError: Where models were evaluated on different rows.
    """
    sets = [one for one in evaluation.sets if isinstance(one, SplitSet)]
    parts = [list_parts(one, sets) for one in evaluation.models]
    rounds = session.request.rounds
    try:
        models: list[EvaluatedModel] = []
        with session.progress("metrics with intervals", len(parts), "model") as progress:
            for number, one in enumerate(evaluation.models):
                models.append(_describe_model(task, one, parts[number], measured, number, session.request))
                progress.add()
        comparisons: list[PairResult] = []
        with session.progress("comparisons", len(evaluation.pairs), "pair") as progress:
            for pair in evaluation.pairs:
                a, b = ((models[side[0]].name, [parts[number] for number in side]) for side in pair)
                comparisons += compare_models(task, a, b, rounds=rounds)
                progress.add()
    except MetricError as error:
        named = ", ".join(one.name for one in sets)
        raise UserError.about(f"--data: {named}", "cannot be evaluated", got=str(error)) from None
    results = EvaluationResults(
        task=_name_task(task, evaluation),
        unit=task.unit,
        group_unit=task.group_unit,
        verdict=(),
        protocol=_describe_protocol(task, sets, session.request),
        metrics={name: _describe_metric(task, name) for name in task.metrics},
        data=tuple(
            one.describe(table, unreadable)
            for one, table, unreadable in zip(sets, evaluation.models[0].tables, evaluation.unreadable, strict=True)
        ),
        models=tuple(models),
        comparisons=tuple(comparisons),
        **vars(heading),
    )
    opened = sets[0].task if sets else task
    tiles = build_tiles(results, parts, classes=getattr(opened, "classes", ()), rounds=rounds)
    results = results.model_copy(update={"tiles": tiles})
    return results.model_copy(update={"limits": list_limits(results), "verdict": write_verdict(results)})


def list_parts(model: EvalResult, sets: Sequence[SplitSet]) -> dict[str, Table]:
    """List the tables that a model's metrics are computed from.

    Groups of different sets are different groups, whatever their names.

    Args:
        model: The model, with its table of each set.
        sets: The sets, in the order of the model's tables.

    Returns:
        The table of all sets together under ""; where there are several sets, also the table of each under `@SET`.
    """
    tables = [
        {**table, "id": _add_prefix(one.name, table["id"]), "group": _add_prefix(one.name, table["group"])}
        for one, table in zip(sets, model.tables, strict=True)
    ]
    if len(tables) == 1:
        return {"": model.tables[0]}
    return {"": join_parts(tables), **{f"@{one.name}": table for one, table in zip(sets, tables, strict=True)}}


def compute_metrics(task: type[Task], parts: Mapping[str, Table], *, rounds: int) -> dict[str, MetricValue]:
    """Compute every metric of a task with its interval.

    Args:
        task: The class of the task.
        parts: The tables, as `list_parts` gives them.
        rounds: How many resamples the bootstrap draws.

    Returns:
        The metrics: NAME over all sets together and, where there are several sets, NAME@SET for each.
    """
    return {
        f"{name}{part}": to_metric_value(compute_interval(metric, table, rounds=rounds, group_unit=task.group_unit))
        for part, table in parts.items()
        for name, metric in task.metrics.items()
    }


def list_keys(task: type[Task]) -> dict[str, str]:
    """List the columns of a CSV that may name rows or their groups, each with the column of the rows that has them."""
    return {"sample": "id", task.unit: "id", "group": "group", task.group_unit: "group"}


def check_table(task: type[Task], request: EvaluationRequest) -> None:
    """Raise UserError for a table of `--by-table` that cannot be read, names no rows, or has none of the columns."""
    if request.by_table is not None:
        found, _ = read_table(request.by_table, form=f"a CSV with {', '.join(request.by)}", remedy="mend it")
        has = [name for name in request.by if name in found]  # those that it lacks may be columns of the rows
        read_column_table(request.by_table, has or request.by, tuple(list_keys(task)))


def read_columns(task: type[Task], request: EvaluationRequest, table: Table) -> dict[str, NDArray[np.str_]]:
    """Read the columns of `--by` for the rows of a set.

    Args:
        task: The class of the task.
        request: The command line.
        table: The rows of any model.

    Returns:
        The values of each column as text (N,), "" where nothing is known.

    Raises:
        UserError: For a column that neither the table of `--by-table` nor the rows have.
    """
    column_of_key = list_keys(task)
    own = [name for name, column in table.items() if column.ndim == 1 and column.dtype.kind in "iuUb"]
    wanted = [name for name in request.by if name not in own]
    if wanted and request.by_table is None:
        raise UserError.about(
            "--by",
            f"names {' and '.join(wanted)}, and no rows have such a column",
            expected=f"a column of the rows: {', '.join(own)}; or --by-table with a CSV",
            remedy=f"--by-table columns.csv, with {' or '.join(dict.fromkeys(column_of_key))}, and {', '.join(wanted)}",
        )
    found = {name: table[name].astype(str) for name in request.by if name in own}
    if wanted and request.by_table is not None:
        names = {key: table[column].tolist() for key, column in column_of_key.items()}
        values = read_column_table(request.by_table, wanted, tuple(column_of_key)).join(names)
        found |= {name: np.array(values[name]) for name in wanted}
    return {name: found[name] for name in request.by}


def compute_by_column(
    task: type[Task], table: Table, columns: Mapping[str, NDArray[np.str_]], *, rounds: int
) -> tuple[ColumnResult, ...]:
    """Compute the metrics of a task by the values of columns, and of each metric its largest difference.

    Args:
        task: The class of the task.
        table: The rows of a model, N of them.
        columns: The values of each column (N,); rows with "" are in no group.
        rounds: How many resamples the bootstrap draws.

    Returns:
        The metrics by the values of each column.
    """
    return tuple(_compute_column(task, table, name, values, rounds) for name, values in columns.items())


def _compute_column(task: type[Task], table: Table, column: str, values: NDArray[np.str_], rounds: int) -> ColumnResult:
    parts = {str(value): _take(table, values == value) for value in np.unique(values[values != ""])}
    found = tuple(
        ColumnValue(
            value=value,
            rows=len(part["id"]),
            groups=len(np.unique(part["group"])),
            metrics={
                name: to_metric_value(compute_interval(metric, part, rounds=rounds, group_unit=task.group_unit))
                for name, metric in task.metrics.items()
            },
        )
        for value, part in parts.items()
    )
    gaps = tuple(gap for name in task.metrics for gap in _find_gap(task, name, table, values, found, rounds))
    return ColumnResult(column=column, values=found, gaps=gaps, without=int((values == "").sum()))


def _find_gap(
    task: type[Task],
    name: str,
    table: Table,
    values: NDArray[np.str_],
    found: Sequence[ColumnValue],
    rounds: int,
) -> list[ColumnGap]:
    """Find the largest difference of a metric between two values; [] where fewer than two have the metric."""
    measured = sorted((value, one.value) for one in found if (value := one.metrics[name].value) is not None)
    if len(measured) < 2:
        return []
    lower, higher = measured[0][1], measured[-1][1]
    rows = np.isin(values, (lower, higher))
    gap = compute_gap(
        task.metrics[name],
        _take(table, rows),
        values[rows] == lower,
        # The largest of several differences is large by chance, too.
        level=1.0 - (1.0 - LEVEL) / (len(measured) * (len(measured) - 1) // 2),
        rounds=rounds,
        group_unit=task.group_unit,
    )
    return [ColumnGap(metric=name, higher=higher, lower=lower, difference=to_metric_value(gap))]


def _take(table: Table, rows: NDArray[np.bool_]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def compare_models(
    task: type[Task],
    a: tuple[str, Sequence[Mapping[str, Table]]],
    b: tuple[str, Sequence[Mapping[str, Table]]],
    *,
    rounds: int,
) -> list[PairResult]:
    """Compute the differences of two models in every metric, paired over groups.

    Args:
        task: The class of the task.
        a: The name of the first model, and its tables at each seed.
        b: The same of the second model.
        rounds: How many resamples the bootstrap draws.

    Returns:
        The difference a - b in each metric, of all sets together and of each set.

    Raises:
        MetricError: Where the models were evaluated on different rows.
    """
    found: list[PairResult] = []
    seeds = max(len(a[1]), len(b[1]))
    for part in a[1][0]:
        for name, metric in task.metrics.items():
            tables = ([of_seed[part] for of_seed in side[1]] for side in (a, b))
            pair = compute_paired(metric, *tables, rounds=rounds, group_unit=task.group_unit)
            better = _find_better(pair, metric)
            found.append(
                PairResult(a=a[0], b=b[0], metric=f"{name}{part}", better=better, seeds=seeds, **to_pair(pair))
            )
    return found


def write_tables(folder: Path, evaluation: Evaluation) -> None:
    """Write the tables of all models as tables.npz and tables.csv.

    tables.npz holds every column to the last bit, under MODEL/SET/COLUMN with the numbers of model and set; `models`
    and `sets` hold their names. tables.csv has a line for each model and row, without columns of many values.

    Args:
        folder: The folder that the files go to.
        evaluation: The tables.

    Raises:
        UserError: Where the disk refuses.
    """
    arrays: dict[str, NDArray[Any]] = {
        "models": np.array([one.name for one in evaluation.models]),
        "sets": np.array([one.name for one in evaluation.sets]),
    }
    for number, one in enumerate(evaluation.models):
        for place, table in enumerate(one.tables):
            arrays |= {f"{number}/{place}/{name}": column for name, column in table.items()}
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)  # type: ignore[arg-type]
    write_bytes_atomically(folder / "tables.npz", written.getvalue())
    write_text_atomically(folder / "tables.csv", _render_csv(evaluation))


def _render_csv(evaluation: Evaluation) -> str:
    heads = list(dict.fromkeys(head for one in evaluation.models for table in one.tables for head in _flatten(table)))
    rows: list[Sequence[Any]] = [("model", "set", *heads)]
    for one in evaluation.models:
        for of_set, table in zip(evaluation.sets, one.tables, strict=True):
            found, nothing = _flatten(table), [None] * len(table["id"])
            columns = [found.get(head, nothing) for head in heads]
            rows += [(one.name, of_set.name, *values) for values in zip(*columns, strict=True)]
    return format_csv(rows)


def _flatten(table: Table) -> dict[str, list[Any]]:
    """Make a column of each value of a row, such as `logits.0`; columns of more than MOST_CELLS are left out."""
    found: dict[str, list[Any]] = {}
    for name, column in table.items():
        size = math.prod(column.shape[1:])
        if column.ndim == 1:
            found[name] = column.tolist()
        elif size <= MOST_CELLS:
            flat = column.reshape(len(column), size)
            found |= {f"{name}.{place}": flat[:, place].tolist() for place in range(size)}
    return found


def _add_prefix(name: str, column: NDArray[Any]) -> NDArray[Any]:
    return np.array([f"{name}/{value}" for value in column.tolist()])


def _describe_model(
    task: type[Task],
    one: EvalResult,
    parts: Mapping[str, Table],
    measured: Measurements,
    number: int,
    request: EvaluationRequest,
) -> EvaluatedModel:
    """Describe a model, given its number. Only models that were opened have a calibration and a cost."""
    is_opened, rounds = number < len(measured.costs), request.rounds
    calibration = measured.calibrations[number] if is_opened else None
    columns = [read_columns(task, request, table) for table in one.tables]
    joined = {name: np.concatenate([of_set[name] for of_set in columns]) for name in request.by}
    return EvaluatedModel(
        **one.describe(),
        metrics=compute_metrics(task, parts, rounds=rounds),
        by_column=compute_by_column(task, parts[""], joined, rounds=rounds),
        calibration=calibration,
        reliability=_describe_reliability(parts, (calibration or {}).get("temperature", 1.0))
        if issubclass(task, ClassificationTask)
        else {},
        cost=measured.costs[number] if is_opened else None,
    )


def _describe_reliability(parts: Mapping[str, Table], temperature: float) -> dict[str, ReliabilityBins]:
    """Compute the reliability diagram of each set; of several sets together there is none, because they may differ."""
    found: dict[str, ReliabilityBins] = {}
    for part, table in parts.items():
        if part or len(parts) == 1:
            one = compute_reliability(table["logits"] / temperature, table["label"])
            said, true = (
                tuple(None if math.isnan(value) else value for value in column.tolist())
                for column in (one.predicted, one.observed)
            )
            edges, counts = tuple(one.edges.tolist()), tuple(one.counts.tolist())
            found[part] = ReliabilityBins(edges=edges, counts=counts, said=said, true=true)
    return found


def _name_task(task: type[Task], evaluation: Evaluation) -> str:
    """Find the task's name in the first checkpoint that has one."""
    names = (one.about.get("task") for one in evaluation.models)
    return next((name for name in names if isinstance(name, str)), f"{task.__module__}:{task.__qualname__}")


def _describe_metric(task: type[Task], name: str) -> MetricAbout:
    metric = task.metrics[name]
    return MetricAbout(title=task.title(name), direction=metric.direction, chance=metric.chance, format=metric.format)


def to_metric_value(found: Estimate) -> MetricValue:
    """Turn an estimate into the form of results, where NaN is None."""
    value = None if math.isnan(found.value) else found.value
    return MetricValue(value=value, low=found.low, high=found.high, note=found.note, groups=found.groups)


def to_pair(found: Estimate) -> dict[str, Any]:
    """Turn a paired difference into the fields that the results of every task have for it."""
    test = None
    if found.worse_p is not None:
        p_a, p_b = found.worse_p
        as_good = tuple(name for name, p in zip(("a", "b"), found.worse_p, strict=True) if p <= (1.0 - LEVEL) / 2)
        test = NonInferiority.model_validate({"margin": MARGIN, "p_a": p_a, "p_b": p_b, "as_good": as_good})
    return {"difference": to_metric_value(found), "p_value": found.p_value, "non_inferiority": test}


def _find_better(found: Estimate, metric: Metric) -> Literal["a", "b"] | None:
    good = "above" if metric.direction == "higher" else "below"
    side = find_side(to_metric_value(found), NO_DIFFERENCE)
    return ("a" if side == good else "b") if side in ("above", "below") else None


_ONE_SIDED = f"{100 * (1 - LEVEL) / 2:.1f} %"
NON_INFERIORITY = (
    f"As good within {MARGIN}: a one-sided test at {_ONE_SIDED} that a model is not worse by more than that"
)


def describe_intervals(over: str, groups: str, rounds: int) -> str:
    """Say how intervals are made, for the protocol.

    Args:
        over: What is drawn, in words.
        groups: The plural of what a group is called.
        rounds: How many resamples are drawn.

    Returns:
        The text.
    """
    return (
        f"{100 * LEVEL:g} %: the standard error by bootstrap over {over} ({rounds} rounds, seed {SEED}), times "
        f"Student's t. Metrics between 0 and 1 are on the logit scale. From fewer than {FEWEST_GROUPS} {groups} "
        "nothing is claimed."
    )


def _describe_protocol(task: type[Task], sets: Sequence[SplitSet], request: EvaluationRequest) -> dict[str, str]:
    is_validation, rounds = any(one.kind == "validation" for one in sets), request.rounds
    by_column = f"by {', '.join(request.by)}; the largest difference of each metric has an interval of its own"
    chosen = "on the validation data of their own runs"
    return {
        "rows": f"one {task.unit} each; several sets are evaluated together and each alone",
        "intervals": describe_intervals(f"the {task.group_unit} of each row", plural(task.group_unit), rounds),
        "comparisons": f"paired bootstrap, {rounds} rounds: both models see the same draws. {NON_INFERIORITY}",
        "groups": by_column if request.by else f"{NOT_BY_GROUP} (--by COLUMN measures it)",
        "checkpoints": f"chosen {chosen}{'' if is_validation else ', never on the data evaluated here'}",
    }
