"""From parts to the set: who is in which split, the manifest, the quarantine, the counts.

The parts are read twice, first for what concerns the whole set, then row by row as the manifest is written: no row
waits in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import atomic_path
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.splits import assign_splits, open_train_where_no_validation
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow, write_manifest
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.destination import MANIFEST, QUARANTINE
from sharpstudent.tasks.deepfake.prepare.packing import Packer
from sharpstudent.tasks.deepfake.prepare.parts import StoredPart
from sharpstudent.tasks.deepfake.prepare.progress import Counts, describe_reasons


@dataclass(frozen=True)
class SplitSettings:
    """The shares of people (or clips) held out where the source's own lists say nothing, and the draw's seed."""

    validation_share: float
    test_share: float
    seed: int


@dataclass(frozen=True)
class Assembled:
    """shards: how many were written, 0 for loose files; shortest_timeout: of the clips that were too slow [s]."""

    counts: Counts
    shards: int
    shortest_timeout: float | None


@dataclass(frozen=True)
class _Placed:
    """A clip with faces and where they belong."""

    clip: RawClip
    split: str
    group: str


def assemble(
    dest: Path,
    clips: Sequence[RawClip],
    rejected: Sequence[Rejected],
    *,
    splits: SplitSettings,
    shards: bool,
    about: dict[str, Any],
    tick: Callable[[str], None],
) -> Assembled:
    """Write quarantine.csv, the shards if wanted, then manifest.arrow. clips: sorted by key, each with a part.

    Raises UserError where no clip gave a face (then there is no manifest) or the disk refuses.
    """
    counts = Counts()
    timeouts: list[float] = []
    with atomic_path(dest / QUARANTINE) as path, open(path, "w", encoding="utf-8", newline="") as file:
        faces = _read_parts(dest, clips, rejected, counts, timeouts, csv.writer(file, lineterminator="\n"), tick)
    seen = [(clip, number) for clip, number in zip(clips, faces, strict=True) if number]
    if not seen:
        (dest / MANIFEST).unlink(missing_ok=True)
        raise UserError(_explain_no_face(dest, counts))
    placed = _place([clip for clip, _ in seen], splits)
    number_of = {clip.key: number for clip, number in seen}
    counts.count_splits((p.split, p.clip.identities[0], number_of[p.clip.key]) for p in placed)
    packer = Packer(dest) if shards else None
    if packer is not None:
        packer.pack(_read_rows(dest, placed, lambda: tick("packing the shards")))
    rows = _read_rows(dest, placed, lambda: tick("writing the manifest"))
    write_manifest(dest / MANIFEST, rows if packer is None else packer.place(rows), about)
    return Assembled(counts, 0 if packer is None else packer.shards, min(timeouts, default=None))


def _read_parts(
    dest: Path,
    clips: Sequence[RawClip],
    rejected: Iterable[Rejected],
    counts: Counts,
    timeouts: list[float],
    quarantine: Any,
    tick: Callable[[str], None],
) -> list[int]:
    """Count everything and write each rejected item once. Returns the number of faces of each clip."""
    quarantine.writerow(("source", "frame", "reason"))
    named: set[str] = set()  # whole files
    _quarantine(sorted(rejected, key=_place_of), named, counts, quarantine)
    faces: list[int] = []
    for clip in clips:
        tick("reading what is finished")
        part = open_part(dest, clip.key)
        about = part.about
        faces.append(len(part))
        counts.clips += 1
        counts.clips_with_face += bool(len(part))
        counts.frames_read += about.frames_read
        counts.frames_with_face += about.frames_with_face
        counts.faces += len(part)
        counts.real += len(part) * (clip.label == 0)
        counts.fake += len(part) * (clip.label == 1)
        if about.clip_timeout is not None:
            timeouts.append(about.clip_timeout)
        _quarantine(sorted(about.rejected, key=_place_of), named, counts, quarantine)
    return faces


def _quarantine(items: Iterable[Rejected], named: set[str], counts: Counts, quarantine: Any) -> None:
    """Each file, and each frame of a file, once: with the first reason against it."""
    last: tuple[str, int] | None = None
    for item in items:
        if _place_of(item) == last or (item.frame is None and item.source in named):
            continue
        last = _place_of(item)
        if item.frame is None:
            named.add(item.source)
        counts.reject(item)
        quarantine.writerow((item.source, "" if item.frame is None else item.frame, item.reason))


def _place_of(item: Rejected) -> tuple[str, int]:
    return item.source, -1 if item.frame is None else item.frame


def _place(clips: Sequence[RawClip], settings: SplitSettings) -> list[_Placed]:
    """The clips with their splits, in the order of the manifest."""
    official: list[str | None] = [clip.split for clip in clips]
    if settings.validation_share:
        official = open_train_where_no_validation(official)
    assigned = assign_splits(
        [clip.identities for clip in clips],
        official,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    placed = [_Placed(clip, one.split, one.group) for clip, one in zip(clips, assigned, strict=True)]
    return sorted(placed, key=lambda one: (SPLITS.index(one.split), one.clip.key))


def _read_rows(dest: Path, placed: Sequence[_Placed], tick: Callable[[], None]) -> Iterator[FaceRow]:
    """The rows of all clips. What is said of a clip comes from the source as it is now, and not from its part."""
    for one in placed:
        tick()
        clip = one.clip
        try:
            for row in open_part(dest, clip.key).read_rows():
                yield replace(
                    row,
                    label=clip.label,
                    identity=clip.identities[0] if row.face_index == 0 else row.identity,
                    group=one.group,
                    split=one.split,
                    source_set=clip.source_set,
                    manipulation=clip.manipulation,
                    compression=clip.compression,
                )
        except UnreadableSample as error:
            raise UserError(_explain_lost_part(error)) from None


def open_part(dest: Path, key: str) -> StoredPart:
    """The part of a finished clip. Raises UserError where it has gone meanwhile."""
    try:
        return StoredPart(dest, key)
    except UnreadableSample as error:
        raise UserError(_explain_lost_part(error)) from None


def _explain_lost_part(error: UnreadableSample) -> Problem:
    return Problem(error.path, error.reason, remedy="repeat the command: this clip is cut again")


def _explain_no_face(dest: Path, counts: Counts) -> Problem:
    return Problem(
        str(dest),
        "no manifest was written: no face was found in anything",
        expected="at least one face",
        got="\n".join((f"{counts.clips:,} clips, {counts.frames_read:,} frames looked at", *describe_reasons(counts))),
        remedy="give photos or videos with faces; for small ones, a lower --min-face",
    )
