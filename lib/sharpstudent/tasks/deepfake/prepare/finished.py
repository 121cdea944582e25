"""Crops one clip in a worker process, and keeps the record that a set is finished.

A worker crops a clip and writes it; only counts go back to the parent. The record says what a finished set was made of,
so that the same command finds that there is nothing to do.
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
from sharpstudent.core.files import read_json
from sharpstudent.core.io import write_text_atomically
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, Manifest
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.destination import QUARANTINE, SHARDS, read_preparation
from sharpstudent.tasks.deepfake.prepare.parts import PARTS, ClipCrops, Part, hide_root, write_broken_part, write_clip
from sharpstudent.tasks.deepfake.prepare.progress import Counts
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.prepare.stored_source import ClipFolder, StoredSource


class Cropper(Protocol):
    """Crops a clip: a pure function of the clip and of the settings that it was built with; see `prepare.crop_clip`."""

    def crop(self, clip: RawClip) -> ClipCrops:
        """Return the crops of the clip, and the frames without a face."""
        ...


@dataclass(frozen=True)
class Job:
    """A clip to be cropped.

    Attributes:
        clip: The clip.
        fingerprint: Identifies all that decides its crops.
        stored: Its files where SOURCE lies in a storage, by their names below it.
    """

    clip: RawClip
    fingerprint: str
    stored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipDone:
    """The counts of one finished clip.

    Attributes:
        faces: Its faces.
        rejected: Files and frames without a usable face.
        frames_read: Frames that were read.
    """

    faces: int
    rejected: int
    frames_read: int


class ClipWorker:
    """Crops clips in one process, with the networks loaded once."""

    def __init__(
        self,
        dest: Path,
        root: Path,
        settings: CropSettings,
        build: Callable[[CropSettings], Cropper],
        source: StoredSource | None = None,
    ) -> None:
        """Make the cropper.

        Args:
            dest: The folder of the prepared set.
            root: SOURCE, whose path no output may contain.
            settings: How faces are cropped.
            build: Makes the cropper.
            source: SOURCE where it lies in a storage; None where it is the folder `root`.
        """
        self._dest, self._root, self._settings, self._cropper = dest, root, settings, build(settings)
        self._source = source

    def __call__(self, job: Job) -> ClipDone:
        """Crop a clip and write it.

        Raises UserError where the disk or a storage refuses, or a model file is missing.
        """
        return self.crop_into(self._dest, job)

    def crop_into(self, dest: Path, job: Job) -> ClipDone:
        """Do the same for another folder than that of the set."""
        if self._source is None:
            return self._crop(dest, self._root, job)
        with self._source.at_hand(job.clip, job.stored) as (clip, root):
            return self._crop(dest, root, replace(job, clip=clip))

    def _crop(self, dest: Path, root: Path, job: Job) -> ClipDone:
        clip = job.clip
        try:
            crops = self._cropper.crop(clip)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 hostile bytes may raise anything; it is named in the quarantine
            reason = hide_root(f"failed ({type(error).__name__}: {error})", root)
            write_broken_part(dest, build_broken_part(job, "failed", reason, root))
            return ClipDone(0, 1, 0)
        rejected = tuple(hide_roots(rejection, root) for rejection in crops.rejected)
        part = Part(
            clip.key,
            job.fingerprint,
            crops.frames_read,
            crops.frames_with_face,
            rejected,
            bystanders=crops.bystanders,
        ).with_clip(clip)
        write_clip(dest, clip, part, crops, self._settings, root)
        return ClipDone(len(crops.faces), sum(not one.is_used for one in rejected), crops.frames_read)


@dataclass(frozen=True)
class Carried:
    """A clip that was cropped on a machine which does not see DEST.

    Attributes:
        done: Its counts.
        files: Its crops and its part: bytes by path below DEST.
    """

    done: ClipDone
    files: Mapping[str, bytes]


class CarryingWorker:
    """Crops clips on a machine that does not see DEST; what it writes goes back with the result."""

    def __init__(self, build: Callable[[], ClipWorker], clips: ClipFolder) -> None:
        """Make what crops them.

        Args:
            build: Makes it.
            clips: For the files of the clip at hand.
        """
        self._worker, self._clips = build(), clips

    def __call__(self, job: Job) -> Carried:
        """Crop a clip. Raises UserError as `ClipWorker` does."""
        with self._clips.fresh() as folder:
            done = self._worker.crop_into(folder, job)
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            return Carried(done, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def hide_roots(rejection: Rejected, root: Path) -> Rejected:
    """Remove the path of SOURCE from what was rejected.

    Args:
        rejection: The file or frame, with its reason.
        root: SOURCE.

    Returns:
        The same with paths below SOURCE.
    """
    return replace(rejection, source=hide_root(rejection.source, root), reason=hide_root(rejection.reason, root))


def build_broken_part(job: Job, how: str, reason: str, root: Path, clip_timeout: float | None = None) -> Part:
    """Build the part of a clip whose worker was lost: one rejected file.

    Args:
        job: The clip.
        how: "crashed", "too slow" or "failed".
        reason: The same in words.
        root: SOURCE, whose path no output may contain.
        clip_timeout: The time limit that it exceeded [s]; None where it did not.

    Returns:
        The part.
    """
    clip = job.clip
    source = clip.key if clip.file is None else hide_root(str(clip.file), root)
    part = Part(clip.key, job.fingerprint, 0, 0, (Rejected(source, reason),), how, clip_timeout)
    return part.with_clip(clip)


FINISHED = f"{PARTS}/finished.json"  # it exists only while manifest, crops and parts agree


@dataclass(frozen=True)
class Finished:
    """The record of a finished set.

    Attributes:
        digest: Identifies all that decided the set.
        shards: How many hold its crops, 0 for loose files.
        shortest_timeout: The shortest time limit that a clip exceeded [s]; None where none did.
        counts: What the set holds.
    """

    digest: str
    shards: int
    shortest_timeout: float | None
    counts: Counts


def compute_digest(settings: Mapping[str, Any], jobs: Sequence[Job], rejected: Sequence[Rejected]) -> str:
    """Compute a digest of the request and of all that the set is made of.

    Args:
        settings: What decides the set.
        jobs: All clips.
        rejected: What the layout left out.

    Returns:
        Hexadecimal sha256.
    """
    clips = [
        [job.fingerprint, c.key, c.label, c.identities, c.split, c.source_set, c.manipulation, c.compression]
        for job, c in ((job, job.clip) for job in jobs)
    ]
    left_out = sorted(
        [rejection.source, -1 if rejection.frame is None else rejection.frame, rejection.reason]
        for rejection in rejected
    )
    return hashlib.sha256(json.dumps([settings, clips, left_out], sort_keys=True).encode()).hexdigest()


def read_finished(dest: Path) -> Finished | None:
    """Return what `write_finished` wrote; None where there is none."""
    try:
        stored = read_json(dest / FINISHED)
        return Finished(**stored | {"counts": Counts(**stored["counts"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_finished(dest: Path, finished: Finished) -> None:
    """Write the record.

    Args:
        dest: The folder of the prepared set.
        finished: The record.
    """
    write_text_atomically(dest / FINISHED, json.dumps(asdict(finished), allow_nan=False) + "\n")


def is_complete(dest: Path) -> bool:
    """Return whether all files of a finished set are there, the crops in their sizes."""
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
