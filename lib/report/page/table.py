"""Tables as data for the page: cells of ready text, with notes collected under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Strip:
    """An interval as a picture within a cell; all in per cent of the cell's scale."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """text: what is read; small: a second, fainter line; title: more of it on pointing; mark: of a note; link: the id
    of a place in the page; series: number of the model's colour.
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
    """head: what the row is of."""

    head: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Rows under a common title, which may be empty."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """corner: what the first column holds; notes: by mark."""

    caption: str
    corner: str
    columns: tuple[Cell, ...]
    groups: tuple[Group, ...]
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no row."""
        return not any(group.rows for group in self.groups)


@dataclass
class Notes:
    """Gives each text a mark, the same text the same one."""

    marks: dict[str, str] = field(default_factory=dict[str, str])

    def mark(self, text: str | None) -> str:
        """`1`, `2`, ...; nothing for no text."""
        return "" if not text else self.marks.setdefault(text, str(len(self.marks) + 1))

    def list_all(self) -> tuple[tuple[str, str], ...]:
        """(mark, text), in order."""
        return tuple((mark, text) for text, mark in self.marks.items())


def word(text: str, *, title: str = "") -> Cell:
    """A cell of words."""
    return Cell(text, title=title, kind="words")


def build_list(caption: str, corner: str, columns: Sequence[Cell], rows: Sequence[Row], notes: Notes) -> Table:
    """A table without groups."""
    return Table(caption, corner, tuple(columns), (Group("", tuple(rows)),), notes.list_all())
