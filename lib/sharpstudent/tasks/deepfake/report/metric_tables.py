"""The metrics of all models as tables.

There is a row a metric and a column a model; the first table of a report has a row a model and the most important
metrics, with their intervals drawn; and two tables hold robustness in numbers. With several data sets each has rows of
its own, so that known kinds of fake stand beside unknown ones.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sharpstudent.report.results import MetricValue
from sharpstudent.report.text import DASH, NARROW, format_interval, format_value
from sharpstudent.report.text_table import Cell, Group, Notes, Row, Strip, TextTable, build_list, list_heads
from sharpstudent.tasks.deepfake.report.results import CorruptionCurve, GroupErrors, ModelResult
from sharpstudent.tasks.deepfake.report.words import (
    MetricLabel,
    describe_level,
    describe_part,
    find_label,
    find_least,
    list_corruptions,
    name_corruption,
    name_threshold,
    split_name,
)

Found = Mapping[str, Mapping[str, MetricValue]]  # model -> metric without level and part
_KINDS = {
    "ranking": "Telling fakes from reals",
    "probability": "Probabilities",
    "other": "Other metrics",
    "count": "Samples",
}
_AT_HALF = f"Decisions at {name_threshold('half')}"
_MAIN = (_KINDS["ranking"], _AT_HALF, _KINDS["probability"], _KINDS["other"], _KINDS["count"])


@dataclass(frozen=True)
class MetricTables:
    """The tables of one level and one part.

    Attributes:
        title: The title of both tables.
        main: All metrics except the decisions at further thresholds.
        at_thresholds: Decisions at thresholds chosen on validation; it may have no rows.
    """

    title: str
    main: TextTable
    at_thresholds: TextTable


@dataclass(frozen=True)
class AllMetrics:
    """The metrics of every level and part.

    Attributes:
        models: The models of the results (M,).
        found: The estimates: by level and suffix, then by model, then by metric.
    """

    models: tuple[ModelResult, ...]
    found: Mapping[tuple[str, str], Found]

    def list_levels(self, suffix: str) -> list[str]:
        """List the levels with metrics of a part: `frame`, `video_mean`, ...; levels with counts only are left out."""
        levels = [level for level, part in self.found if part == suffix and level not in ("", "video")]
        return list(dict.fromkeys(levels))

    def list_sources(self) -> list[str]:
        """List the suffixes of whole sources."""
        return list(dict.fromkeys(part for _, part in self.found if part and "/" not in part))

    def list_kinds(self, source: str) -> list[str]:
        """List the suffixes of a source's kinds of fake."""
        return list(dict.fromkeys(part for _, part in self.found if part.startswith(f"{source}/")))

    def find(self, level: str, suffix: str, model: str, base: str) -> MetricValue | None:
        """Find one estimate.

        Args:
            level: The level, such as `frame`.
            suffix: The suffix of the part of the data, such as `@SOURCE`; "" for all data.
            model: The name of the model.
            base: The name of the metric without level and part.

        Returns:
            The estimate, None where the model has none.
        """
        return self.found.get((level, suffix), {}).get(model, {}).get(base)


def collect_metrics(models: Sequence[ModelResult]) -> AllMetrics:
    """Sort all metrics by level and part."""
    found: dict[tuple[str, str], dict[str, dict[str, MetricValue]]] = {}
    for model in models:
        for name, estimate in model.figures.items():
            parts = split_name(name)
            found.setdefault((parts.level, parts.suffix), {}).setdefault(model.name, {})[parts.base] = estimate
    return AllMetrics(tuple(models), found)


def build_metric_tables(metrics: AllMetrics, level: str, suffix: str) -> MetricTables:
    """Build the tables of one level and part, with its counts.

    Args:
        metrics: The metrics of all models.
        level: The level, such as `frame`.
        suffix: The suffix of the part of the data, such as `@SOURCE`; "" for all data.

    Returns:
        The tables.
    """
    title = f"Per {level.partition('_')[0]}" + _describe_rule(level)
    place = f"{describe_level(level)}, {describe_part(suffix)}"
    found = _merge_counts(metrics, level, suffix)
    words = {base: find_label(base) for of_model in found.values() for base in of_model}
    titles = {base: _title_group(one) for base, one in words.items()}

    def build(caption: str, wanted: Iterable[str]) -> TextTable:
        """Build the table of some groups of metrics.

        Args:
            caption: The caption of the table.
            wanted: The titles of the groups.

        Returns:
            The table; groups without rows are left out.
        """
        notes, groups = Notes(), list[Group]()
        for title in wanted:
            own = [(base, one) for base, one in words.items() if titles[base] == title]
            groups.append(Group(title, tuple(_build_row(metrics.models, found, *one, notes) for one in own)))
        return TextTable(caption, "Metric", list_heads(metrics.models), _drop_empty(groups), notes.list_all())

    further = [name for name in dict.fromkeys(titles.values()) if name not in _MAIN]
    at = build(f"Decisions on {place}, at thresholds chosen on validation", further)
    return MetricTables(title, build(f"Metrics of {place}", _MAIN), at)


def build_kinds_table(metrics: AllMetrics, source: str, level: str, bases: Sequence[str]) -> TextTable:
    """Build a table with a row a kind of fake, each against all reals of its source.

    Args:
        metrics: The metrics of all models.
        source: The suffix of the source.
        level: The level, such as `frame`.
        bases: The names of the metrics, each of which gets a group of rows.

    Returns:
        The table.
    """
    notes, groups = Notes(), list[Group]()
    for base in bases:
        rows: list[Row] = []
        for suffix in metrics.list_kinds(source):
            cells = _build_cells(metrics.models, metrics.found.get((level, suffix), {}), base, find_label(base), notes)
            if any(cell.text != DASH or cell.mark for cell in cells):
                rows.append(Row(Cell(suffix.removeprefix(f"{source}/"), kind="words"), cells))
        groups.append(Group(_title_with_direction(find_label(base)), tuple(rows)))
    caption = f"By kind of fake, {describe_level(level)} of {describe_part(source)}"
    return TextTable(caption, "Kind of fake", list_heads(metrics.models), _drop_empty(groups), notes.list_all())


def build_cell(estimate: MetricValue | None, word: MetricLabel, notes: Notes) -> Cell:
    """Build the cell of an estimate, with its interval below it.

    Args:
        estimate: The value with its interval; None where it was not measured.
        word: How the metric is named and formatted.
        notes: Takes the estimate's note.

    Returns:
        The cell.
    """
    if estimate is None:
        return Cell(DASH, title="not measured")
    return Cell(
        text=format_value(estimate.value, word.unit),
        small=format_interval(estimate.low, estimate.high, word.unit),
        title=estimate.note or "",
        mark=notes.mark(estimate.note),
    )


def _title_group(one: MetricLabel) -> str:
    return _KINDS[one.kind] if one.threshold is None else f"Decisions at {name_threshold(one.threshold)}"


def _describe_rule(level: str) -> str:
    return describe_level(level).partition("s (")[2].removesuffix(")").join((": ", "")) if "_" in level else ""


def _merge_counts(metrics: AllMetrics, level: str, suffix: str) -> Found:
    """Merge the metrics of a level with the counts of its unit and of people."""
    unit = level.partition("_")[0]
    places = dict.fromkeys(((level, suffix), (unit, suffix), ("", suffix)))
    return {
        model.name: {
            base: estimate
            for place in places
            for base, estimate in metrics.found.get(place, {}).get(model.name, {}).items()
        }
        for model in metrics.models
    }


def _build_row(models: Sequence[ModelResult], found: Found, base: str, one: MetricLabel, notes: Notes) -> Row:
    head = Cell(_title_with_direction(one), link=f"word-{one.entry}" if one.entry != "other" else "", kind="words")
    return Row(head, _build_cells(models, found, base, one, notes))


def _build_cells(
    models: Sequence[ModelResult], found: Found, base: str, one: MetricLabel, notes: Notes
) -> tuple[Cell, ...]:
    return tuple(build_cell(found.get(model.name, {}).get(base), one, notes) for model in models)


def _title_with_direction(one: MetricLabel) -> str:
    return one.title if one.rises is None else f"{one.title}{NARROW}{'↑' if one.rises else '↓'}"


def _drop_empty(groups: Sequence[Group]) -> tuple[Group, ...]:
    return tuple(group for group in groups if group.rows)


_COLUMNS = (("frame", "auc"), ("video_mean", "auc"), ("frame", "eer"), ("frame", "tpr_at_fpr_1pct"))


def build_glance(metrics: AllMetrics) -> TextTable:
    """Build the first table: each source by itself, and of a single one all data. There is no pool of sources."""
    sources = metrics.list_sources()
    parts = [part for part in (sources if len(sources) > 1 else [""]) if metrics.list_levels(part)]
    columns = [
        (level, base)
        for level, base in _COLUMNS
        if any(metrics.find(level, part, model.name, base) for part in parts for model in metrics.models)
    ]
    notes, names = Notes(), [model.name for model in metrics.models]
    least = find_scale(metrics)
    groups = tuple(
        Group(
            describe_part(part) if part else "All data",
            tuple(
                Row(
                    head,
                    tuple(_build(metrics.find(level, part, name, base), base, notes, least) for level, base in columns),
                )
                for head, name in zip(list_heads(metrics.models), names, strict=True)
            ),
        )
        for part in parts
    )
    if len(groups) == 1:
        groups = (Group("", groups[0].rows),)
    heads = tuple(_build_head(level, base) for level, base in columns)
    return TextTable("At a glance", "Model", heads, groups, notes.list_all())


def _build_head(level: str, base: str) -> Cell:
    one = find_label(base)
    unit, _, rule = level.partition("_")
    title = one.title if one.title[:2].isupper() else one.title[0].lower() + one.title[1:]
    return Cell(
        f"{unit.capitalize()} {title}{NARROW}{'↑' if one.rises else '↓'}",
        small=f"{rule} of its frames" if rule else "",
        link=f"word-{one.entry}",
    )


def find_scale(metrics: AllMetrics) -> float:
    """Find where the scale of the drawn AUCs begins."""
    areas = [
        estimate
        for part in ("", *metrics.list_sources())
        for model in metrics.models
        for level, base in _COLUMNS
        if base == "auc" and (estimate := metrics.find(level, part, model.name, base)) is not None
    ]
    return find_least(value for estimate in areas for value in (estimate.low, estimate.value))


def _build(estimate: MetricValue | None, base: str, notes: Notes, least: float) -> Cell:
    cell = build_cell(estimate, find_label(base), notes)
    if base != "auc" or estimate is None or estimate.value is None:
        return cell
    ends = (estimate.value if end is None else end for end in (estimate.low, estimate.value, estimate.high))
    return replace(cell, strip=Strip(*(round(100 * (end - least) / (1 - least), 1) for end in ends)))


def build_group_tables(models: Sequence[ModelResult]) -> list[TextTable]:
    """Build a table of error rates for each column of --by: a group of rows a value, a row a rate, a column a model."""
    tables: list[TextTable] = []
    for column in dict.fromkeys(errors.column for model in models for errors in model.by_group):
        notes = Notes()
        found = [next((one for one in model.by_group if one.column == column), None) for model in models]
        values = dict.fromkeys(group.value for errors in found if errors is not None for group in errors.groups)
        groups = tuple(
            Group(value, tuple(_build_rate(found, value, rate, notes) for rate in _RATES)) for value in values
        )
        tables.append(TextTable(f"Errors by {column}", "Rate", list_heads(models), groups, notes.list_all()))
    return tables


_RATES = ("bpcer", "apcer")


def _build_rate(found: Sequence[GroupErrors | None], value: str, rate: str, notes: Notes) -> Row:
    label = find_label(f"{rate}_at_half")
    cells = [
        build_cell(
            next((getattr(group, rate) for group in errors.groups if group.value == value), None)
            if errors is not None
            else None,
            label,
            notes,
        )
        for errors in found
    ]
    return Row(Cell(_title_with_direction(label), link=f"word-{label.entry}", kind="words"), tuple(cells))


def build_areas(models: Sequence[ModelResult]) -> TextTable:
    """Build the table of areas: a row a corruption, a column a model (M)."""
    rows = [
        Row(
            Cell(name_corruption(name), kind="words"),
            tuple(Cell(format_value(None if curve is None else curve.area, "share")) for curve in _find(models, name)),
        )
        for name in list_corruptions(models)
    ]
    return build_list("Area under each curve: mean frame AUC", "Corruption", list_heads(models), rows, Notes())


def build_severities(models: Sequence[ModelResult]) -> TextTable:
    """Build the table of AUCs: a group a corruption, a row a severity, a column a model (M)."""
    notes = Notes()
    groups = tuple(Group(name_corruption(name), _build_rows(models, name, notes)) for name in list_corruptions(models))
    return TextTable("Frame AUC at each severity", "Severity", list_heads(models), groups, notes.list_all())


def _build_rows(models: Sequence[ModelResult], name: str, notes: Notes) -> tuple[Row, ...]:
    curves = _find(models, name)
    labels = dict.fromkeys(point.label for curve in curves if curve is not None for point in curve.points)
    auc = find_label("auc")
    return tuple(
        Row(Cell(label, kind="words"), tuple(build_cell(_find_point(curve, label), auc, notes) for curve in curves))
        for label in labels
    )


def _find(models: Sequence[ModelResult], name: str) -> list[CorruptionCurve | None]:
    return [next((curve for curve in model.robustness if curve.name == name), None) for model in models]


def _find_point(curve: CorruptionCurve | None, label: str) -> MetricValue | None:
    return None if curve is None else next((p.auc for p in curve.points if p.label == label), None)
