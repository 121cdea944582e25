"""Tables of a report as data: cells of finished text with notes below them, and columns for Markdown and the console.

A model has the same short name and the same colour in every table.

Legend: M models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as ConsoleTable

from sharpstudent.core.naming import clean_name, escape_markdown, shorten_names
from sharpstudent.report.results import CostResult, ModelBase
from sharpstudent.report.text import DASH, format_bytes, format_macs, format_milliseconds, format_parameters


@dataclass(frozen=True)
class Strip:
    """An interval drawn within a cell.

    Attributes:
        low: The lower end, in per cent of the cell's scale, like the other two.
        value: The estimate.
        high: The upper end.
    """

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: The text of the cell.
        small: A second, fainter line.
        title: A longer text, shown when pointing at the cell.
        mark: The mark of a note below the table.
        link: The id of the page's entry that the text links to.
        series: The number of the model's colour.
        strip: An interval to draw.
        kind: `number` is aligned to the right, `words` to the left.
    """

    text: str
    small: str = ""
    title: str = ""
    mark: str = ""
    link: str = ""
    series: int | None = None
    strip: Strip | None = None
    kind: Literal["number", "words"] = "number"


@dataclass(frozen=True)
class Row:
    """A row of a table; `head` says what it is about."""

    head: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Rows under a common title, which may be empty."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class TextTable:
    """A table as data.

    Attributes:
        caption: The title of the table.
        corner: The head of the first column.
        columns: The heads of the other columns.
        groups: The rows, in groups.
        notes: The mark and the text of each note.
    """

    caption: str
    corner: str
    columns: tuple[Cell, ...]
    groups: tuple[Group, ...]
    notes: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any row."""
        return any(group.rows for group in self.groups)


@dataclass
class Notes:
    """Notes below a table; the same text gets the same mark."""

    marks: dict[str, str] = field(default_factory=dict[str, str])

    def mark(self, text: str | None) -> str:
        """Return the mark of a note, `1`, `2`, ...; "" for no text."""
        return "" if not text else self.marks.setdefault(text, str(len(self.marks) + 1))

    def list_all(self) -> tuple[tuple[str, str], ...]:
        """Return the mark and the text of each note, in order."""
        return tuple((mark, text) for text, mark in self.marks.items())


def text_cell(text: str, *, title: str = "") -> Cell:
    """Build a cell of words, aligned to the left.

    Args:
        text: The text of the cell.
        title: A longer text, shown when pointing at the cell.

    Returns:
        The cell.
    """
    return Cell(text, title=title, kind="words")


def build_list(caption: str, corner: str, columns: Sequence[Cell], rows: Sequence[Row], notes: Notes) -> TextTable:
    """Build a table without groups.

    Args:
        caption: The title of the table.
        corner: The head of the first column.
        columns: The heads of the other columns.
        rows: All rows.
        notes: The notes that the cells refer to.

    Returns:
        The table.
    """
    return TextTable(caption, corner, tuple(columns), (Group("", tuple(rows)),), notes.list_all())


ROLES = {
    "teacher": "teacher",
    "before": "before distillation",
    "distilled": "distilled",
    "control": "control",
    "model": "",
}
SHORT = 30  # characters


def list_heads(models: Sequence[ModelBase]) -> tuple[Cell, ...]:
    """Build the heads of columns or rows of models (M,): short name, role, full name on pointing, colour."""
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


COSTS: Mapping[str, Callable[[CostResult], str]] = {
    "Parameters": lambda cost: format_parameters(cost.parameters),
    "MACs": lambda cost: format_macs(cost.macs),
    "File": lambda cost: format_bytes(cost.file_bytes),
    "Peak memory": lambda cost: format_bytes(cost.memory_bytes),
    "Latency": lambda cost: format_milliseconds(cost.latency_ms),
    "p95": lambda cost: format_milliseconds(cost.latency_p95_ms),
}
Columns = Mapping[str, Sequence[str]]  # of a table on the console or in Markdown: the cells below each head


def list_costs(models: Sequence[ModelBase], *names: str) -> dict[str, list[str]]:
    """List columns with one cost each.

    Args:
        models: The models, one cell each.
        names: The wanted costs, keys of `COSTS`.

    Returns:
        Cells by name of the cost.
    """
    return {name: [DASH if model.cost is None else COSTS[name](model.cost) for model in models] for name in names}


def list_guide_columns(models: Sequence[ModelBase], values: Sequence[str], *, metric: str) -> dict[str, list[str]]:
    """List the columns of the two-stage guide's table: model, parameters, a metric, inference time.

    Args:
        models: The models, one row each.
        values: The formatted metric of each model.
        metric: The title of the column of values.

    Returns:
        Cells by title.
    """
    costs = list_costs(models, "Parameters", "Latency")
    return {
        "Model": [clean_name(model.name) for model in models],
        "Parameters": costs["Parameters"],
        metric: list(values),
        "Inference time": costs["Latency"],
    }


def drop_empty(columns: Columns) -> dict[str, Sequence[str]]:
    """Leave out the columns in which every cell is a dash."""
    return {head: cells for head, cells in columns.items() if set(cells) - {DASH}}


def to_markdown(columns: Columns, *, words: Sequence[str]) -> str:
    """Write a table as Markdown.

    Args:
        columns: The cells of each column, by its head, in order.
        words: The heads of the columns of names, which are escaped and aligned to the left.

    Returns:
        The table, ending in a newline.
    """
    cells = [
        [escape_markdown(cell) if head in words else " ".join(cell.split()) for cell in column]
        for head, column in columns.items()
    ]
    rule = ["---" if head in words else "---:" for head in columns]
    return "".join(f"| {' | '.join(line)} |\n" for line in [columns, rule, *zip(*cells, strict=True)])


def draw_console_table(columns: Columns, *, words: Sequence[str]) -> ConsoleTable:
    """Build a table for a console of 80 columns.

    Args:
        columns: The cells of each column, by its head, in order.
        words: The heads of the columns of names. A long name is wrapped, while numbers stay whole.

    Returns:
        The table.
    """
    table = ConsoleTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in columns:
        is_words = head in words
        justify: Literal["left", "right"] = "left" if is_words else "right"
        table.add_column(head.replace("[", "\\["), justify=justify, overflow="fold", no_wrap=not is_words)
    for line in zip(*columns.values(), strict=True):
        table.add_row(*(cell.replace("[", "\\[") for cell in line))  # `[` opens rich's markup
    return table
