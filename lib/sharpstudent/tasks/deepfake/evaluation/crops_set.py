"""Reads folders as data sets: of face crops (also those that make_swaps.py wrote), or of whole pictures or videos.

Face crops are ROOT/{real,fake}/[PERSON_OR_CLIP/]*.png, each picture taken whole. A subfolder is a person and a clip; a
picture on its own is both. Where make_swaps.py has written the folder, its swaps.csv says whose photo each picture is:
intervals are over these people, and every picture is a clip of its own, because they are photos.

Faces of whole pictures or videos are cropped once, exactly as for training, and kept under data/evaluation_faces/ of
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
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import explain, read_plain, read_text
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet, compute_fingerprint, make_unscored
from sharpstudent.tasks.deepfake.evaluation.frames import MAX, ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest, name_folder
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.listing import read_folder, walk_media
from sharpstudent.tasks.deepfake.layouts.own_files import CLASSES
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS, find_clips
from sharpstudent.tasks.deepfake.prepare.destination import read_preparation
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request
from sharpstudent.tasks.deepfake.sources.face import MOST_BYTES, PICTURE_SUFFIXES, Face, load_picture
from sharpstudent.tasks.deepfake.sources.labelled import LABELS
from sharpstudent.tasks.deepfake.swaps.folder import COLUMNS, TABLE, SwapRow

CACHE = Path("data/evaluation_faces")


def read_folder_set(
    request: SetRequest, *, name: str, say: Callable[[str], None], console: Console | None
) -> LabelledFaceSet:
    """Crop the faces of a folder, and read them as a set.

    Faces that are cropped already are not cropped again, and no training split is made.

    Args:
        request: The folder, and how it is read.
        name: The name of the set.
        say: Prints a line for the user.
        console: Draws the progress bar, where there is one.

    Returns:
        The set.

    Raises:
        UserError: For what `run_preparation` refuses (no layout, no face model, no face at all), where nothing says
            what is real and what is fake, and where the folder is a preparation that was never finished.
        RunInterrupted: At Ctrl-C and SIGTERM; the next evaluation resumes where it was.
    """
    source = request.path
    _check_folder(source)
    wanted = build_request(request)
    say(f"{name}: faces of {source} are kept in {wanted.dest}")
    run_preparation(wanted, console or Console(quiet=True), find=_find_labelled, for_training=False)
    notes = [f"cropped for this evaluation from whole pictures or videos, {request.frames} frames of each video"]
    if (source / TABLE).is_file():
        notes.append(f"{TABLE} says that these pictures are face crops already: evaluate them with --crops")
    return read_manifest_set(wanted.dest, name=name, split="all", faces=request.faces, kind="folder", notes=notes)


def build_request(request: SetRequest) -> Request:
    """Build the preparation of a folder, with nobody held out.

    The cache follows its source: clips that the source no longer has are deleted, so that none of them is evaluated.
    """
    source = request.path
    crop = CropSettings(
        frames=request.frames,
        faces="largest" if request.faces == "largest" else "all",
        image_size=request.image_size,
        min_face=request.min_face,
    )
    return Request(
        source=source,
        dest=CACHE / f"{name_folder(source)}-{_compute_key(request, crop)}",
        layout=request.layout,
        label=request.label,
        crop=crop,
        workers=request.workers,
        validation_share=0.0,
        test_share=0.0,
        overwrite=True,
    )


def _compute_key(request: SetRequest, crop: CropSettings) -> str:
    plain = [str(request.path.resolve()), request.layout, request.label, asdict(crop)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _check_folder(source: Path) -> None:
    if not source.is_dir():
        raise UserError.about(
            str(source),
            "is a file that is no manifest",
            expected="a prepared set's folder or manifest.arrow, or a folder of pictures or videos",
            remedy="name the folder that the file lies in",
        )
    if read_preparation(source) is not None:
        raise UserError.about(
            str(source),
            "was begun by prepare_faces.py and holds no manifest.arrow: it is not finished",
            remedy="repeat that command; or name the folder of pictures or videos that it was made from",
        )


def _find_labelled(root: Path, *, layout: str | None, label: int | None) -> tuple[str, Found]:
    """Find clips as `find_clips` does, but refuse a folder that does not say what is real and what is fake.

    `find_clips` takes everything for real then, and no metric may rest on that.
    """
    name, found = find_clips(root, layout=layout, label=label)
    folders = read_folder(root).folders
    if LAYOUTS[name].data_set or label is not None or any(folder.lower() in CLASSES for folder in folders):
        return name, found
    there = [f"{folder}/" for folder in folders] or [clip.key for clip in found.clips]
    raise UserError.about(
        str(root),
        "does not say what is real and what is fake",
        expected="real/ and fake/ in it (one alone will do), or a data set that prepare_faces.py knows",
        got=", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else ""),
        remedy="move the files there, or add --label real or --label fake for all of them",
    )


def read_swaps(root: Path) -> dict[str, SwapRow]:
    """Read the lines of swaps.csv by file, with '/' between the parts of a path; none where there is no such table.

    Raises UserError for a table of another form.
    """
    path = root / TABLE
    if not path.is_file():
        return {}
    try:
        rows: Any = csv.DictReader(io.StringIO(read_text(path), newline=""))
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise csv.Error(f"no column {', '.join(missing)}")
        found = (SwapRow(*map(row.get, COLUMNS)) for row in rows if row["method"] is not None)
        return {row.file: row for row in found}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError.about(
            str(path),
            "cannot be read as the table of make_swaps.py",
            expected=",".join(COLUMNS),
            got=str(error),
            remedy="run make_swaps.py again, or delete the file: folders are people then",
        ) from None


def _describe_swaps(swaps: Mapping[str, SwapRow], names: Sequence[str]) -> tuple[str, ...]:
    """Describe the swaps among pictures with these names, as lines for the user."""
    if not swaps:
        return ()
    splits = Counter(swaps[name].split or "no split" for name in names if name in swaps)
    notes = [
        f"classical face swaps ({TABLE}): intervals are over the people whose photos they are; pictures of "
        + ", ".join(f"{split}: {count:,}" for split, count in sorted(splits.items()))
    ]
    absent = [name for name in names if name not in swaps]
    if absent:
        notes.append(f"{len(absent):,} pictures are not in {TABLE}, such as {absent[0]}: their folder is a person")
    return tuple(notes)


LAYOUT = f"ROOT/real, ROOT/fake or both, with {', '.join(PICTURE_SUFFIXES)} in them or in subfolders"
RULE = "each picture is one face, taken whole"


def read_crops_set(root: Path, *, name: str) -> LabelledFaceSet:
    """Read every picture below real/ and fake/ as a face.

    Args:
        root: The folder of face crops.
        name: The name of the set.

    Returns:
        The set.

    Raises:
        UserError: Where neither folder is there or both are empty.
    """
    left_out: dict[str, str] = {}
    inside = _find_pictures(root, left_out)
    swaps = read_swaps(root)
    frames = _build_frames(name, inside, swaps)
    paths = [root / part for part in inside]
    labels = frames.labels.tolist()
    return LabelledFaceSet(
        name,
        [
            Face(str(path), clip, person, label, partial(load_picture, path))
            for path, clip, person, label in zip(paths, frames.clip_ids, frames.groups, labels, strict=True)
        ],
        frames,
        np.arange(len(paths), dtype=np.int64),
        MAX,
        kind="crops",
        split=None,
        fingerprint=compute_fingerprint(frames.sample_ids, labels, map(_compute_crc32, paths)),
        faces_rule=RULE,
        name_faces=lambda: list(map(str, paths)),
        notes=(
            *_describe_swaps(swaps, inside),
            *(f"left out {path}: {reason}" for path, reason in left_out.items()),
        ),
    )


def _find_pictures(root: Path, left_out: dict[str, str]) -> list[str]:
    """Find the pictures below the root, reals first, as paths with '/' between their parts.

    `left_out` gets the reason for each path that cannot be used.
    """
    if not root.is_dir():
        raise UserError.about(str(root), "is a file, not a folder of face crops", LAYOUT, remedy="name the folder")
    folders = [root / label for label in LABELS if (root / label).is_dir()]
    found = [walk_media(folder, PICTURE_SUFFIXES, left_out.setdefault, any_name=True) for folder in folders]
    names = [path.relative_to(root).as_posix() for paths in found for path in paths]
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


def _build_frames(set_name: str, names: Sequence[str], swaps: Mapping[str, SwapRow]) -> ScoredFrames:
    sample_ids = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    clips, groups, kinds = list[str](), list[str](), list[str]()
    for name, sample_id in zip(names, sample_ids, strict=True):
        place = PurePosixPath(sample_id)
        swap = swaps.get(name)
        is_alone = len(place.parts) == 2  # directly below its class
        clips.append(sample_id if swap or is_alone else place.parent.as_posix())
        folder = place.with_suffix("").as_posix() if is_alone else place.parts[1]
        groups.append(swap.target_person if swap else folder)
        kind = "fake" if LABELS[place.parts[0]] else ""
        kinds.append((swap.method and f"swap-{swap.method}") if swap else kind)
    labels = np.array([LABELS[name.partition("/")[0]] for name in names], np.int64)
    return make_unscored(set_name, sample_ids, clips, groups, kinds, labels)


def _compute_crc32(path: Path) -> int | str:
    """Compute the crc32 of a file. For an unreadable one return the reason, which is reported when it is read."""
    try:
        return zlib.crc32(read_plain(path, most_bytes=MOST_BYTES))
    except OSError as error:
        return explain(error)
