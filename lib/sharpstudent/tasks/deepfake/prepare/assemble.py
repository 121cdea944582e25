"""Puts a set together from its parts: splits, manifest, quarantine, counts.

The parts are read twice: first for the counts and the splits of the whole set, then row by row while the manifest is
written. No list of rows is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import atomic_path
from sharpstudent.core.naming import format_csv
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.splits import Assigned, assign_splits, open_train_where_no_validation
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, SPLITS, UNSURE_FAKES, FaceRow, write_manifest
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.destination import QUARANTINE
from sharpstudent.tasks.deepfake.prepare.finished import Finished
from sharpstudent.tasks.deepfake.prepare.packing import Packer
from sharpstudent.tasks.deepfake.prepare.parts import StoredPart
from sharpstudent.tasks.deepfake.prepare.progress import Counts, describe_reasons
from sharpstudent.tasks.deepfake.prepare.settings import Request


def assemble(
    dest: Path,
    clips: Sequence[RawClip],
    rejected: Sequence[Rejected],
    *,
    request: Request,
    settings: Mapping[str, Any],
    digest: str,
    tick: Callable[[str], None],
) -> Finished:
    """Write quarantine.csv, the shards if they are wanted, then manifest.arrow.

    Args:
        dest: The folder of the prepared set.
        clips: All clips, sorted by key, each with a part.
        rejected: What the layout left out.
        request: What the user asked for: shares, seed, shards.
        settings: What decides the set; the manifest keeps it.
        digest: Identifies all that the set is made of.
        tick: Called now and then with what is going on.

    Returns:
        The record of the finished set.

    Raises:
        UserError: If no clip gave a face (then there is no manifest), a part has gone, or the disk refuses.
    """
    counts = Counts()
    faces: dict[str, int] = {}
    timeouts: list[float] = []
    packer = Packer(dest)
    try:
        with atomic_path(dest / QUARANTINE) as path, open(path, "w", encoding="utf-8", newline="") as file:
            file.write(format_csv([("source", "frame", "reason")]))
            for rejection in _name_once(_read_parts(dest, clips, rejected, counts, faces, timeouts, tick)):
                counts.reject(rejection)
                file.write(format_csv([(rejection.source, rejection.frame, rejection.reason)]))
        placed = _place([clip for clip in clips if faces[clip.key]], request)
        if not placed:
            (dest / MANIFEST).unlink(missing_ok=True)
            raise UserError(_explain_no_face(dest, counts))
        counts.count_splits((one.split, clip.identities[0], faces[clip.key]) for clip, one in placed)
        doing = "packing the shards" if request.shards else "writing the manifest"
        rows = _read_rows(dest, placed, lambda: tick(doing))
        about = {**settings, **({UNSURE_FAKES: counts.unsure_fakes} if counts.unsure_fakes else {})}
        write_manifest(dest / MANIFEST, packer.pack(rows) if request.shards else rows, about)
    except UnreadableSample as error:
        raise UserError.about(
            error.path, error.reason, remedy="repeat the command: this clip is cropped again"
        ) from None
    return Finished(digest, packer.shards, min(timeouts, default=None), counts)


def _read_parts(
    dest: Path,
    clips: Sequence[RawClip],
    rejected: Iterable[Rejected],
    counts: Counts,
    faces: dict[str, int],
    timeouts: list[float],
    tick: Callable[[str], None],
) -> Iterator[Rejected]:
    """Read what was rejected, and count everything on the way, the faces by clip."""
    yield from sorted(rejected, key=_place_of)
    for clip in clips:
        tick("reading what is finished")
        part = StoredPart(dest, clip.key)
        faces[clip.key] = number = len(part.rows)
        about = part.about
        counts.clips += 1
        counts.clips_with_face += bool(number)
        counts.frames_read += about.frames_read
        counts.frames_with_face += about.frames_with_face
        counts.faces += number
        counts.real += number * (clip.label == 0)
        counts.fake += number * (clip.label == 1)
        counts.unsure_fakes += clip.label == 1 and _count_bystanders(part) > 0
        timeouts += [] if about.clip_timeout is None else [about.clip_timeout]
        yield from sorted(about.rejected, key=_place_of)


def _count_bystanders(part: StoredPart) -> int:
    """Count the bystanders of a clip; by its rows where an older version cropped it, which knew no masks."""
    known = part.about.bystanders
    return max((row.face_index for row in part.rows), default=0) if known is None else known


def _name_once(rejections: Iterable[Rejected]) -> Iterator[Rejected]:
    """Give each file, and each frame of a file, once: with the first reason against it."""
    named: set[str] = set()  # whole files
    last: tuple[str, int] | None = None
    for rejection in rejections:
        if _place_of(rejection) == last or (rejection.frame is None and rejection.source in named):
            continue
        last = _place_of(rejection)
        if rejection.frame is None:
            named.add(rejection.source)
        yield rejection


def _place_of(rejection: Rejected) -> tuple[str, int]:
    return rejection.source, -1 if rejection.frame is None else rejection.frame


def _place(clips: Sequence[RawClip], request: Request) -> list[tuple[RawClip, Assigned]]:
    """Return the clips with their splits and groups, in the order of the manifest."""
    official: list[str | None] = [clip.split for clip in clips]
    if request.validation_share:
        official = open_train_where_no_validation(official)
    assigned = assign_splits(
        [clip.identities for clip in clips],
        official,
        validation_share=request.validation_share,
        test_share=request.test_share,
        seed=request.split_seed,
    )
    placed = zip(clips, assigned, strict=True)
    return sorted(placed, key=lambda pair: (SPLITS.index(pair[1].split), pair[0].key))


def _read_rows(dest: Path, placed: Iterable[tuple[RawClip, Assigned]], tick: Callable[[], None]) -> Iterator[FaceRow]:
    """Read the rows of all clips; what describes a clip comes from the source as it is now, not from its part."""
    for clip, one in placed:
        tick()
        for row in StoredPart(dest, clip.key).rows:
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


def _explain_no_face(dest: Path, counts: Counts) -> Problem:
    return Problem(
        str(dest),
        "no manifest was written: no face was found in anything",
        expected="at least one face",
        got="\n".join((f"{counts.clips:,} clips, {counts.frames_read:,} frames read", *describe_reasons(counts))),
        remedy="give photos or videos with faces; for small ones, a lower --min-face",
    )
