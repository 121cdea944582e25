"""Text, numbers and tables as a report shows them: on the page, in Markdown and on the console.

Names that users gave are made safe: no hidden characters, no change of direction, no markup, not too long for their
place. Numbers are formatted for readers: `.893 [.871, .914]`, `18.6 %`, `4.8 MB`, a dash where there is none. Tables
are data: cells of finished text, with notes collected below them. A model has the same short name and the same colour
in every table.

Legend: M models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as ConsoleTable

from sharpstudent.report.results import CostResult, MetricValue, ModelBase

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidi too), surrogates, no characters at all
_JOINERS = "\u200c\u200d"  # some scripts and emoji need these characters


def show(text: str) -> str:
    """Replace each character that is invisible or changes the direction of others by its code: ⟨U+202E⟩.

    New lines and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"⟨U+{ord(c):04X}⟩" if _is_hidden(c) else c for c in text)


def clean_name(name: str) -> str:
    """Make a name that a user gave safe to show, on one line."""
    return " ".join(show(name).split()) or "unnamed"


def capitalize_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """Return the text with a small first letter."""
    return text[:1].lower() + text[1:]


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in "\n\t" and character not in _JOINERS


def shorten(text: str, length: int) -> str:
    """Shorten a text to its beginning and its end, with an ellipsis between them.

    Args:
        text: Any text.
        length: The largest number of characters of the result.

    Returns:
        The text itself where it is short enough.
    """
    if len(text) <= length:
        return text
    end = (length - 1) * 2 // 5
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def shorten_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Shorten names so that no two become alike.

    Args:
        names: The names, which may repeat.
        length: The largest number of characters of a short name.

    Returns:
        The short form of each name.
    """
    short: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found, number = shorten(show(name), length), 2
        while found in short.values():
            found, number = f"{shorten(show(name), length - 4)} ({number})", number + 1
        short[name] = found
    return short


def make_slug(text: str) -> str:
    """Make a part of a file name that every system accepts: a-z, 0-9, single hyphens; at most 40 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "unnamed"


def make_unique(names: Iterable[str]) -> list[str]:
    """Give each repeated name a number, so that no two are alike; the order stays."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        found, number = name, 2
        while found in taken:
            found, number = f"{name}-{number}", number + 1
        taken.add(found)
        unique.append(found)
    return unique


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


DASH, MINUS = "–", "−"
NARROW = "\u00a0"  # a space where a line is never broken
Unit = Literal["share", "percent", "nats", "count"]


def format_value(value: float | None, unit: Unit) -> str:
    """Format a number: `.893`, `18.6 %`, `0.412`, `1,168`.

    Args:
        value: The number; None gives a dash.
        unit: `share` or `percent` for a value in 0..1, `nats`, or `count`.

    Returns:
        The text.
    """
    return DASH if value is None else _FORMATS[unit](value)


def format_interval(low: float | None, high: float | None, unit: Unit) -> str:
    """Format an interval: `[.871, .914]`, `[17.0, 20.3] %`.

    Args:
        low: The lower end; None where there is none.
        high: The upper end; None where there is none.
        unit: As in `format_value`.

    Returns:
        The text, empty where an end is None.
    """
    if low is None or high is None:
        return ""
    if unit == "percent":
        return f"[{_format_percent(low)[:-2]}, {_format_percent(high)[:-2]}]{NARROW}%"
    return f"[{format_value(low, unit)}, {format_value(high, unit)}]"


def format_estimate(estimate: MetricValue | None, unit: Unit) -> str:
    """Format a value with its interval: `.902 [.880, .927]`.

    Args:
        estimate: The value with its interval; None gives a dash.
        unit: As in `format_value`.

    Returns:
        The text.
    """
    if estimate is None or estimate.value is None:
        return DASH
    return f"{format_value(estimate.value, unit)} {format_interval(estimate.low, estimate.high, unit)}".rstrip()


def format_difference(value: float | None) -> str:
    """Format a difference with its sign: `+.021`, `−.004`."""
    if value is None:
        return DASH
    digits = _format_share(abs(value))
    return digits if float(digits) == 0 else f"{'+' if value > 0 else MINUS}{digits}"


def format_probability(value: float) -> str:
    """Format a probability in per cent; it never claims certainty: `99.3 %`, `> 99.9 %`, `< 0.1 %`."""
    if value > 0.999:
        return f"> 99.9{NARROW}%"
    return f"< 0.1{NARROW}%" if value < 0.001 else f"{100 * value:.1f}{NARROW}%"


def format_p_value(value: float | None) -> str:
    """Format a two-sided p-value: `.031`, `< .001`."""
    if value is None:
        return DASH
    return "< .001" if value < 0.001 else _format_share(value)


def format_count(value: int | None) -> str:
    """Format a count: `12,345`."""
    return DASH if value is None else f"{value:,}"


def format_bytes(value: int | None) -> str:
    """Format a size in powers of ten: `4.8 MB`."""
    return _scale(value, (1e9, 1e9, "{:.1f} GB"), (1e6, 1e6, "{:.1f} MB"), (1e3, 1e3, "{:.1f} kB"), (0, 1, "{:.0f} B"))


def format_macs(value: int | None) -> str:
    """Format multiply-accumulates: `1.39 G`, `98.7 M`, `46.1 k`."""
    return _scale(value, (1e9, 1e9, "{:.2f} G"), (1e6, 1e6, "{:.1f} M"), (0, 1e3, "{:.1f} k"))


def format_parameters(count: int | None) -> str:
    """Format a number of parameters: `19.34 M`, `1.12 M`, `12.3 k`."""
    return _scale(count, (1e5, 1e6, "{:.2f} M"), (0, 1e3, "{:.1f} k"))


def format_milliseconds(value: float | None) -> str:
    """Format a time: `30.1 ms`, `0.31 ms`."""
    return _scale(value, (1, 1, "{:.1f} ms"), (0, 1, "{:.2f} ms"))


def _scale(value: float | None, *forms: tuple[float, float, str]) -> str:
    """Format with the first form whose least value is reached; a form is (least value, size of the unit, text)."""
    if value is None:
        return DASH
    _, size, text = next(form for form in forms if value >= form[0])
    return text.format(value / size)


def format_moment(written: str) -> str:
    """Format an ISO 8601 time, `8 August 2026, 12:30 UTC`; any other text stays as it is."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return written
    zone = " UTC" if moment.utcoffset() == timedelta(0) else ""
    return f"{moment.day} {moment:%B} {moment.year}, {moment:%H:%M}{zone}"


def _format_share(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _format_percent(value: float) -> str:
    rate = 100 * value
    return f"{rate:.2f}{NARROW}%" if 0 < rate < 0.95 else f"{rate:.1f}{NARROW}%"


_FORMATS: dict[Unit, Callable[[float], str]] = {
    "share": _format_share,
    "percent": _format_percent,
    "nats": lambda value: f"{value:.3f}",
    "count": lambda value: f"{value:,.0f}",
}


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


def escape_markdown(text: str) -> str:
    """Put a name on one line and escape its markup: it cannot become a link, HTML or another cell."""
    return re.sub(r"([\\`*\[\]<>|&@]|:(?=//)|(?<=www)\.)", r"\\\1", " ".join(text.split()))


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
