"""Folders as data sets: of face crops, those of make_swaps.py included, and of whole pictures or videos.

Face crops: ROOT/{real,fake}/[PERSON_OR_CLIP/]*.png, each picture taken whole. A subfolder is a person and a clip, a
picture on its own stands for itself. Where make_swaps.py has written the folder, its swaps.csv tells whose photo each
picture is: intervals are over these people, and every picture is a clip of its own, for they are photos.

Of whole pictures or videos the faces are cut exactly as for training, once, and kept under data/evaluation_faces/ of
the working folder for the next evaluation.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import (
    EvaluationSet,
    FrameColumns,
    build_set,
    compute_fingerprint,
)
from sharpstudent.tasks.deepfake.evaluation.frames import MAX
from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.listing import read_folder
from sharpstudent.tasks.deepfake.layouts.own_files import CLASSES
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS, find_clips
from sharpstudent.tasks.deepfake.prepare.destination import read_preparation
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import CutSettings, Request
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, Face, list_pictures
from sharpstudent.tasks.deepfake.sources.labelled import LABELS, LabelledPicture
from sharpstudent.tasks.deepfake.swaps.folder import COLUMNS, TABLE


class SaidLines(io.StringIO):
    """A text file that keeps nothing and hands on every line that is written to it, without its end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say, self._begun = say, ""

    def write(self, text: str, /) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._say(line)
        return len(text)


def build_line_console(say: Callable[[str], None]) -> Console:
    """Plain lines, no bar."""
    return Console(file=SaidLines(say), force_terminal=False, color_system=None, highlight=False)


CACHE = Path("data/evaluation_faces")


def read_folder_set(
    request: SetRequest, *, name: str, say: Callable[[str], None], console: Console | None
) -> EvaluationSet:
    """All faces of the folder; those that are cut already are not cut again, nor is any training split made.

    Raises UserError for what run_preparation refuses (no layout, no face model, no face at all), where nothing tells
    real from fake, and where the folder is a preparation that was never finished; RunInterrupted for Ctrl-C and
    SIGTERM: the next evaluation goes on where it was.
    """
    source = request.path
    _check_folder(source)
    wanted = build_request(request)
    say(f"{name}: faces of {source} are kept in {wanted.dest}")
    run_preparation(wanted, console or build_line_console(say), find=_find_labelled, for_training=False)
    notes = [f"cut for this evaluation from whole pictures or videos, {request.frames} frames of each video"]
    if (source / TABLE).is_file():
        notes.append(f"{TABLE} says that these pictures are face crops already: judge them with --crops")
    return read_manifest_set(wanted.dest, name=name, split="all", faces=request.faces, kind="folder", notes=notes)


def build_request(request: SetRequest) -> Request:
    """The preparation of a folder, with nobody held out. What lies in the cache is never worth more than its source:
    clips that the source no longer has go, so that none of them is judged.
    """
    source = request.path
    cut = CutSettings(
        frames=request.frames,
        faces="largest" if request.faces == "largest" else "all",
        image_size=request.image_size,
        min_face=request.min_face,
    )
    return Request(
        source=source,
        dest=CACHE / f"{_name(source)}-{_compute_key(request, cut)}",
        layout=request.layout,
        label=request.label,
        cut=cut,
        workers=request.workers,
        validation_share=0.0,
        test_share=0.0,
        overwrite=True,
    )


def _compute_key(request: SetRequest, cut: CutSettings) -> str:
    plain = [str(request.path.resolve()), request.layout, request.label, asdict(cut)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _name(source: Path) -> str:
    return source.resolve().name.encode("utf-8", "backslashreplace").decode() or "data"


def _check_folder(source: Path) -> None:
    if not source.is_dir():
        raise UserError(
            Problem(
                str(source),
                "is a file that is no manifest",
                expected="a prepared set's folder or manifest.arrow, or a folder of pictures or videos",
                remedy="name the folder that the file lies in",
            )
        )
    if read_preparation(source) is not None:
        raise UserError(
            Problem(
                str(source),
                "was begun by prepare_faces.py and holds no manifest.arrow: it is not finished",
                remedy="repeat that command; or name the folder of pictures or videos that it was made from",
            )
        )


def _find_labelled(root: Path, *, layout: str | None, label: int | None) -> tuple[str, Found]:
    """As `find_clips`, which calls everything real where nothing else is said: a figure must not rest on that."""
    name, found = find_clips(root, layout=layout, label=label)
    folders = read_folder(root).folders
    if LAYOUTS[name].data_set or label is not None or any(folder.lower() in CLASSES for folder in folders):
        return name, found
    there = [f"{folder}/" for folder in folders] or [clip.key for clip in found.clips]
    raise UserError(
        Problem(
            str(root),
            "does not say what is real and what is fake",
            expected="real/ and fake/ in it (one alone will do), or a data set that prepare_faces.py knows",
            got=", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else ""),
            remedy="move the files there, or say --label real or --label fake for all of them",
        )
    )


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
            load=LabelledPicture(path).load,
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
