"""The data sets that were judged, and lists of names with values: protocol, environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.page.calibration import tell_value
from lib.report.page.numbers import DASH, format_count
from lib.report.page.table import Cell, Notes, Row, Table, build_list, word
from lib.report.results import DataResult

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
