"""The models of a report as heads of columns or rows: everywhere with the same colour and the same short name."""

from __future__ import annotations

from collections.abc import Sequence

from lib.report.page.table import Cell
from lib.report.page.text import shorten_names
from lib.report.results import ModelResult

ROLES = {
    "teacher": "teacher",
    "before": "before distillation",
    "distilled": "distilled",
    "control": "control",
    "model": "",
}
SHORT = 30  # characters


def list_heads(models: Sequence[ModelResult]) -> tuple[Cell, ...]:
    """A cell a model (M,): its short name, role below, the full name on pointing, and the number of its colour."""
    short = shorten_names([model.name for model in models], SHORT)
    return tuple(
        Cell(
            text=short[model.name],
            small=ROLES[model.role],
            title="" if short[model.name] == model.name else model.name,
            series=number,
            kind="words",
        )
        for number, model in enumerate(models)
    )
