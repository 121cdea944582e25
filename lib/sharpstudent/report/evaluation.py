"""The report of a task whose renderer has no form of its own: page, tables, and what the console shows.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from sharpstudent.core.errors import format_count_of, plural
from sharpstudent.core.naming import clean_name
from sharpstudent.report.chart import Chart, ChartGroup
from sharpstudent.report.common_tables import (
    P_VALUE,
    build_costs,
    build_models,
    build_pairs,
    build_sets,
    describe_better,
)
from sharpstudent.report.curves import build_reliability, build_training, describe_constants
from sharpstudent.report.page import draw_within, make_chart_names_unique, render_template, write_files
from sharpstudent.report.results import (
    ColumnResult,
    EvaluatedSet,
    EvaluationResults,
    MetricAbout,
    MetricValue,
    PairResult,
)
from sharpstudent.report.text import DASH, NARROW, capitalize_first
from sharpstudent.report.text_table import (
    Cell,
    Group,
    Notes,
    Row,
    TextTable,
    draw_console_table,
    list_guide_columns,
    list_heads,
    text_cell,
)


@dataclass(frozen=True)
class OwnPage:
    """What the page of a task has beside that of every task.

    Attributes:
        template: The name of a template that extends `base.html.j2`.
        package: The package whose folder `templates` holds it.
        parts: The values that it reads, by name.
    """

    template: str
    package: str
    parts: Mapping[str, Any]


def write_report(
    folder: Path, results: EvaluationResults, console: Console | None = None, own: OwnPage | None = None
) -> list[Path]:
    """Write report.html, results.json and the charts.

    Args:
        folder: Where the files go; it is made.
        results: The results of the evaluation.
        console: Where progress is shown; None for nowhere.
        own: What the task's own page has beside; None for the page of every task.

    Returns:
        The files, report.html first.

    Raises:
        UserError: The disk refuses.
    """
    training = [] if results.training is None else build_training(results.training)
    reliability = build_reliability(results.models)
    charts = make_chart_names_unique([*reliability, *training])
    page = render_page(results, charts[: len(reliability)], charts[len(reliability) :], own)
    return write_files(folder, page=page, results=results.to_json(), charts=charts, console=console)


def render_page(
    results: EvaluationResults, reliability: Sequence[Chart], training: Sequence[Chart], own: OwnPage | None = None
) -> str:
    """Render report.html.

    Args:
        results: The results of the evaluation.
        reliability: The reliability diagrams, one a set; none for a task without classes.
        training: The charts of the training.
        own: As in `write_report`.

    Returns:
        HTML.
    """
    drawn = draw_within(
        [
            ChartGroup("Reliability", tuple(reliability)),
            ChartGroup("Training", tuple(training), _describe_constants(results)),
        ]
    )
    parts = {
        "metrics": _build_metrics(results),
        "comparisons": _build_pairs(results),
        "by_column": [
            _build_by_column(results, name)
            for name in dict.fromkeys(one.column for model in results.models for one in model.by_column)
        ],
        "costs": build_costs(results.models, unit=results.unit),
        "data": _build_data(results),
        "models": build_models(results.models),
        "reliability": drawn[0] if reliability else None,
        "training": drawn[1],
        "unit": results.unit,
    }
    if own is None:
        return render_template("base.html.j2", results, results.models, parts=parts)
    return render_template(own.template, results, results.models, package=own.package, parts={**parts, **own.parts})


def _describe_constants(results: EvaluationResults) -> str:
    return "" if results.training is None else describe_constants(results.training)


def list_console_tables(results: EvaluationResults) -> list[Any]:
    """List tables for a console of 80 columns: the models by their first metric, then every metric and set."""
    first, about = next(iter(results.metrics.items()))
    part = _list_parts(results)[0] if results.models else ""
    values = [format_metric(model.metrics.get(f"{first}@{part}" if part else first), about) for model in results.models]
    title = f"{capitalize_first(about.title)}{f' on {clean_name(part)}' if part else ''} [95 %]"
    columns = list_guide_columns(results.models, values, metric=title)
    tables = [draw_console_table(columns, words=["Model"])]
    if len(results.models[0].metrics) > 1:
        heads = ("Model", "Metric", "Set", "[95 %]")
        lines = [
            (clean_name(model.name), _title(of), clean_name(part) if part else "all", format_metric(estimate, of))
            for model in results.models
            for name, estimate in model.metrics.items()
            for base, _, part in [name.partition("@")]
            if part in _list_parts(results)
            for of in [results.metrics[base]]
        ]
        tables.append(draw_console_table(dict(zip(heads, zip(*lines, strict=True), strict=True)), words=heads[:3]))
    by_column = [
        (clean_name(model.name), clean_name(f"{one.column} {value.value}"), format_metric(value.metrics[first], about))
        for model in results.models
        for one in model.by_column
        for value in one.values
    ]
    if by_column:
        heads = ("Model", "Of", f"{capitalize_first(about.title)} [95 %]")
        tables.append(draw_console_table(dict(zip(heads, zip(*by_column, strict=True), strict=True)), words=heads[:2]))
    return tables


def format_metric(estimate: MetricValue | None, about: MetricAbout) -> str:
    """Format a metric with its interval: `0.9021 [0.8800, 0.9270]`.

    Args:
        estimate: The value with its interval; None gives a dash.
        about: The description of the metric, with its number format.

    Returns:
        The text.
    """
    if estimate is None or estimate.value is None:
        return DASH
    return f"{estimate.value:{about.format}} {_format_ends(estimate, about)}".rstrip()


def _format_ends(estimate: MetricValue, about: MetricAbout) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{estimate.low:{about.format}}, {estimate.high:{about.format}}]"


def _title(about: MetricAbout) -> str:
    """Return the title of a metric with an arrow that shows which values are better."""
    return f"{capitalize_first(about.title)}{NARROW}{'↑' if about.direction == 'higher' else '↓'}"


def _build_metrics(results: EvaluationResults) -> TextTable:
    """Build the table of metrics: a group of rows for each set, a row for each metric, a column for each model (M).

    Of several sets there is no pool: results.json holds it.
    """
    notes, groups = Notes(), list[Group]()
    parts = _list_parts(results)
    for part in parts:
        rows = [
            Row(
                text_cell(_title(about)),
                tuple(
                    _build_metric(model.metrics.get(f"{name}@{part}" if part else name), about, notes)
                    for model in results.models
                ),
            )
            for name, about in results.metrics.items()
        ]
        groups.append(Group(part, tuple(rows)))
    return TextTable("Metrics", "Metric", list_heads(results.models), tuple(groups), notes.list_all())


def _list_parts(results: EvaluationResults) -> list[str]:
    """List the parts of the data that metrics are of: each of several sets, or "" for the only one."""
    parts = list(dict.fromkeys(name.partition("@")[2] for model in results.models for name in model.metrics))
    return [part for part in parts if part] or parts


def _build_by_column(results: EvaluationResults, column: str) -> TextTable:
    """Build the table of a column of --by: rows of metrics for each value, then the largest differences."""
    found = [next(one for one in model.by_column if one.column == column) for model in results.models]
    notes, groups = Notes(), list[Group]()
    for value in dict.fromkeys(of.value for one in found for of in one.values):
        of_models = [next(of for of in one.values if of.value == value) for one in found]
        rows = [
            Row(text_cell(_title(about)), tuple(_build_metric(of.metrics[name], about, notes) for of in of_models))
            for name, about in results.metrics.items()
        ]
        count = format_count_of(of_models[0].groups, results.group_unit)
        groups.append(Group(f"{value} ({count})", tuple(rows)))
    rows = [
        Row(text_cell(_title(about)), tuple(_build_gap(one, name, about, notes) for one in found))
        for name, about in results.metrics.items()
    ]
    groups.append(Group("Largest difference", tuple(rows)))
    return TextTable(f"By {column}", "Metric", list_heads(results.models), tuple(groups), notes.list_all())


def _build_gap(found: ColumnResult, metric: str, about: MetricAbout, notes: Notes) -> Cell:
    gap = next((one for one in found.gaps if one.metric == metric), None)
    if gap is None:
        return Cell(DASH, title="no two values to compare")
    mark = notes.mark(f"{gap.higher} minus {gap.lower}; the interval allows for the number of pairs of values")
    return replace(_build_metric(gap.difference, about, notes), mark=mark)


def _build_metric(estimate: MetricValue | None, about: MetricAbout, notes: Notes) -> Cell:
    if estimate is None or estimate.value is None:
        note = "not measured" if estimate is None else estimate.note or ""
        return Cell(DASH, title=note, mark=notes.mark(None if estimate is None else estimate.note))
    ends = _format_ends(estimate, about)
    return Cell(f"{estimate.value:{about.format}}", ends, estimate.note or "", notes.mark(estimate.note))


def _build_pairs(results: EvaluationResults) -> TextTable:
    """Build the table of pairs: a group of rows for each metric and set, a row for each pair of models."""
    pairs: dict[str, list[PairResult]] = {}
    for one in (one for one in results.comparisons if one.metric.partition("@")[2] in _list_parts(results)):
        base, _, part = one.metric.partition("@")
        pairs.setdefault(f"{_title(results.metrics[base])}{f', {part}' if part else ''}", []).append(one)
    columns = [(text_cell("Conclusion"), lambda one: text_cell(describe_better(one, one.better))), P_VALUE]
    return build_pairs("Pairs of models on the same rows", pairs, columns)


def _build_data(results: EvaluationResults) -> TextTable:
    """Build the table of data sets: a row for each set, with its counts."""
    titles = ("Samples", capitalize_first(plural(results.unit)), capitalize_first(plural(results.group_unit)))
    counts: dict[Cell, Callable[[EvaluatedSet], int | None]] = {
        Cell(title): attrgetter(name) for title, name in zip(titles, ("samples", "rows", "groups"), strict=True)
    }
    for name in dict.fromkeys(name for one in results.data for name in one.counts):
        counts[Cell(name)] = partial(_read_count, name)
    counts[Cell("Unreadable")] = lambda one: len(one.unreadable)
    return build_sets(results.data, counts, describe_kind=attrgetter("kind"))


def _read_count(name: str, one: EvaluatedSet) -> int | None:
    return one.counts.get(name)
