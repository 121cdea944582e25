"""The folder that make_swaps.py writes: whether it may be written, its settings, and which swaps in it are finished."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_json, read_text
from sharpstudent.core.io import TEMPORARY_SUFFIX, append_text, list_foreign, write_text_atomically
from sharpstudent.core.naming import format_csv, unescape_cell

MADE_BY = "make_swaps.py"
SETTINGS, TABLE, LEFT_OUT = "swaps.json", "swaps.csv", "left_out.csv"
LABELS = ("real", "fake")


@dataclass(frozen=True)
class SwapRow:
    """A line of swaps.csv.

    Attributes:
        file: The picture's path below the folder.
        label: `real` or `fake`.
        split: The split of the people.
        source_person: The person whose face was put in; "" for a real picture.
        target_person: The person whose photo it is.
        source_file: The source's photo below PEOPLE; "" for a real picture.
        target_file: The target's photo below PEOPLE.
        method: The blend, `poisson` or `feather`; "" for a real picture.
        seed: The seed of the choice of partners.
    """

    file: str
    label: str
    split: str
    source_person: str
    target_person: str
    source_file: str
    target_file: str
    method: str
    seed: int


COLUMNS = tuple(field.name for field in fields(SwapRow))


def check_places(people: Path, dest: Path, photos: Sequence[Path]) -> None:
    """Refuse a destination that would touch other files, and people that are swaps already.

    Args:
        people: The folder or CSV file of the people.
        dest: The folder that is written.
        photos: The people's photos.

    Raises:
        UserError: In these cases.
    """
    outer, inner = people.resolve(), dest.resolve()
    if people.is_dir() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        what = "lies in PEOPLE: its fakes would be taken for people" if inner.is_relative_to(outer) else "holds PEOPLE"
        raise UserError.about(str(dest), what, got=f"PEOPLE {people}", remedy="name a folder beside PEOPLE")
    inside = next((path for path in photos if path.resolve().is_relative_to(inner)), None)
    if inside is not None:
        raise UserError.about(
            str(dest), "holds photos that are to be swapped", got=str(inside), remedy="name another DEST"
        )
    if dest.exists() and not dest.is_dir():
        raise UserError.about(str(dest), "is a file where DEST must be a folder", remedy="name another folder")
    root = people if people.is_dir() else people.parent
    if people.is_dir() and read_settings(root) is not None:
        raise UserError.about(
            str(people), f"is what {MADE_BY} has written", remedy="name the folder of the real photos"
        )


def open_folder(dest: Path, settings: Mapping[str, Any]) -> None:
    """Claim a folder for swaps with these settings.

    Args:
        dest: The folder of the swaps.
        settings: The settings that decide the pictures, as plain JSON.

    Raises:
        UserError: Where it holds something else, or swaps with other settings.
    """
    before = read_settings(dest)
    if before is None:
        foreign = list_foreign(dest) if dest.is_dir() else []
        if foreign:
            raise UserError.about(
                str(dest),
                "holds something else",
                expected="a new folder, an empty one, or one that this command has begun",
                got=", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""),
                remedy="name another folder as DEST",
            )
    elif before != settings:
        changed = [
            f"{key}: {before.get(key)} -> {settings.get(key)}"
            for key in dict.fromkeys((*before, *settings))
            if before.get(key) != settings.get(key)
        ]
        raise UserError.about(
            str(dest),
            "holds swaps that were made otherwise",
            got="; ".join(changed) or "another version",
            remedy="name another DEST, or delete this one",
        )
    text = json.dumps({"made_by": MADE_BY, "settings": dict(settings)}, indent=2, ensure_ascii=False)
    write_text_atomically(dest / SETTINGS, text + "\n")
    for stray in sorted(dest.rglob(f".*{TEMPORARY_SUFFIX}")):
        stray.unlink(missing_ok=True)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Read what `open_folder` wrote; None where there is no such file."""
    try:
        stored = read_json(folder / SETTINGS)
        return stored["settings"] if stored["made_by"] == MADE_BY and isinstance(stored["settings"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_finished(dest: Path) -> dict[str, tuple[SwapRow, ...]]:
    """Read, by target file, the rows of the faces whose pictures are all there.

    A face's last row is its real picture.
    """
    try:
        text = read_text(dest / TABLE)
        whole = text[: text.rfind("\n") + 1]  # a line that a killed process began
        rows: dict[str, list[SwapRow]] = defaultdict(list)
        for cells in csv.reader(io.StringIO(whole, newline="")):
            if len(cells) == len(COLUMNS) and re.fullmatch(r"\d{1,19}", cells[-1], re.ASCII):
                row = SwapRow(*map(unescape_cell, cells[:-1]), seed=int(cells[-1]))
                rows[row.target_file].append(row)
    except (OSError, ValueError, csv.Error):
        return {}
    return {
        target: tuple(own)
        for target, own in rows.items()
        if own[-1].label == LABELS[0] and all((dest / row.file).is_file() for row in own)
    }


def write_table(dest: Path, rows: Iterable[SwapRow]) -> None:
    """Write swaps.csv as a whole.

    Args:
        dest: The folder of the swaps.
        rows: All rows.
    """
    write_text_atomically(dest / TABLE, format_csv([COLUMNS, *(astuple(row) for row in rows)]))


def add_rows(dest: Path, rows: Iterable[SwapRow]) -> None:
    """Append the rows of one finished face to swaps.csv.

    Args:
        dest: The folder of the swaps.
        rows: The rows.
    """
    append_text(dest / TABLE, format_csv([astuple(row) for row in rows]))


def write_left_out(dest: Path, left_out: Mapping[str, str]) -> None:
    """Write left_out.csv.

    Args:
        dest: The folder of the swaps.
        left_out: The photos that were left out, each with the reason.
    """
    write_text_atomically(dest / LEFT_OUT, format_csv([("file", "reason"), *left_out.items()]))
