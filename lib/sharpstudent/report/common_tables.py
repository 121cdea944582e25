"""Tables that the reports of all tasks have: costs, model files, data sets, and pairs of models.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpstudent.core.naming import shorten_names
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.report.page import format_pairs
from sharpstudent.report.results import ModelBase, PairBase
from sharpstudent.report.sentences import describe_as_good, is_of_few
from sharpstudent.report.text import DASH, format_count, format_difference, format_p_value, to_sentences
from sharpstudent.report.text_table import (
    COSTS,
    SHORT,
    Cell,
    Group,
    Notes,
    Row,
    TextTable,
    build_list,
    list_heads,
    text_cell,
)


def build_costs(models: Sequence[ModelBase], *, unit: str, link: str = "") -> TextTable:
    """Build the table of costs, with a row for each model that was measured.

    Args:
        models: The models of the results (M,).
        unit: What one row is called, such as `picture`.
        link: The id of the page's entry that explains costs.

    Returns:
        The table.
    """
    notes = Notes()
    rows = [
        Row(
            replace(head, mark=notes.mark(to_sentences(model.cost.notes))),
            (*(Cell(tell(model.cost)) for tell in COSTS.values()), text_cell(model.cost.device)),
        )
        for head, model in zip(list_heads(models), models, strict=True)
        if model.cost is not None
    ]
    titles = ("Parameters", "MACs", "File", "Memory", "Latency", "Latency")
    smalls = ("", f"one {unit}", "", "peak", "median", "p95")
    columns = [Cell(title, small=small, link=link) for title, small in zip(titles, smalls, strict=True)]
    return build_list(f"Cost of one {unit} (batch 1)", "Model", [*columns, text_cell("Device")], rows, notes)


def build_models(models: Sequence[ModelBase], inputs: Sequence[str] = ()) -> TextTable:
    """Build the table of models: file, architecture, and what the file says of its training.

    Args:
        models: The models of the results (M,).
        inputs: A description of the input of each model (M,); the column is left out where this is empty.

    Returns:
        The table.
    """
    notes = Notes()
    rows = [
        Row(
            replace(head, mark=notes.mark(to_sentences(model.notes))),
            (
                text_cell(model.file),
                text_cell(model.architecture or DASH),
                *map(Cell, inputs[number : number + 1]),
                text_cell(format_pairs({**model.trained, **model.validation}) or DASH),
                text_cell(model.sha256 or DASH),
            ),
        )
        for number, (head, model) in enumerate(zip(list_heads(models), models, strict=True))
    ]
    further = [Cell("Input")] if inputs else []
    columns = [text_cell("File"), text_cell("Architecture"), *further, text_cell("From its file"), text_cell("SHA-256")]
    return build_list("The evaluated models", "Model", columns, rows, notes)


PairColumn = tuple[Cell, Callable[[Any], Cell]]  # its head, and the cell of a pair


def build_pairs(
    caption: str, pairs: Mapping[str, Sequence[PairBase]], columns: Sequence[PairColumn], *, link: str = ""
) -> TextTable:
    """Build the table of pairs: a group of rows for each metric, a row for each pair of models.

    Args:
        caption: The caption of the table.
        pairs: The pairs of models, by the title of the metric.
        columns: The columns after the difference.
        link: The id of the page's entry that explains differences.

    Returns:
        The table.
    """
    notes = Notes()
    names = shorten_names([name for group in pairs.values() for one in group for name in (one.a, one.b)], SHORT)
    groups = [
        Group(title, tuple(_build_pair(one, names, columns, notes) for one in group)) for title, group in pairs.items()
    ]
    heads = (Cell("Difference", small="first minus second", link=link), *(head for head, _ in columns))
    return TextTable(caption, "Models", heads, tuple(groups), notes.list_all())


def _build_pair(one: PairBase, names: Mapping[str, str], columns: Sequence[PairColumn], notes: Notes) -> Row:
    head = Cell(names[one.a], small=f"minus {names[one.b]}", title=f"{one.a} minus {one.b}", kind="words")
    found = one.difference
    ends = "" if found.low is None else f"[{format_difference(found.low)}, {format_difference(found.high)}]"
    value = Cell(format_difference(found.value), ends, found.note or "", notes.mark(found.note))
    return Row(head, (value, *(tell(one) for _, tell in columns)))


P_VALUE: PairColumn = (Cell("p"), lambda one: Cell(format_p_value(one.p_value)))


def describe_better(pair: PairBase, better: str | None) -> str:
    """Say in words how a difference reads.

    Args:
        pair: The two models.
        better: `a` or `b` where the interval leaves 0 out, else None.

    Returns:
        `first is better`, `inconclusive`, or the like, and which is as good as the other.
    """
    found = pair.difference
    if found.low is None or found.high is None:
        return "inconclusive: no interval"
    if is_of_few(found):
        return f"inconclusive: {found.groups} of {FEWEST_GROUPS} groups"
    if better is not None:
        return {"a": "first is better", "b": "second is better"}[better]
    return f"inconclusive{describe_as_good(pair, ('first', 'second'))}"


def build_sets(
    data: Sequence[Any], counts: Mapping[Cell, Callable[[Any], int | None]], *, describe_kind: Callable[[Any], str]
) -> TextTable:
    """Build the table of data sets, with a row for each set and its counts.

    Args:
        data: The data sets.
        counts: For each column, by its head, a function that reads the count from a set.
        describe_kind: Returns the line below the name of a set.

    Returns:
        The table.
    """
    notes = Notes()
    rows = [
        Row(
            Cell(one.name, small=describe_kind(one), mark=notes.mark(to_sentences(one.notes)), kind="words"),
            tuple(Cell(format_count(read(one))) for read in counts.values()),
        )
        for one in data
    ]
    return build_list("The evaluated data", "Set", list(counts), rows, notes)
