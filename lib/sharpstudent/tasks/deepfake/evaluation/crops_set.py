"""Reads folders as data sets: of face crops (also those that make_swaps.py wrote), or of whole pictures or videos.

Face crops are ROOT/{real,fake}/[PERSON/]*.png, or any other form that `layouts.structure` reads, each picture taken
whole. A subfolder is a person; with `--clips` it is also a video, and the pictures are its frames. Without, they are
stills, unless their names are those of a film's frames: every picture is a clip of its own, so that no metric speaks of
videos. Where make_swaps.py has written the folder, its swaps.csv says whose photo each picture is: intervals are over
these people. A still counts once, however many copies there are.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_plain, read_text
from sharpstudent.core.naming import name_file, unescape_cell
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet, compute_fingerprint, make_unscored
from sharpstudent.tasks.deepfake.evaluation.frames import MAX, ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest, name_folder
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip
from sharpstudent.tasks.deepfake.layouts.registry import find_clips, find_pictures
from sharpstudent.tasks.deepfake.prepare.destination import read_preparation
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request
from sharpstudent.tasks.deepfake.sources.face import MOST_BYTES, Face, describe_copies, load_picture
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
    _check_source(source)
    wanted = build_request(request)
    say(f"{name}: faces of {source} are kept in {wanted.dest}")
    notes = [f"cropped for this evaluation from whole pictures or videos, {request.frames} frames of each video"]
    splits: set[str | None] = set()

    def find(root: Path, **choices: Any) -> tuple[str, Found]:
        layout, found = _find_labelled(root, **choices)
        splits.update(clip.split for clip in found.clips)
        notes.extend((*found.notes, *found.describe_rejected()))
        return layout, found

    run_preparation(wanted, console or Console(quiet=True), find=find, for_training=False)
    if (source / TABLE).is_file():
        notes.append(f"{TABLE} says that these pictures are face crops already: evaluate them with --crops")
    split = choose_split(source, request.split, splits)
    return read_manifest_set(wanted.dest, name=name, split=split, faces=request.faces, kind="folder", notes=notes)


def choose_split(source: Path, wanted: str, splits: Collection[str | None]) -> str:
    """Choose the split to read: the wanted one where the source has splits, else everything.

    Args:
        source: The folder or table.
        wanted: The value of --split.
        splits: The splits of its files; None for files without one.

    Returns:
        A split, or "all".

    Raises:
        UserError: For a split that the source does not have.
    """
    known = [split for split in SPLITS if split in splits]
    if wanted == "all" or (not known and wanted != "train"):
        return "all"
    if wanted not in known:
        raise UserError.about(
            str(source),
            f"has no split {wanted}",
            expected=f"files in {wanted}",
            got=", ".join(known) or "no splits",
            remedy=f"--split {' or --split '.join((*known, 'all'))}",
        )
    return wanted


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
        people=request.people,
        crop=crop,
        workers=request.workers,
        validation_share=0.0,
        test_share=0.0,
        overwrite=True,
    )


def _compute_key(request: SetRequest, crop: CropSettings) -> str:
    plain = [str(request.path.resolve()), request.layout, request.label, asdict(crop)]
    plain += [] if request.people is None else [request.people]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _check_source(source: Path) -> None:
    if source.is_dir() and read_preparation(source) is not None:
        raise UserError.about(
            str(source),
            "was begun by prepare_faces.py and holds no manifest.arrow: it is not finished",
            remedy="repeat that command; or name the folder of pictures or videos that it was made from",
        )


def _find_labelled(root: Path, **choices: Any) -> tuple[str, Found]:
    """Find clips as `find_clips` does, but refuse a source that does not say what is real and what is fake.

    `find_clips` takes everything for real then, and no metric may rest on that.
    """
    name, found = find_clips(root, **choices)
    check_says_labels(root, found)
    return name, found


def check_says_labels(root: Path, found: Found) -> None:
    """Raise UserError where neither folders nor a table nor the user say what is real and what is fake."""
    if not found.says_labels:
        there = sorted({Path(clip.key).parts[0] for clip in found.clips})
        raise UserError.about(
            str(root),
            "does not say what is real and what is fake",
            expected="real/ and fake/ in it (one alone will do), a table with labels, or a data set that "
            "prepare_faces.py knows",
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
        whole = (row for row in rows if row["method"] is not None)
        lines: Any = ({name: unescape_cell(row[name] or "") for name in COLUMNS} for row in whole)
        return {line["file"]: SwapRow(**line) for line in lines}
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


LAYOUT = "pictures in ROOT/real, ROOT/fake or both, or in their subfolders, or a table with path and label"
RULE = "each picture is one face, taken whole"


def read_crops_set(request: SetRequest, *, name: str) -> LabelledFaceSet:
    """Read every picture of a folder or table as a face.

    Args:
        request: The folder or table of face crops, and how it is read.
        name: The name of the set.

    Returns:
        The set.

    Raises:
        UserError: Where there is no picture, or nothing says which are real.
    """
    root = request.path
    remedy = "put them there; without --crops, faces are found in whole pictures and videos"
    found = find_pictures(
        root, source="--crops", form=LAYOUT, remedy=remedy, people=request.people, label=request.label
    )
    check_says_labels(root, found)
    split = choose_split(root, request.split, {clip.split for clip in found.clips})
    clips = [clip for clip in found.clips if split in ("all", clip.split)]
    clips.sort(key=lambda clip: (clip.label, clip.file))
    if not request.clips:  # a person's folder is a film only where the user says so
        clips = [replace(clip, film=clip.read_film(found.root)) for clip in clips]
    clips, contents, copies = _leave_out_copies(clips)
    paths = [clip.file for clip in clips if clip.file is not None]
    inside = [path.relative_to(found.root).as_posix() for path in paths]
    named = [(name_file(copy, root), name_file(first, root)) for copy, first in copies]
    swaps = read_swaps(root)
    names, of_swaps = [name_file(path, root) for path in paths], [swaps.get(one) for one in inside]
    frames = _build_frames(name, clips, names, of_swaps)
    labels = frames.labels.tolist()
    return LabelledFaceSet(
        name,
        [
            Face(sample_id, clip, person, label, partial(load_picture, path))
            for sample_id, path, clip, person, label in zip(
                frames.sample_ids, paths, frames.clip_ids, frames.groups, labels, strict=True
            )
        ],
        frames,
        np.arange(len(paths), dtype=np.int64),
        MAX,
        kind="crops",
        split=None if split == "all" else split,
        fingerprint=compute_fingerprint(frames.sample_ids, labels, contents),
        faces_rule=RULE,
        name_faces=lambda: list(frames.sample_ids),
        notes=(*found.notes, *found.describe_rejected(), *_describe_swaps(swaps, inside), *describe_copies(named)),
        columns=root if root.is_file() else None,
    )


def _build_frames(
    set_name: str, pictures: Sequence[RawClip], sample_ids: Sequence[str], swaps: Sequence[SwapRow | None]
) -> ScoredFrames:
    clips, groups, kinds = list[str](), list[str](), list[str]()
    for sample_id, picture, swap in zip(sample_ids, pictures, swaps, strict=True):
        clips.append(sample_id if swap else picture.film or sample_id)
        groups.append(swap.target_person if swap else picture.identities[0])
        kinds.append((swap.method and f"swap-{swap.method}") if swap else picture.manipulation)
    labels = np.array([picture.label for picture in pictures], np.int64)
    return make_unscored(set_name, sample_ids, clips, groups, kinds, labels)


def _leave_out_copies(clips: Sequence[RawClip]) -> tuple[list[RawClip], list[int | str], list[tuple[Path, Path]]]:
    """Keep the first of equal stills of a class; equal frames of a video are frames all the same.

    Returns the pictures, the crc32 of each, and what was left out, each with the picture that it equals.
    """
    kept: dict[tuple[int | None, str], tuple[RawClip, int | str]] = {}
    copies: list[tuple[Path, Path]] = []
    for clip in clips:
        assert clip.file is not None
        crc32, digest = _hash_content(clip.file)
        first, _ = kept.setdefault((clip.label, str(clip.file) if clip.film else digest), (clip, crc32))
        if first is not clip:
            assert first.file is not None
            copies.append((clip.file, first.file))
    found = list(kept.values())
    return [clip for clip, _ in found], [crc32 for _, crc32 in found], copies


def _hash_content(path: Path) -> tuple[int | str, str]:
    """Compute crc32 and sha256 of a file; for an unreadable one return the reason, reported when it is read."""
    try:
        content = read_plain(path, most_bytes=MOST_BYTES)
    except OSError as error:
        return explain(error), str(path)
    return zlib.crc32(content), hashlib.sha256(content).hexdigest()
