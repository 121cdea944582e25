"""The first table of a report: a row a model, the figures that matter most, their intervals drawn.

Where there are several data sets each has its rows, so that "the same kind of fake" stands beside "another kind".
"""

from __future__ import annotations

import math

from lib.report.page.figures import AllFigures, build_cell
from lib.report.page.heads import list_heads
from lib.report.page.numbers import DASH, NARROW
from lib.report.page.table import Cell, Group, Notes, Row, Strip, Table
from lib.report.page.words import describe_part, find_word
from lib.report.results import FigureResult

_COLUMNS = (("frame", "auc"), ("video_mean", "auc"), ("frame", "eer"), ("frame", "tpr_at_fpr_1pct"))
_MOST_ROWS = 24


def build_glance(figures: AllFigures) -> Table:
    """Of all data together, and of each source where there are several and not too many."""
    sources = figures.list_sources()
    parts = [""] if len(sources) < 2 or len(sources) * len(figures.models) > _MOST_ROWS else ["", *sources]
    parts = [part for part in parts if figures.list_levels(part)]
    columns = [
        (level, base)
        for level, base in _COLUMNS
        if any(figures.find(level, part, model.name, base) for part in parts for model in figures.models)
    ]
    notes, names = Notes(), [model.name for model in figures.models]
    least = find_least(figures)
    groups = tuple(
        Group(
            describe_part(part) if part else "All data",
            tuple(
                Row(
                    head,
                    tuple(_build(figures.find(level, part, name, base), base, notes, least) for level, base in columns),
                )
                for head, name in zip(list_heads(figures.models), names, strict=True)
            ),
        )
        for part in parts
    )
    if len(groups) == 1:
        groups = (Group("", groups[0].rows),)
    heads = tuple(_build_head(level, base) for level, base in columns)
    return Table("At a glance", "Model", heads, groups, notes.list_all())


def _build_head(level: str, base: str) -> Cell:
    one = find_word(base)
    unit, _, rule = level.partition("_")
    title = one.title if one.title[:2].isupper() else one.title[0].lower() + one.title[1:]
    return Cell(
        f"{unit.capitalize()} {title}{NARROW}{'↑' if one.rises else '↓'}",
        small=f"{rule} of its frames" if rule else "",
        link=f"word-{one.entry}",
    )


def find_least(figures: AllFigures) -> float:
    """Where the scale of areas begins: .5, or lower where a model is worse than guessing."""
    areas = [
        value
        for part in ("", *figures.list_sources())
        for model in figures.models
        for level, base in _COLUMNS
        if base == "auc" and (figure := figures.find(level, part, model.name, base)) is not None
        for value in (figure.low, figure.value)
        if value is not None
    ]
    return min(0.5, math.floor(10 * min(areas, default=0.5)) / 10)


def _build(figure: FigureResult | None, base: str, notes: Notes, least: float) -> Cell:
    cell = build_cell(figure, find_word(base), notes)
    strip = None if base != "auc" or figure is None or cell.text == DASH else _build_strip(figure, least)
    return Cell(cell.text, cell.small, cell.title, cell.mark, strip=strip)


def _build_strip(figure: FigureResult, least: float) -> Strip | None:
    if figure.value is None:
        return None
    low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
    return Strip(*(round(100 * (value - least) / (1 - least), 1) for value in (low, figure.value, high)))
