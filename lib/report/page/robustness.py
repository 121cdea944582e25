"""Robustness in numbers: the area under each curve, and the AUC at each strength.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.report.charts.robustness import name_disturbance
from lib.report.page.figures import build_cell
from lib.report.page.heads import list_heads
from lib.report.page.numbers import format_value
from lib.report.page.table import Cell, Group, Notes, Row, Table, build_list
from lib.report.page.words import find_word
from lib.report.results import DisturbanceCurve, FigureResult, ModelResult


def build_areas(models: Sequence[ModelResult]) -> Table:
    """A row a disturbance, a column a model (M)."""
    rows = [
        Row(
            Cell(name_disturbance(name), kind="words"),
            tuple(Cell(format_value(None if curve is None else curve.area, "share")) for curve in _find(models, name)),
        )
        for name in _list_names(models)
    ]
    return build_list("Area under each curve: mean frame AUC", "Disturbance", list_heads(models), rows, Notes())


def build_strengths(models: Sequence[ModelResult]) -> Table:
    """A group a disturbance, a row a strength, a column a model (M)."""
    notes = Notes()
    groups = tuple(Group(name_disturbance(name), _build_rows(models, name, notes)) for name in _list_names(models))
    return Table("Frame AUC at each strength", "Strength", list_heads(models), groups, notes.list_all())


def _build_rows(models: Sequence[ModelResult], name: str, notes: Notes) -> tuple[Row, ...]:
    curves = _find(models, name)
    labels = dict.fromkeys(point.label for curve in curves if curve is not None for point in curve.points)
    auc = find_word("auc")
    return tuple(
        Row(Cell(label, kind="words"), tuple(build_cell(_find_point(curve, label), auc, notes) for curve in curves))
        for label in labels
    )


def _list_names(models: Sequence[ModelResult]) -> list[str]:
    return list(dict.fromkeys(curve.name for model in models for curve in model.robustness))


def _find(models: Sequence[ModelResult], name: str) -> list[DisturbanceCurve | None]:
    return [next((curve for curve in model.robustness if curve.name == name), None) for model in models]


def _find_point(curve: DisturbanceCurve | None, label: str) -> FigureResult | None:
    return None if curve is None else next((p.auc for p in curve.points if p.label == label), None)
