"""A prepared set as a data set: rows of one split, and the frames in which no face was found.

Legend: R chosen rows, M frames, N faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.data.manifest import SPLITS, Manifest
from lib.errors import Problem, UserError
from lib.metrics.checks import name_some
from lib.tasks.deepfake.evaluation.columns import FrameColumns, compute_fingerprint, name_frame
from lib.tasks.deepfake.evaluation.evaluation_set import AGGREGATIONS, EvaluationSet, build_set
from lib.tasks.deepfake.evaluation.faceless import Faceless, find_faceless
from lib.tasks.deepfake.evaluation.manifest_rows import ManifestRows, name_faces, read_rows
from lib.tasks.deepfake.evaluation.set_request import FacesRule
from lib.tasks.deepfake.sources.manifest import ManifestFaces, open_manifest

NOT_LARGEST = "the clip's largest person is not in it"
RULES: dict[str, str] = {
    "largest": "the largest person of each clip, one face a frame; a frame that shows only others has no decision",
    "max": "all faces of a frame, which is as fake as the one that is judged most likely fake",
    "mean": "all faces of a frame, by the mean of their probabilities of fake",
}


@dataclass(frozen=True)
class _Framed:
    """first: a row of each frame (M,), int64; frame_of: the frame of each of R rows, int64; keys: of the frames, (M,),
    rising.
    """

    first: NDArray[np.int64]
    frame_of: NDArray[np.int64]
    keys: NDArray[np.int64]


def read_manifest_set(
    root: Path, *, name: str, split: str, faces: FacesRule, kind: str = "manifest", notes: Sequence[str] = ()
) -> EvaluationSet:
    """root: the manifest or its folder; split: one of SPLITS, or "all". Raises UserError where there is no usable
    manifest, no row of that split, two labels for one frame, or two largest faces in one.
    """
    manifest = open_manifest(root)
    rows = read_rows(manifest)
    chosen = _choose_rows(manifest, split)
    framed = _find_frames(rows, chosen)
    _check_labels(manifest, rows, chosen, framed)
    is_judged = rows.face_index[chosen.start : chosen.stop] == 0 if faces == "largest" else np.ones(len(chosen), bool)
    frame_of = framed.frame_of[is_judged]
    if faces == "largest":
        _check_one_largest(manifest, rows, framed, frame_of)
    judged = chosen if is_judged.all() else (np.flatnonzero(is_judged) + chosen.start).astype(np.int32)
    faceless = find_faceless(manifest.folder, rows, split, has_row=_build_finder(rows, framed))
    frames = _build_columns(rows, framed, frame_of, faceless)
    numbers = np.asarray(judged, np.int64)
    return build_set(
        name,
        ManifestFaces(manifest, judged),
        frames,
        frame_of,
        AGGREGATIONS[faces],
        kind=kind,
        split=split if kind == "manifest" else None,
        fingerprint=compute_fingerprint(
            (frames.sample_ids[frame] for frame in frame_of.tolist()),
            rows.labels[numbers].tolist(),
            rows.crc32[numbers].tolist(),
        ),
        faces_rule=RULES[faces],
        name_faces=lambda: name_faces(manifest, judged),
        uncounted=tuple(frame.reason for frame in faceless.frames if frame.label is None),
        notes=(*notes, *faceless.notes, *_describe_preparation(manifest, faces)),
    )


def _choose_rows(manifest: Manifest, split: str) -> range:
    rows = range(len(manifest)) if split == "all" else manifest.rows_of(split)
    if len(rows):
        return rows
    counts = {name: len(manifest.rows_of(name)) for name in SPLITS}
    others = [name for name in ("test", "val", "train") if counts[name]]
    raise UserError(
        Problem(
            str(manifest.path),
            "has no face at all" if split == "all" else f"has no face in its split {split}",
            expected=f"faces in {split}",
            got=", ".join(f"{name}: {count:,} faces" for name, count in counts.items()),
            remedy=f"--split {' or '.join((*others, 'all'))}" if sum(counts.values()) else "prepare the set again",
        )
    )


def _make_keys(clips: NDArray[np.int32], frames: NDArray[np.int32]) -> NDArray[np.int64]:
    """One number for each pair of a clip's number and a frame's, rising with the clip and then with the frame."""
    return clips.astype(np.int64) * 2**32 + frames


def _find_frames(rows: ManifestRows, chosen: range) -> _Framed:
    part = slice(chosen.start, chosen.stop)
    keys = _make_keys(rows.clips.codes[part], rows.frame_index[part])
    distinct, first, frame_of = np.unique(keys, return_index=True, return_inverse=True)
    return _Framed((first + chosen.start).astype(np.int64), frame_of.astype(np.int64), distinct)


def _build_finder(rows: ManifestRows, framed: _Framed) -> Callable[[str, int], bool]:
    number_of = {clip: number for number, clip in enumerate(rows.clips.names)}

    def has_row(clip_id: str, frame_index: int) -> bool:
        key = _make_keys(np.array([number_of[clip_id]], np.int32), np.array([frame_index], np.int32))[0]
        place = int(np.searchsorted(framed.keys, key))
        return place < len(framed.keys) and bool(framed.keys[place] == key)

    return has_row


def _build_columns(
    rows: ManifestRows, framed: _Framed, frame_of: NDArray[np.int64], faceless: Faceless
) -> FrameColumns:
    """Frames with rows, then those without."""
    clip_ids = rows.clips.read(framed.first)
    others = [frame for frame in faceless.frames if frame.label is not None]
    has_face = np.zeros(len(framed.first), np.bool_)
    has_face[frame_of] = True
    reasons = dict.fromkeys(np.flatnonzero(~has_face).tolist(), NOT_LARGEST)
    reasons |= {number: frame.reason for number, frame in enumerate(others, start=len(clip_ids))}
    indices = rows.frame_index[framed.first].tolist()
    return FrameColumns(
        sample_ids=[name_frame(clip, index) for clip, index in zip(clip_ids, indices, strict=True)]
        + [name_frame(frame.clip_id, frame.frame_index) for frame in others],
        clip_ids=clip_ids + [frame.clip_id for frame in others],
        groups=rows.groups.read(framed.first) + [frame.group for frame in others],
        manipulations=rows.manipulations.read(framed.first) + [frame.manipulation for frame in others],
        labels=np.concatenate(
            [rows.labels[framed.first].astype(np.int64), np.array([frame.label for frame in others], np.int64)]
        ),
        faceless=reasons,
    )


def _check_labels(manifest: Manifest, rows: ManifestRows, chosen: range, framed: _Framed) -> None:
    labels = rows.labels[chosen.start : chosen.stop]
    bad = np.unique(framed.frame_of[labels != rows.labels[framed.first][framed.frame_of]])
    if len(bad):
        _refuse(manifest, rows, framed, bad, "frames are real and fake at once")


def _check_one_largest(manifest: Manifest, rows: ManifestRows, framed: _Framed, frame_of: NDArray[np.int64]) -> None:
    bad = np.flatnonzero(np.bincount(frame_of, minlength=1) > 1)
    if len(bad):
        _refuse(manifest, rows, framed, bad, "frames have more than one largest face (face_index 0)")


def _refuse(manifest: Manifest, rows: ManifestRows, framed: _Framed, bad: NDArray[np.int64], what: str) -> None:
    first = framed.first[bad]
    indices = rows.frame_index[first].tolist()
    names = [name_frame(clip, index) for clip, index in zip(rows.clips.read(first), indices, strict=True)]
    remedy = f"python prepare_faces.py check {manifest.folder}"
    raise UserError(Problem(str(manifest.path), f"{len(bad)} {what}", got=name_some(names), remedy=remedy))


def _describe_preparation(manifest: Manifest, faces: FacesRule) -> list[str]:
    if faces != "largest" and manifest.about.get("faces") == "largest":
        return [
            f"prepared with --faces largest: a frame holds one face at most, and --faces {faces} changes nothing; "
            "prepare it with --faces all for all of them"
        ]
    return []
