"""What was chosen on validation: temperatures and operating points; and which files were judged, as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.page.heads import list_heads
from lib.report.page.numbers import DASH, MINUS, format_probability, format_value
from lib.report.page.table import Cell, Group, Notes, Row, Table, build_list, word
from lib.report.page.words import describe_level, name_threshold
from lib.report.results import CalibrationResult, ModelResult


def build_temperatures(models: Sequence[ModelResult]) -> Table:
    """A row a model with a calibration."""
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
        word("Fitted on"),
    ]
    return build_list("Temperatures, and what they change where they were fitted", "Model", columns, rows, notes)


def _build_temperature(one: CalibrationResult, notes: Notes) -> tuple[Cell, ...]:
    return (
        Cell(f"{one.temperature:.3f}", title=one.note or "", mark=notes.mark(one.note)),
        Cell(" → ".join(format_value(value, "nats") for value in one.log_loss)),
        Cell(" → ".join(format_value(value, "share") for value in one.ece)),
        word(one.fitted_on),
    )


def build_operating_points(models: Sequence[ModelResult]) -> Table:
    """A group a model and level, a row a threshold."""
    groups = tuple(
        Group(
            f"{model.name}: {describe_level(level)}",
            tuple(
                Row(
                    word(_begin_large(name_threshold(name))),
                    (
                        Cell(_format_threshold(point.threshold)),
                        Cell(format_probability(_to_probability(point.threshold))),
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
        if points
    )
    columns = (
        Cell("Threshold", small="log-odds"),
        Cell("As probability", small="before temperature"),
        Cell("TPR there", link="word-tpr"),
        Cell("FPR there"),
    )
    return Table("Operating points, with their rates where they were chosen", "Threshold", columns, groups)


def build_models(models: Sequence[ModelResult]) -> Table:
    """A row a model: file, form, what is known of its training."""
    notes = Notes()
    rows = [
        Row(
            Cell(
                head.text, head.small, head.title, notes.mark(" ".join(model.notes)), series=head.series, kind="words"
            ),
            (
                word(model.file),
                word(model.architecture or DASH),
                Cell("" if model.image_size is None else f"{model.image_size} px"),
                word(_tell_pairs({**model.trained, **model.validation}) or DASH),
                word(model.sha256 or DASH),
            ),
        )
        for head, model in zip(list_heads(models), models, strict=True)
    ]
    columns = [word("File"), word("Architecture"), Cell("Input"), word("Its file says"), word("SHA-256")]
    return build_list("The models that were judged", "Model", columns, rows, notes)


def _tell_pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {tell_value(value)}" for name, value in values.items())


def tell_value(value: Any) -> str:
    """A JSON value in words: `yes`, `–`, `0.893`, `a, b`; what is nested as JSON."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and not any(isinstance(item, dict | list | tuple) for item in value):
        return ", ".join(map(tell_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _format_threshold(threshold: float) -> str:
    return f"{threshold:.3f}".replace("-", MINUS)


def _to_probability(margin: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * margin))


def _begin_large(text: str) -> str:
    return text[0].upper() + text[1:]
