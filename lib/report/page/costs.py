"""What models cost, how they differ from each other, and what the guide expects, as tables.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lib.report.page.heads import SHORT, list_heads
from lib.report.page.numbers import (
    format_bytes,
    format_count_of_parameters,
    format_difference,
    format_latency,
    format_macs,
    format_p_value,
    format_value,
)
from lib.report.page.table import Cell, Group, Notes, Row, Table, build_list, word
from lib.report.page.text import shorten_names
from lib.report.page.words import describe_figure
from lib.report.results import Band, ComparisonResult, CostResult, FigureResult, ModelResult

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
