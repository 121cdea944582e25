"""report.html of an evaluation of detectors, and the files beside it.

This file builds the tables of what was chosen on validation (temperatures, operating points), of what the guide
expects and of the data, and puts all tables and charts into the page's template.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from sharpstudent.report.common_tables import (
    P_VALUE,
    build_costs,
    build_models,
    build_pairs,
    build_sets,
    describe_better,
)
from sharpstudent.report.page import draw_within, render_template, write_files
from sharpstudent.report.sentences import NO_DIFFERENCE, find_side
from sharpstudent.report.text import MINUS, capitalize_first, format_count, format_probability, format_value
from sharpstudent.report.text_table import Cell, Group, Notes, Row, TextTable, build_list, list_heads, text_cell
from sharpstudent.tasks.deepfake.report.charts import ReportCharts, build_charts
from sharpstudent.tasks.deepfake.report.metric_tables import (
    AllMetrics,
    MetricTables,
    build_areas,
    build_glance,
    build_group_tables,
    build_kinds_table,
    build_metric_tables,
    build_severities,
    collect_metrics,
    find_scale,
)
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture, build_mistakes, build_mistakes_table
from sharpstudent.tasks.deepfake.report.results import (
    Band,
    CalibrationResult,
    ComparisonResult,
    DataResult,
    ModelResult,
    Results,
)
from sharpstudent.tasks.deepfake.report.words import (
    describe_level,
    describe_metric,
    describe_part,
    name_threshold,
    split_name,
)


def build_temperatures(models: Sequence[ModelResult]) -> TextTable:
    """Build the table of temperatures, a row a model with a calibration."""
    notes = Notes()
    rows = [
        Row(head, _build_temperature(model.calibration, notes))
        for head, model in zip(list_heads(models), models, strict=True)
        if model.calibration is not None
    ]
    columns = [
        Cell("Temperature", link="word-temperature"),
        Cell("Log loss", small="before → after", link="word-log-loss"),
        Cell("ECE", small="before → after", link="word-ece"),
        text_cell("Fitted on"),
    ]
    return build_list("Temperatures, and what they change where they were fitted", "Model", columns, rows, notes)


def _build_temperature(one: CalibrationResult, notes: Notes) -> tuple[Cell, ...]:
    return (
        Cell(f"{one.temperature:.3f}", title=one.note or "", mark=notes.mark(one.note)),
        Cell(" → ".join(format_value(value, "nats") for value in one.log_loss)),
        Cell(" → ".join(format_value(value, "share") for value in one.ece)),
        text_cell(one.fitted_on),
    )


def build_operating_points(models: Sequence[ModelResult], *, has_videos: bool = True) -> TextTable:
    """Build the table of thresholds: a group a model and level, a row a threshold.

    Args:
        models: The models of the results.
        has_videos: Whether any of the evaluated data are videos; else thresholds of videos are left out.

    Returns:
        The table.
    """
    groups = tuple(
        Group(
            f"{model.name}: {describe_level(level)}",
            tuple(
                Row(
                    text_cell(capitalize_first(name_threshold(name))),
                    (
                        Cell(f"{point.threshold:.3f}".replace("-", MINUS)),
                        Cell(format_probability(0.5 * (1.0 + math.tanh(0.5 * point.threshold)))),
                        Cell(format_value(point.tpr, "percent")),
                        Cell(format_value(point.fpr, "percent")),
                    ),
                )
                for name, point in points.items()
            ),
        )
        for model in models
        if model.calibration is not None
        for level, points in model.calibration.operating_points.items()
        if points and (has_videos or level == "frame")
    )
    columns = (
        Cell("Threshold", small="log-odds"),
        Cell("As probability", small="before temperature"),
        Cell("TPR there", link="word-tpr"),
        Cell("FPR there"),
    )
    notes = Notes()
    for model in models:
        for line in () if model.calibration is None else model.calibration.notes:
            notes.mark(f"{model.name}: {line}")
    title = "Operating points, with their rates where they were chosen"
    return TextTable(title, "Threshold", columns, groups, notes.list_all())


_PAIR_COLUMNS = (
    (text_cell("Conclusion"), lambda one: text_cell(describe_better(one, _find_better(one)))),
    (Cell("p", link="word-p"), P_VALUE[1]),
    (Cell("Agreement", link="word-agreement"), lambda one: Cell(format_value(one.agreement, "percent"))),
)


def build_comparisons(comparisons: Sequence[ComparisonResult]) -> TextTable:
    """Build the table of pairs: a group a metric, a row a pair of models."""
    pairs: dict[str, list[ComparisonResult]] = {}
    for one in comparisons:
        pairs.setdefault(describe_metric(one.figure), []).append(one)
    return build_pairs("Pairs of models on the same samples", pairs, _PAIR_COLUMNS, link="word-interval")


def _find_better(one: ComparisonResult) -> str | None:
    return {"above": "a", "below": "b"}.get(find_side(one.difference, NO_DIFFERENCE))


def build_bands(bands: Sequence[Band]) -> TextTable:
    """Build the table of what the guide expects beside what was measured."""
    rows = [Row(text_cell(band.what), (text_cell(band.expected), text_cell(band.measured))) for band in bands]
    caption = "What the two-stage guide expects on FaceForensics++ at 380 px, beside what was measured here"
    return build_list(caption, "What", [text_cell("Expected there"), text_cell("Measured here")], rows, Notes())


def build_data(data: Sequence[DataResult]) -> TextTable:
    """Build the table of data sets with their counts."""
    videos = ("videos",) if any(one.videos for one in data) else ()
    names = ("frames", "faces", "real", "fake", *videos, "people")
    counts: dict[Cell, Callable[[Any], int]] = {Cell(capitalize_first(name)): attrgetter(name) for name in names}
    counts[Cell("Without decision", link="word-counts")] = lambda one: sum(one.without_decision.values())
    return build_sets(data, counts, describe_kind=_describe_kind)


def build_counts(data: Sequence[DataResult], caption: str, head: str, name: str) -> TextTable:
    """Build a table of counts, a row a set and counted name.

    Args:
        data: The data sets.
        caption: The caption of the table.
        head: The head of the column of names.
        name: The field of `DataResult` that holds the counts.

    Returns:
        The table.
    """
    rows = [
        Row(text_cell(one.name), (text_cell(counted), Cell(format_count(count))))
        for one in data
        for counted, count in getattr(one, name).items()
        if count
    ]
    return build_list(caption, "Set", [text_cell(head), Cell("Frames")], rows, Notes())


def _describe_kind(one: DataResult) -> str:
    return one.kind if one.split is None else f"{one.kind}, split {one.split}"


KIND_METRICS = ("auc", "eer", "tpr_at_fpr_1pct", "apcer_at_half")
SOURCE_LEVELS = ("frame", "video_mean")


@dataclass(frozen=True)
class SourceTables:
    """The tables of one source.

    Attributes:
        name: The name of the source.
        tables: The tables over all its fakes.
        kinds: The tables by kind of fake.
    """

    name: str
    tables: tuple[MetricTables, ...]
    kinds: tuple[TextTable, ...]


def write_report(
    folder: Path, results: Results, pictures: Sequence[ReportPicture] = (), console: Console | None = None
) -> list[Path]:
    """Write all files of the report.

    Args:
        folder: Where the files go; it is made.
        results: The results of the evaluation.
        pictures: The faces; `MistakeResult.picture` is an index into them.
        console: Where progress is shown; None for nowhere.

    Returns:
        The files, report.html first.

    Raises:
        UserError: The disk refuses.
        ValueError: A picture is missing or has a wrong form.
    """
    charts = build_charts(results)
    page = render_page(results, charts, pictures)
    return write_files(folder, page=page, results=results.to_json(), charts=charts.list_all(), console=console)


def render_page(results: Results, charts: ReportCharts, pictures: Sequence[ReportPicture]) -> str:
    """Render report.html.

    Args:
        results: The results of the evaluation.
        charts: The charts of the results.
        pictures: The faces; `MistakeResult.picture` is an index into them.

    Returns:
        HTML.

    Raises:
        ValueError: As in `build_mistakes`.
    """
    by_set = _list_by_set(results)
    metrics = collect_metrics(results.models)
    mistakes = build_mistakes(results.mistakes, pictures)
    # What matters most comes first: the page has room for so much, and the rest is in files.
    count = min(1, len(charts.curves))
    drawn = draw_within([*charts.curves[:count], charts.robustness, charts.training, *charts.curves[count:]])
    first, (robustness, training), further = drawn[:count], drawn[count : count + 2], drawn[count + 2 :]
    parts = {
        "comparisons": build_comparisons([one for one in results.comparisons if one.figure in by_set]),
        "costs": build_costs(results.models, unit="picture", link="word-macs"),
        "bands": build_bands(results.bands),
        "temperatures": build_temperatures(results.models),
        "points": build_operating_points(
            results.models, has_videos=not results.data or any(one.videos for one in results.data)
        ),
        "data": build_data(results.data),
        "undecided": build_counts(results.data, "Frames without decision, by reason", "Reason", "without_decision"),
        "fakes": build_counts(results.data, "Fakes by kind", "Kind", "manipulations"),
        "models": build_models(
            results.models, ["" if one.image_size is None else f"{one.image_size} px" for one in results.models]
        ),
        "unit": "picture",
        "glance": build_glance(metrics),
        "least": format_value(find_scale(metrics), "share").rstrip("0"),
        "sources": _list_sources(metrics),
        "by_group": build_group_tables(results.models),
        "curves": [*first, *further],
        "robustness": robustness,
        "areas": build_areas(results.models),
        "severities": build_severities(results.models),
        "training": training,
        "mistakes": mistakes,
        "further": build_mistakes_table(mistakes.rest),
    }
    return render_template("report.html.j2", results, results.models, package=__package__, parts=parts)


def _list_by_set(results: Results) -> set[str]:
    """Names of the metrics that were compared on each set; of a single set those on all data. No pool of sets."""
    names = {one.figure for one in results.comparisons}
    return {name for name in names if split_name(name).suffix} or names


def _list_sources(metrics: AllMetrics) -> list[SourceTables]:
    """List the tables of each source; those of all data where metrics name no source."""
    found: list[SourceTables] = []
    sources = metrics.list_sources()
    for source in sources or [""]:
        levels = metrics.list_levels(source)
        if len(sources) < 2:  # then all data are this source, and have every rule for videos
            levels = metrics.list_levels("") or levels
        else:
            levels = [level for level in SOURCE_LEVELS if level in levels]
        suffix = "" if len(sources) < 2 and metrics.list_levels("") else source
        tables = tuple(build_metric_tables(metrics, level, suffix) for level in levels)
        kinds = tuple(build_kinds_table(metrics, source, level, KIND_METRICS) for level in SOURCE_LEVELS if source)
        filled = tuple(table for table in kinds if table)
        if tables or filled:
            found.append(SourceTables(describe_part(source), tables, filled))
    return found
