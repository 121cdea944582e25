"""The report of a task that has no form of its own: its page, its tables, what the console shows.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import plural
from sharpstudent.report.chart import Chart, ChartGroup
from sharpstudent.report.curves import build_training
from sharpstudent.report.page import (
    begin_large,
    build_costs,
    draw_group,
    list_contents,
    name_apart,
    render_template,
    tell_pairs,
    write_files,
)
from sharpstudent.report.results import EvaluatedModel, EvaluationResults, FigureResult, MetricAbout, PairResult
from sharpstudent.report.text import (
    DASH,
    NARROW,
    SHORT,
    Cell,
    Group,
    Notes,
    Row,
    TextTable,
    build_list,
    draw_console_table,
    format_count,
    format_difference,
    format_p_value,
    list_guide_columns,
    list_heads,
    say_name,
    shorten_names,
    word,
)


def write_report(folder: Path, results: EvaluationResults) -> list[Path]:
    """The report of a task that has no page of its own, as `write_files` writes it."""
    charts = () if results.training is None else name_apart(build_training(results.training))
    return write_files(folder, page=render_page(results, charts), results=results.to_json(), charts=charts)


def render_page(results: EvaluationResults, charts: Sequence[Chart]) -> str:
    """The page as text."""
    tables = {
        "metrics": _build_metrics(results),
        "comparisons": _build_pairs(results),
        "costs": build_costs(results.models, unit=results.unit),
        "data": _build_data(results),
        "models": _build_models(results.models),
    }
    contents = list_contents(
        [
            ("metrics", "Metrics", tables["metrics"]),
            ("comparisons", "Comparisons", tables["comparisons"]),
            ("cost", "Cost", tables["costs"]),
            ("training", "Training", charts),
            ("protocol", "Protocol", results.protocol),
            ("data", "Data", tables["data"]),
            ("models", "Models", tables["models"]),
            ("making", "How it was made", True),
        ]
    )
    training = draw_group(ChartGroup("Training", tuple(charts)))
    parts = {**tables, "training": training, "unit": results.unit}
    return render_template("base.html.j2", results, results.models, contents=contents, parts=parts)


def list_console_tables(results: EvaluationResults) -> list[Any]:
    """For the console, each at most 80 columns wide: the models by their first metric, then every metric and set."""
    first, about = next(iter(results.metrics.items()))
    values = [format_metric(model.metrics.get(first), about) for model in results.models]
    columns = list_guide_columns(results.models, values, metric=f"{begin_large(about.title)} [95 %]")
    tables = [draw_console_table(columns, words=["Model"])]
    if len(results.models[0].metrics) > 1:
        heads = ("Model", "Metric", "Set", "[95 %]")
        lines = [
            (say_name(model.name), _title(of), say_name(part) if part else "all", format_metric(figure, of))
            for model in results.models
            for name, figure in model.metrics.items()
            for base, _, part in [name.partition("@")]
            for of in [results.metrics[base]]
        ]
        tables.append(draw_console_table(dict(zip(heads, zip(*lines, strict=True), strict=True)), words=heads[:3]))
    return tables


def format_metric(figure: FigureResult | None, about: MetricAbout) -> str:
    """`0.9021 [0.8800, 0.9270]`, or a dash."""
    if figure is None or figure.value is None:
        return DASH
    return f"{figure.value:{about.format}} {_format_ends(figure, about)}".rstrip()


def _format_ends(figure: FigureResult, about: MetricAbout) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"[{figure.low:{about.format}}, {figure.high:{about.format}}]"


def _title(about: MetricAbout) -> str:
    """With an arrow that says which way is better."""
    return f"{begin_large(about.title)}{NARROW}{'↑' if about.direction == 'higher' else '↓'}"


def _build_metrics(results: EvaluationResults) -> TextTable:
    """A group a set, a row a metric, a column a model (M)."""
    notes, groups = Notes(), list[Group]()
    parts = dict.fromkeys(name.partition("@")[2] for model in results.models for name in model.metrics)
    for part in parts:
        rows = [
            Row(
                word(_title(about)),
                tuple(
                    _build_metric(model.metrics.get(f"{name}@{part}" if part else name), about, notes)
                    for model in results.models
                ),
            )
            for name, about in results.metrics.items()
        ]
        groups.append(Group(part or ("All data" if len(parts) > 1 else ""), tuple(rows)))
    return TextTable("Metrics", "Metric", list_heads(results.models), tuple(groups), notes.list_all())


def _build_metric(figure: FigureResult | None, about: MetricAbout, notes: Notes) -> Cell:
    if figure is None or figure.value is None:
        note = "not measured" if figure is None else figure.note or ""
        return Cell(DASH, title=note, mark=notes.mark(None if figure is None else figure.note))
    ends = _format_ends(figure, about)
    return Cell(f"{figure.value:{about.format}}", ends, figure.note or "", notes.mark(figure.note))


def _build_pairs(results: EvaluationResults) -> TextTable:
    """A group a metric and set, a row a pair of models."""
    notes, groups = Notes(), list[Group]()
    names = shorten_names([name for one in results.comparisons for name in (one.a, one.b)], SHORT)
    for metric in dict.fromkeys(one.metric for one in results.comparisons):
        base, _, part = metric.partition("@")
        rows = [_build_pair(one, names, notes) for one in results.comparisons if one.metric == metric]
        groups.append(Group(f"{_title(results.metrics[base])}{f', {part}' if part else ''}", tuple(rows)))
    columns = (Cell("Difference", small="first minus second"), word("Reads as"), Cell("p"))
    return TextTable("Pairs of models on the same rows", "Models", columns, tuple(groups), notes.list_all())


def _build_pair(one: PairResult, names: Mapping[str, str], notes: Notes) -> Row:
    difference = one.difference
    ends = ""
    if difference.low is not None and difference.high is not None:
        ends = f"[{format_difference(difference.low)}, {format_difference(difference.high)}]"
    read = "no interval" if not ends else "within noise"
    if one.better is not None:
        read = "first is better" if one.better == "a" else "second is better"
    head = Cell(names[one.a], small=f"minus {names[one.b]}", title=f"{one.a} minus {one.b}", kind="words")
    value = Cell(format_difference(difference.value), ends, difference.note or "", notes.mark(difference.note))
    return Row(head, (value, word(read), Cell(format_p_value(one.p_value))))


def _build_data(results: EvaluationResults) -> TextTable:
    """A row a set: what was counted."""
    notes = Notes()
    counted = list(dict.fromkeys(name for one in results.data for name in one.counts))
    rows = [
        Row(
            Cell(one.name, small=one.kind, mark=notes.mark(" ".join(one.notes)), kind="words"),
            (
                *(Cell(format_count(n)) for n in (one.samples, one.rows, one.groups)),
                *(Cell(format_count(one.counts.get(name))) for name in counted),
                Cell(format_count(len(one.unreadable))),
            ),
        )
        for one in results.data
    ]
    titles = ("Samples", begin_large(plural(results.unit)), begin_large(plural(results.group_unit)))
    columns = [*map(Cell, (*titles, *counted)), Cell("Not readable")]
    return build_list("The data that was judged", "Set", columns, rows, notes)


def _build_models(models: Sequence[EvaluatedModel]) -> TextTable:
    """A row a model: file, form, what is known of its training."""
    notes = Notes()
    rows = [
        Row(
            replace(head, mark=notes.mark(" ".join(model.notes))),
            (
                word(model.file),
                word(model.architecture or DASH),
                word(tell_pairs({**model.trained, **model.validation}) or DASH),
                word(model.sha256 or DASH),
            ),
        )
        for head, model in zip(list_heads(models), models, strict=True)
    ]
    columns = [word("File"), word("Architecture"), word("Its file says"), word("SHA-256")]
    return build_list("The models that were judged", "Model", columns, rows, notes)
