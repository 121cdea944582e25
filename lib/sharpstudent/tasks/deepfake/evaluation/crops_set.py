"""Face crops as a data set, those of make_swaps.py included.

Whose photo each picture of a make_swaps.py folder is, by its swaps.csv.

Face crops as a data set: ROOT/{real,fake}/[PERSON_OR_CLIP/]*.png, each picture taken whole.

A subfolder is a person and a clip, a picture on its own stands for itself. Where make_swaps.py has written the folder,
its swaps.csv tells whose photo each picture is: intervals are over these people, and every picture is a clip of its
own, for they are photos.
"""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.metrics.aggregation import MAX
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import (
    EvaluationSet,
    FrameColumns,
    build_set,
    compute_fingerprint,
)
from sharpstudent.tasks.deepfake.prepare.destination import MANIFEST
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, Face, list_pictures
from sharpstudent.tasks.deepfake.sources.labelled import LABELS, Picture
from sharpstudent.tasks.deepfake.swaps.folder import COLUMNS, TABLE


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


LAYOUT = f"ROOT/real, ROOT/fake or both, with {', '.join(PICTURE_SUFFIXES)} in them or in subfolders"
RULE = "each picture is one face, taken whole"


@dataclass(frozen=True)
class CropFaces(Sequence[Face]):
    """Pictures below a folder by name, made faces as they are wanted."""

    root: Path
    names: list[str]
    frames: FrameColumns

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Face]: ...
    def __getitem__(self, index: int | slice) -> Face | Sequence[Face]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path, frames = self.root / self.names[index], self.frames
        return Face(
            name=str(path),
            clip_id=frames.clip_ids[index],
            identity=frames.groups[index],
            label=int(frames.labels[index]),
            load=Picture(path).load,
        )


def read_crops_set(root: Path, *, name: str) -> EvaluationSet:
    """Every picture below real/ and fake/. Raises UserError where neither is there or both are empty."""
    names = _find_pictures(root)
    swaps = read_swap_people(root)
    frames = _build_columns(names, swaps)
    return build_set(
        name,
        CropFaces(root, names, frames),
        frames,
        np.arange(len(names), dtype=np.int64),
        MAX,
        kind="crops",
        split=None,
        fingerprint=compute_fingerprint(
            frames.sample_ids, frames.labels.tolist(), (_sum_up(root / inside) for inside in names)
        ),
        faces_rule=RULE,
        name_faces=lambda: [str(root / inside) for inside in names],
        notes=() if swaps is None else swaps.describe(names),
    )


def _find_pictures(root: Path) -> list[str]:
    """Below the root, '/' between parts, reals first."""
    if not root.is_dir():
        raise UserError(Problem(str(root), "is a file, not a folder of face crops", LAYOUT, remedy="name the folder"))
    folders = [root / label for label in LABELS if (root / label).is_dir()]
    names = [path.relative_to(root).as_posix() for folder in folders for path in list_pictures(folder)]
    if not names:
        raise UserError(_explain_none(root, folders))
    return names


def _explain_none(root: Path, folders: Sequence[Path]) -> Problem:
    there = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    got = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    split = next((part for part in ("test", "val", "train") if any((root / part / c).is_dir() for c in LABELS)), None)
    remedy = "put the crops there; without --crops, faces are found in whole pictures and videos"
    if (root / MANIFEST).is_file():
        remedy = "it is a prepared set: leave out --crops"
    elif split is not None:
        remedy = f"name one of its splits, {root / split}"
    what = "holds no picture" if folders else "has neither real/ nor fake/"
    where = ", ".join(str(folder) for folder in folders) or str(root)
    return Problem(where, what, LAYOUT, got or "an empty folder", remedy)


def _build_columns(names: Sequence[str], swaps: SwapPeople | None) -> FrameColumns:
    sample_ids = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    clips, groups, kinds = list[str](), list[str](), list[str]()
    for name, sample_id in zip(names, sample_ids, strict=True):
        place = PurePosixPath(sample_id)
        told = None if swaps is None else swaps.find(name)
        is_alone = len(place.parts) == 2  # directly below its class
        clips.append(sample_id if told or is_alone else place.parent.as_posix())
        groups.append(told.person if told else place.with_suffix("").as_posix() if is_alone else place.parts[1])
        kinds.append(told.kind if told else "fake" if LABELS[place.parts[0]] else "")
    return FrameColumns(sample_ids, clips, groups, kinds, _read_labels(names))


def _read_labels(names: Sequence[str]) -> NDArray[np.int64]:
    return np.array([LABELS[name.partition("/")[0]] for name in names], np.int64)


def _sum_up(path: Path) -> int | str:
    """crc32 of a file; an unreadable one has none, and is told when it is to be judged."""
    try:
        return zlib.crc32(path.read_bytes())
    except OSError as error:
        return error.strerror or "unreadable"
