"""Whose photo each picture of a make_swaps.py folder is, by its swaps.csv."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import Problem, UserError
from lib.tasks.deepfake.swaps_folder import COLUMNS, TABLE


@dataclass(frozen=True)
class SwapPerson:
    """person: whose photo it is (a fake shows another one's face in it); kind: of fake, "" of a real one; split."""

    person: str
    kind: str
    split: str


@dataclass(frozen=True)
class SwapPeople:
    """The lines of swaps.csv by file, '/' between parts."""

    rows: Mapping[str, SwapPerson]

    def find(self, name: str) -> SwapPerson | None:
        return self.rows.get(name)

    def describe(self, names: Sequence[str]) -> tuple[str, ...]:
        """What is to be said of pictures with these names."""
        told = [row for name in names if (row := self.rows.get(name)) is not None]
        splits = Counter(row.split or "no split" for row in told)
        notes = [
            f"classical face swaps ({TABLE}): intervals are over the people whose photos they are; pictures of "
            + ", ".join(f"{split}: {count:,}" for split, count in sorted(splits.items()))
        ]
        if len(told) < len(names):
            absent = [name for name in names if name not in self.rows]
            notes.append(f"{len(absent):,} pictures are not in {TABLE}, such as {absent[0]}: their folder is a person")
        return tuple(notes)


def read_swap_people(root: Path) -> SwapPeople | None:
    """None where there is no swaps.csv. Raises UserError for one that cannot be read as such."""
    path = root / TABLE
    if not path.is_file():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise csv.Error(f"no column {', '.join(missing)}")
            people = {row["file"]: _to_person(row) for row in rows if row["method"] is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            Problem(
                str(path),
                "cannot be read as the table of make_swaps.py",
                expected=",".join(COLUMNS),
                got=str(error),
                remedy="run make_swaps.py again, or delete the file: folders are people then",
            )
        ) from None
    return SwapPeople(people)


def _to_person(row: Mapping[str, str]) -> SwapPerson:
    method = row["method"]
    return SwapPerson(row["target_person"], f"swap-{method}" if method else "", row["split"])
