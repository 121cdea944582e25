"""Parts of the page about data, calibration and cost.

What was chosen on validation: temperatures and operating points; and which files were judged, as tables.

What models cost, how they differ from each other, and what the guide expects, as tables.

Legend: M models.

The data sets that were judged, and lists of names with values: protocol, environment.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpstudent.report.page.words import describe_figure, describe_level, name_threshold
from sharpstudent.report.results import (
    Band,
    CalibrationResult,
    ComparisonResult,
    CostResult,
    DataResult,
    FigureResult,
    ModelResult,
)
from sharpstudent.report.text import (
    DASH,
    MINUS,
    SHORT,
    Cell,
    Group,
    Notes,
    Row,
    Table,
    build_list,
    format_bytes,
    format_count,
    format_count_of_parameters,
    format_difference,
    format_latency,
    format_macs,
    format_p_value,
    format_probability,
    format_value,
    list_heads,
    shorten_names,
    word,
)


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


_COST: tuple[tuple[str, str, Callable[[CostResult], str]], ...] = (
    ("Parameters", "", lambda cost: format_count_of_parameters(cost.parameters)),
    ("MACs", "one picture", lambda cost: format_macs(cost.macs)),
    ("File", "", lambda cost: format_bytes(cost.file_bytes)),
    ("Memory", "peak", lambda cost: format_bytes(cost.memory_bytes)),
    ("Latency", "median", lambda cost: format_latency(cost.latency_ms)),
    ("Latency", "p95", lambda cost: format_latency(cost.latency_p95_ms)),
)


def build_costs(models: Sequence[ModelResult]) -> Table:
    """A row a model that was measured."""
    notes = Notes()
    rows = [
        Row(
            replace(head, mark=notes.mark(" ".join(model.cost.notes))),
            (*(Cell(tell(model.cost)) for _, _, tell in _COST), word(model.cost.device)),
        )
        for head, model in zip(list_heads(models), models, strict=True)
        if model.cost is not None
    ]
    columns = [Cell(title, small=small, link="word-macs") for title, small, _ in _COST]
    return build_list("Cost of one picture (batch 1)", "Model", [*columns, word("Device")], rows, notes)


def build_comparisons(comparisons: Sequence[ComparisonResult]) -> Table:
    """A group a figure, a row a pair of models; figures in the order in which they come."""
    notes = Notes()
    names = shorten_names([name for one in comparisons for name in (one.a, one.b)], SHORT)
    groups = tuple(
        Group(
            describe_figure(figure),
            tuple(_build_comparison(one, names, notes) for one in comparisons if one.figure == figure),
        )
        for figure in dict.fromkeys(one.figure for one in comparisons)
    )
    columns = (
        Cell("Difference", small="first minus second", link="word-interval"),
        word("Reads as"),
        Cell("p", link="word-p"),
        Cell("Agreement", link="word-agreement"),
    )
    return Table("Pairs of models on the same samples", "Models", columns, groups, notes.list_all())


def _build_comparison(one: ComparisonResult, names: dict[str, str], notes: Notes) -> Row:
    difference = one.difference
    ends = (
        f"[{format_difference(difference.low)}, {format_difference(difference.high)}]"
        if difference.low is not None and difference.high is not None
        else ""
    )
    head = Cell(names[one.a], small=f"minus {names[one.b]}", title=f"{one.a} minus {one.b}", kind="words")
    return Row(
        head,
        (
            Cell(format_difference(difference.value), ends, difference.note or "", notes.mark(difference.note)),
            word(_read(difference)),
            Cell(format_p_value(one.p_value)),
            Cell(format_value(one.agreement, "percent")),
        ),
    )


def _read(difference: FigureResult) -> str:
    if difference.low is None or difference.high is None:
        return "no interval"
    if difference.low > 0:
        return "first is better"
    return "second is better" if difference.high < 0 else "within noise"


def build_bands(bands: Sequence[Band]) -> Table:
    """What the guide expects beside what was measured."""
    rows = [Row(word(band.what), (word(band.expected), word(band.measured))) for band in bands]
    caption = "What the two-stage guide expects on FaceForensics++ at 380 px, beside what was measured here"
    return build_list(caption, "What", [word("Expected there"), word("Measured here")], rows, Notes())


Pairs = tuple[tuple[str, str], ...]


def build_data(data: Sequence[DataResult]) -> Table:
    """A row a set: what was counted."""
    notes = Notes()
    rows = [
        Row(
            Cell(one.name, small=_tell_kind(one), mark=notes.mark(" ".join(one.notes)), kind="words"),
            (
                *(Cell(format_count(n)) for n in (one.frames, one.faces, one.real, one.fake, one.videos, one.people)),
                Cell(format_count(sum(one.without_decision.values()))),
            ),
        )
        for one in data
    ]
    titles = ("Frames", "Faces", "Real", "Fake", "Videos", "People", "Without decision")
    columns = [Cell(title, link="word-counts" if title.startswith("Without") else "") for title in titles]
    return build_list("The data that was judged", "Set", columns, rows, notes)


def build_undecided(data: Sequence[DataResult]) -> Table:
    """A row a set and reason for which frames have no decision."""
    rows = [
        Row(word(one.name), (word(reason), Cell(format_count(count))))
        for one in data
        for reason, count in one.without_decision.items()
        if count
    ]
    return build_list("Frames without decision, by reason", "Set", [word("Reason"), Cell("Frames")], rows, Notes())


def build_fakes(data: Sequence[DataResult]) -> Table:
    """A row a set and kind of fake."""
    rows = [
        Row(word(one.name), (word(kind), Cell(format_count(count))))
        for one in data
        for kind, count in one.manipulations.items()
    ]
    return build_list("Fakes by kind", "Set", [word("Kind"), Cell("Frames")], rows, Notes())


def _tell_kind(one: DataResult) -> str:
    return one.kind if one.split is None else f"{one.kind}, split {one.split}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Nested mappings as pairs of a dotted name and a value in words."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{name}.")
        elif name == "command" and isinstance(value, list | tuple):
            pairs.append((f"{prefix}{name}", shlex.join(map(str, value))))
        else:
            pairs.append((f"{prefix}{name}", DASH if value in ({}, []) else tell_value(value)))
    return tuple(pairs)
