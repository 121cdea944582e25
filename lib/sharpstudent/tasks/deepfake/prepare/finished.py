"""Finished clips and finished sets.

What a worker process does with a clip: cut it, write it. Only counts go back to the parent.

The record that a set is finished: what it was made of, so that the same command sees that there is nothing to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, Manifest
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.destination import QUARANTINE, SHARDS, read_preparation
from sharpstudent.tasks.deepfake.prepare.parts import PARTS, ClipCrops, Part, hide_root, write_broken_part, write_clip
from sharpstudent.tasks.deepfake.prepare.progress import Counts
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings


class Cropper(Protocol):
    """A pure function of a clip and the settings that it was made with; see `prepare.crop_clip`."""

    def crop(self, clip: RawClip) -> ClipCrops: ...


@dataclass(frozen=True)
class Job:
    """A clip to be done, with the fingerprint of what it is made of."""

    clip: RawClip
    fingerprint: str


@dataclass(frozen=True)
class ClipDone:
    """How many faces a clip gave, how much was rejected, how many frames were looked at."""

    faces: int
    rejected: int
    frames_read: int


class ClipWorker:
    """Does jobs, with the networks loaded once. root: SOURCE, whose path no output shall hold.

    Raises UserError where the disk refuses or a model file is missing.
    """

    def __init__(
        self, dest: Path, root: Path, settings: CropSettings, build: Callable[[CropSettings], Cropper]
    ) -> None:
        self._dest, self._root, self._settings, self._cropper = dest, root, settings, build(settings)

    def __call__(self, job: Job) -> ClipDone:
        clip = job.clip
        try:
            crops = self._cropper.crop(clip)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 hostile bytes may raise anything; it is named in the quarantine
            reason = hide_root(f"failed ({type(error).__name__}: {error})", self._root)
            write_broken_part(self._dest, build_broken_part(job, "failed", reason, self._root))
            return ClipDone(0, 1, 0)
        rejected = tuple(hide_roots(item, self._root) for item in crops.rejected)
        part = Part(clip.key, job.fingerprint, crops.frames_read, crops.frames_with_face, rejected).with_clip(clip)
        write_clip(self._dest, clip, part, crops, self._settings, self._root)
        return ClipDone(len(crops.faces), len(rejected), crops.frames_read)


def hide_roots(item: Rejected, root: Path) -> Rejected:
    return replace(item, source=hide_root(item.source, root), reason=hide_root(item.reason, root))


def build_broken_part(job: Job, how: str, reason: str, root: Path, clip_timeout: float | None = None) -> Part:
    """The part of a clip whose worker was lost: one rejected file."""
    clip = job.clip
    source = clip.key if clip.file is None else hide_root(str(clip.file), root)
    part = Part(clip.key, job.fingerprint, 0, 0, (Rejected(source, reason),), how, clip_timeout)
    return part.with_clip(clip)


FINISHED = f"{PARTS}/finished.json"  # there while manifest, crops and parts agree, and only then


@dataclass(frozen=True)
class Finished:
    """digest: of all that decided the set; shards: how many hold its crops, 0 for loose files; shortest_timeout: of
    the clips that were too slow [s].
    """

    digest: str
    shards: int
    shortest_timeout: float | None
    counts: Counts


def compute_digest(settings: Mapping[str, Any], jobs: Sequence[Job], rejected: Sequence[Rejected]) -> str:
    """Of what is asked for and all that it is made of."""
    clips = [
        [job.fingerprint, c.key, c.label, c.identities, c.split, c.source_set, c.manipulation, c.compression]
        for job, c in ((job, job.clip) for job in jobs)
    ]
    left_out = sorted([item.source, -1 if item.frame is None else item.frame, item.reason] for item in rejected)
    return hashlib.sha256(json.dumps([settings, clips, left_out], sort_keys=True).encode()).hexdigest()


def read_finished(dest: Path) -> Finished | None:
    """What `write_finished` wrote, if anything."""
    try:
        stored = json.loads((dest / FINISHED).read_text(encoding="utf-8"))
        return Finished(**stored | {"counts": Counts(**stored["counts"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_finished(dest: Path, finished: Finished) -> None:
    write_text_atomically(dest / FINISHED, json.dumps(asdict(finished), allow_nan=False) + "\n")


def is_whole(dest: Path) -> bool:
    """Whether all files of a finished set are there, the crops in their sizes."""
    if not (dest / QUARANTINE).is_file() or not (read_preparation(dest) or {}).get("is_finished"):
        return False
    try:
        manifest = Manifest.open(dest / MANIFEST)
        sizes, offsets = manifest.column("size"), manifest.column("offset")
        column = manifest.column("path")
        assert not isinstance(column, np.ndarray)
        paths = (path for chunk in column.chunks for path in chunk.to_pylist())
        ends: dict[str, int] = {}
        for path, size, offset in zip(paths, sizes, offsets, strict=True):
            if path.startswith(f"{SHARDS}/"):
                ends[path] = max(ends.get(path, 0), int(offset + size))
            elif (dest / path).stat().st_size != size:
                return False
        return all((dest / path).stat().st_size >= end for path, end in ends.items())
    except (UserError, OSError):
        return False
