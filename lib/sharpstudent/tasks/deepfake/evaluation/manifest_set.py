"""Reads a prepared set as a data set: the rows of one split, and the frames in which no face was found.

The manifest has no row of a frame without a face; such frames are named in the files of the clips under parts/.

Legend: R rows (all of the manifest's, or the chosen ones), M frames, N faces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.metrics.checks import name_some
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, Manifest
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import (
    AGGREGATIONS,
    LabelledFaceSet,
    compute_fingerprint,
    make_unscored,
    name_frame,
)
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.manifest_rows import ManifestRows, name_faces, read_rows
from sharpstudent.tasks.deepfake.evaluation.set_request import FacesRule
from sharpstudent.tasks.deepfake.prepare.destination import COLUMNS
from sharpstudent.tasks.deepfake.prepare.parts import PARTS, Part, find_part_file, read_part
from sharpstudent.tasks.deepfake.sources.manifest import (
    ManifestFaces,
    describe_stills,
    find_copies_of_stills,
    open_manifest,
)

EMPTY = "the clip has no frames"


@dataclass(frozen=True)
class ClipAbout:
    """What is known of a clip.

    Attributes:
        split: The split of the clip; None where it is not known.
        label: The label, real 0 or fake 1; None where it was not stored.
        group: The group of its person.
        manipulation: The kind of fake.
        has_rows: Whether a face was found in any of its frames.
    """

    split: str | None
    label: int | None
    group: str
    manipulation: str
    has_rows: bool


@dataclass(frozen=True)
class FacelessFrame:
    """A frame without a face.

    Attributes:
        clip_id: The clip that it is in.
        frame_index: The frame's number in the clip.
        reason: Why there is no face.
        clip: What is known of the clip.
    """

    clip_id: str
    frame_index: int
    reason: str
    clip: ClipAbout


@dataclass(frozen=True)
class Faceless:
    """Frames without a face.

    Attributes:
        frames: The frames.
        notes: Lines for the user.
    """

    frames: tuple[FacelessFrame, ...]
    notes: tuple[str, ...]


def find_faceless(folder: Path, rows: ManifestRows, split: str, *, has_row: Callable[[str, int], bool]) -> Faceless:
    """Find the frames without a face of the clips of a split.

    A clip with rows is in their split. A clip without any goes where its person is, if that is one split, else where
    all rows are, if that is one split; else only "all" counts it, and a note says how many were passed over. Such a
    clip counts as one frame where nothing of it could be read.

    Args:
        folder: The folder of the manifest.
        rows: The columns of the manifest.
        split: One of SPLITS, or "all" for every clip.
        has_row: Takes a clip and a frame's number; returns whether the manifest has a row of that frame.

    Returns:
        The frames, with notes.
    """
    if not (folder / PARTS).is_dir():
        return Faceless((), (f"no {PARTS}/ beside the manifest: frames without a face are not known, nor counted",))
    clips = _Clips(rows)
    frames: list[FacelessFrame] = []
    unread = homeless = 0
    for path in clips.list_parts(folder, split):
        try:
            _, part = read_part(path)
        except UnreadableSample:
            unread += 1
            continue
        clip = clips.find(part)
        if split != "all" and clip.split is None:
            homeless += 1
        elif split in ("all", clip.split):
            frames.extend(_list_frames(part, clip, has_row))
    unlabelled = len({frame.clip_id for frame in frames if frame.clip.label is None})
    notes = [
        f"{count:,} {text}"
        for count, text in (
            (unread, f"files in {PARTS}/ cannot be read: frames without a face of their clips are not counted"),
            (homeless, "clips without any face belong to no known split: not counted (--split all counts them)"),
            (unlabelled, "clips without any face were prepared before labels of such were kept: counted without one"),
        )
        if count
    ]
    return Faceless(tuple(frames), tuple(notes))


class _Clips:
    """What is known of each clip: from its rows, else from those of its person, else from its part."""

    def __init__(self, rows: ManifestRows) -> None:
        self._known: dict[str, ClipAbout] = {}
        self._of_person: dict[str, list[ClipAbout]] = defaultdict(list)
        codes, first = np.unique(rows.clips.codes, return_index=True)
        for code, row in zip(codes.tolist(), first.tolist(), strict=True):
            person, group, kind = (texts.at(row) for texts in (rows.people, rows.groups, rows.manipulations))
            clip = ClipAbout(rows.find_split(row), int(rows.labels[row]), group, kind, has_rows=True)
            self._known[rows.clips.names[code]] = clip
            self._of_person[person].append(clip)

    def list_parts(self, folder: Path, split: str) -> list[Path]:
        """List the files of all clips but those that are known to be of another split.

        Args:
            folder: The folder of the manifest.
            split: One of SPLITS, or "all".

        Returns:
            The files in a fixed order.
        """
        others = {find_part_file(folder, key) for key, clip in self._known.items() if split not in ("all", clip.split)}
        return sorted(path for path in (folder / PARTS).glob("*.arrow") if path not in others)

    def find(self, part: Part) -> ClipAbout:
        """Find what is known of the clip of a part."""
        if part.key in self._known:
            return self._known[part.key]
        same = self._of_person.get(part.identity, [])
        splits = {clip.split for clip in same or self._known.values()}
        group = same[0].group if same else part.identity or part.key
        split = splits.pop() if len(splits) == 1 else None
        return ClipAbout(split, part.label, group, part.manipulation, has_rows=False)


def _list_frames(part: Part, clip: ClipAbout, has_row: Callable[[str, int], bool]) -> Iterator[FacelessFrame]:
    """List each frame without a face once, with the first reason.

    A reason against a frame that has a face is a remark, and is left out.
    """
    reasons: dict[int, str] = {}
    for rejected in part.rejected:
        if rejected.frame is not None or not clip.has_rows:
            reasons.setdefault(rejected.frame or 0, rejected.reason)
    if not clip.has_rows and not reasons:
        reasons[0] = EMPTY
    for index, reason in sorted(reasons.items()):
        if not (clip.has_rows and has_row(part.key, index)):
            yield FacelessFrame(part.key, index, reason, clip)


NOT_LARGEST = "the clip's largest person is not in it"
RULES: dict[str, str] = {
    "largest": "the largest person of each clip, one face a frame; a frame that shows only others has no decision",
    "max": "all faces of a frame, which is as fake as the face that is most likely fake",
    "mean": "all faces of a frame, by the mean of their probabilities of fake",
    "person": "of each clip the person who is most likely fake by the mean of their frames; a frame without them "
    "counts as its likeliest face",
}


@dataclass(frozen=True)
class _Framed:
    """The frames of some rows.

    Attributes:
        first: The first row of each frame (M,), int64.
        frame_of: The number of the frame of each row (R,), int64.
        keys: A key for each frame (M,), ascending, as `_make_keys` makes them.
    """

    first: NDArray[np.int64]
    frame_of: NDArray[np.int64]
    keys: NDArray[np.int64]


def read_manifest_set(
    root: Path, *, name: str, split: str, faces: FacesRule, kind: str = "manifest", notes: Sequence[str] = ()
) -> LabelledFaceSet:
    """Read a prepared set.

    Args:
        root: The manifest or its folder.
        name: The name of the set.
        split: One of SPLITS, or "all".
        faces: The rule which faces of a frame count, a key of RULES.
        kind: The kind of the set in reports.
        notes: Lines for the user, put before the set's own.

    Returns:
        The set.

    Raises:
        UserError: Where there is no usable manifest, no row of that split, two labels for one frame, or two largest
            faces in one.
    """
    manifest = open_manifest(root)
    rows = read_rows(manifest)
    chosen = _choose_rows(manifest, split)
    framed = _find_frames(rows, chosen)
    labels = rows.labels[chosen.start : chosen.stop]
    mixed = framed.frame_of[labels != rows.labels[framed.first][framed.frame_of]]
    _check_none(manifest, rows, framed, np.unique(mixed), "frames are real and fake at once")
    is_scored = np.ones(len(chosen), np.bool_)
    if faces == "largest":
        is_scored = rows.face_index[chosen.start : chosen.stop] == 0
        twice = np.flatnonzero(np.bincount(framed.frame_of[is_scored], minlength=1) > 1)
        _check_none(manifest, rows, framed, twice, "frames have more than one largest face (face_index 0)")
    missing = find_faceless(manifest.folder, rows, split, has_row=_build_finder(rows, framed))
    copies = find_copies_of_stills(manifest, chosen)
    if copies:
        framed, is_kept = _leave_out(framed, np.fromiter(copies, np.int64) - chosen.start)
        is_scored &= is_kept
    frame_of = framed.frame_of[is_scored]
    scored = chosen if is_scored.all() else (np.flatnonzero(is_scored) + chosen.start).astype(np.int32)
    frames, reasons = _build_frames(name, rows, framed, frame_of, missing)
    numbers = np.asarray(scored, np.int64)
    return LabelledFaceSet(
        name,
        ManifestFaces(manifest, scored),
        frames,
        frame_of,
        AGGREGATIONS[faces],
        kind=kind,
        split=split if kind == "manifest" or split != "all" else None,
        fingerprint=compute_fingerprint(
            frames.take(frame_of).sample_ids, rows.labels[numbers].tolist(), rows.crc32[numbers].tolist()
        ),
        faces_rule=RULES[faces],
        name_faces=lambda: name_faces(manifest, scored),
        faceless=reasons,
        uncounted=tuple(frame.reason for frame in missing.frames if frame.clip.label is None),
        notes=(
            *notes,
            *manifest.notes,
            *missing.notes,
            *describe_stills(manifest, copies),
            *_describe_preparation(manifest, faces),
        ),
        columns=find_columns(manifest.folder),
        people_of=_make_keys(rows.clips.codes[numbers], rows.face_index[numbers]) if faces == "person" else None,
    )


def find_columns(folder: Path) -> Path | None:
    """Return the file of further columns of a prepared set; None where the set was made without any."""
    return path if (path := folder / COLUMNS).is_file() else None


def _choose_rows(manifest: Manifest, split: str) -> range:
    rows = range(len(manifest)) if split == "all" else manifest.rows_of(split)
    if len(rows):
        return rows
    counts = {name: len(manifest.rows_of(name)) for name in SPLITS}
    others = [name for name in ("test", "val", "train") if counts[name]]
    raise UserError.about(
        str(manifest.path),
        "has no face at all" if split == "all" else f"has no face in its split {split}",
        expected=f"faces in {split}",
        got=", ".join(f"{name}: {count:,} faces" for name, count in counts.items()),
        remedy=f"--split {' or '.join((*others, 'all'))}" if sum(counts.values()) else "prepare the set again",
    )


def _make_keys(clips: NDArray[np.int32], frames: NDArray[np.int32]) -> NDArray[np.int64]:
    """Make one number of each pair of a clip's and a frame's number, rising with the clip and then with the frame."""
    return clips.astype(np.int64) * 2**32 + frames


def _find_frames(rows: ManifestRows, chosen: range) -> _Framed:
    part = slice(chosen.start, chosen.stop)
    keys = _make_keys(rows.clips.codes[part], rows.frame_index[part])
    distinct, first, frame_of = np.unique(keys, return_index=True, return_inverse=True)
    return _Framed((first + chosen.start).astype(np.int64), frame_of.astype(np.int64), distinct)


def _leave_out(framed: _Framed, rows: NDArray[np.int64]) -> tuple[_Framed, NDArray[np.bool_]]:
    """Leave out rows, counted from the first, and the frames that have no others; also return which rows are kept.

    A row that is left out then has the number of some frame, and is not read.
    """
    is_kept = np.ones(len(framed.frame_of), np.bool_)
    is_kept[rows] = False
    some = np.unique(framed.frame_of[is_kept])
    frame_of = np.minimum(np.searchsorted(some, framed.frame_of), len(some) - 1)
    return _Framed(framed.first[some], frame_of, framed.keys[some]), is_kept


def _build_finder(rows: ManifestRows, framed: _Framed) -> Callable[[str, int], bool]:
    number_of = {clip: number for number, clip in enumerate(rows.clips.names)}

    def has_row(clip_id: str, frame_index: int) -> bool:
        """Whether a frame of a clip has a row.

        Args:
            clip_id: The clip.
            frame_index: The frame's number in it.

        Returns:
            True where some face of it was found.
        """
        key = _make_keys(np.array([number_of[clip_id]], np.int32), np.array([frame_index], np.int32))[0]
        place = int(np.searchsorted(framed.keys, key))
        return place < len(framed.keys) and bool(framed.keys[place] == key)

    return has_row


def _build_frames(
    name: str, rows: ManifestRows, framed: _Framed, frame_of: NDArray[np.int64], missing: Faceless
) -> tuple[ScoredFrames, dict[int, str]]:
    """Build the frames with rows, then those without; also return, by number, why a frame has no face to score."""
    clip_ids = rows.clips.read(framed.first)
    others = [frame for frame in missing.frames if frame.clip.label is not None]
    has_face = np.zeros(len(framed.first), np.bool_)
    has_face[frame_of] = True
    reasons = dict.fromkeys(np.flatnonzero(~has_face).tolist(), NOT_LARGEST)
    reasons |= {number: frame.reason for number, frame in enumerate(others, start=len(clip_ids))}
    frames = make_unscored(
        name,
        _name_frames(rows, framed.first) + [name_frame(frame.clip_id, frame.frame_index) for frame in others],
        clip_ids + [frame.clip_id for frame in others],
        rows.groups.read(framed.first) + [frame.clip.group for frame in others],
        rows.manipulations.read(framed.first) + [frame.clip.manipulation for frame in others],
        np.array([*rows.labels[framed.first].tolist(), *(frame.clip.label for frame in others)], np.int64),
    )
    return frames, reasons


def _name_frames(rows: ManifestRows, some: NDArray[np.int64]) -> list[str]:
    """Name the frames of some rows."""
    indices = rows.frame_index[some].tolist()
    return [name_frame(clip, index) for clip, index in zip(rows.clips.read(some), indices, strict=True)]


def _check_none(manifest: Manifest, rows: ManifestRows, framed: _Framed, bad: NDArray[np.int64], what: str) -> None:
    """Raise UserError that names the bad frames, by number, where there is one."""
    if len(bad):
        names = _name_frames(rows, framed.first[bad])
        remedy = f"python prepare_faces.py check {manifest.folder}"
        raise UserError.about(str(manifest.path), f"{len(bad)} {what}", got=name_some(names), remedy=remedy)


def _describe_preparation(manifest: Manifest, faces: FacesRule) -> list[str]:
    if faces != "largest" and manifest.about.get("faces") == "largest":
        return [
            f"prepared with --faces largest: a frame holds one face at most, and --faces {faces} changes nothing; "
            "prepare it with --faces all for all of them"
        ]
    return []
