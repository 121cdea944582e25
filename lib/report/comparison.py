"""The comparison of models, `| Model | Parameters | Val AUC | Inference time |`: Markdown, console and JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

HEADER = ("Model", "Parameters", "Val AUC", "Inference time")


@dataclass(frozen=True)
class ComparisonRow:
    """One model: parameters (count), val_auc with its 95 % interval where known, inference_ms (one image); None where
    it is not known.

    extra: further columns by their title, already as text.
    """

    model: str
    parameters: int | None
    val_auc: float | None
    inference_ms: float | None
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    interval: tuple[float, float] | None = None


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The table as Markdown, ending in a newline."""
    titles = [*HEADER, *_extra_titles(rows)]
    rule = ["---", *["---:"] * (len(HEADER) - 1), *["---"] * (len(titles) - len(HEADER))]
    body = [[_fit_cell(cell) for cell in _to_cells(row, titles)] for row in rows]
    heads = [_fit_cell(title) for title in titles]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *body])


def escape_markdown(text: str) -> str:
    """A name that users gave, on one line and without markup: nothing in it becomes a link, HTML or another cell."""
    return re.sub(r"([\\`*\[\]<>|&@]|:(?=//)|(?<=www)\.)", r"\\\1", " ".join(text.split()))


def to_rich(rows: Sequence[ComparisonRow], *, title: str | None = None) -> Table:
    """The table for the console."""
    # Narrow: five columns fit a terminal of 80.
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    titles = [*HEADER, *_extra_titles(rows)]
    for name in titles:
        is_number = name in HEADER[1:]
        # A long name takes several lines; numbers stay whole.
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in _to_cells(row, titles)))  # `[` opens rich's markup
    return table


def to_json(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a JSON list with full precision, ending in a newline; a value that is not known is null."""
    items = [asdict(row) | {"extra": dict(row.extra)} for row in rows]
    plain = [{k: None if v != v else v for k, v in item.items()} for item in items]  # NaN is no JSON
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def format_parameters(count: int | None) -> str:
    """`19.34 M`, `1.12 M`, `12.3 k`, or a dash."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count / 1e3:.1f} k"


def format_auc(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """`0.8123`, `0.8123 [0.75, 0.87]`, or a dash."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def format_milliseconds(value: float | None) -> str:
    """`30.1 ms`, `0.31 ms`, or a dash."""
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def _fit_cell(text: str) -> str:
    """One cell, whatever is in it; a bar that is escaped already stays as it is."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _extra_titles(rows: Sequence[ComparisonRow]) -> list[str]:
    return list(dict.fromkeys(title for row in rows for title in row.extra))


def _to_cells(row: ComparisonRow, titles: Sequence[str]) -> list[str]:
    fixed = [
        row.model,
        format_parameters(row.parameters),
        format_auc(row.val_auc, row.interval),
        format_milliseconds(row.inference_ms),
    ]
    return fixed + [row.extra.get(title, "") for title in titles[len(HEADER) :]]
