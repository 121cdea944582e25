"""What a worker process does with a clip: cut it, write it. Only counts go back to the parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lib.errors import UserError
from lib.tasks.deepfake.layouts.clip import RawClip, Rejected
from lib.tasks.deepfake.prepare.parts import Part, hide_root, write_broken_part, write_clip
from lib.tasks.deepfake.prepare.settings import CutClip, CutSettings


class Cutter(Protocol):
    """A pure function of a clip and the settings it was made with; see `lib.tasks.deepfake.prepare.cut`."""

    def cut(self, clip: RawClip) -> CutClip: ...


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

    def __init__(self, dest: Path, root: Path, settings: CutSettings, build: Callable[[CutSettings], Cutter]) -> None:
        self._dest, self._root, self._settings, self._cutter = dest, root, settings, build(settings)

    def __call__(self, job: Job) -> ClipDone:
        clip = job.clip
        try:
            cut = self._cutter.cut(clip)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 hostile bytes may raise anything; it is named in the quarantine
            reason = hide_root(f"failed ({type(error).__name__}: {error})", self._root)
            write_broken_part(self._dest, build_broken_part(job, "failed", reason, self._root))
            return ClipDone(0, 1, 0)
        rejected = tuple(hide_roots(item, self._root) for item in cut.rejected)
        part = Part(clip.key, job.fingerprint, cut.frames_read, cut.frames_with_face, rejected).say_whose(clip)
        write_clip(self._dest, clip, part, cut, self._settings, self._root)
        return ClipDone(len(cut.faces), len(rejected), cut.frames_read)


def hide_roots(item: Rejected, root: Path) -> Rejected:
    return replace(item, source=hide_root(item.source, root), reason=hide_root(item.reason, root))


def build_broken_part(job: Job, how: str, reason: str, root: Path, clip_timeout: float | None = None) -> Part:
    """The part of a clip whose worker was lost: one rejected file."""
    clip = job.clip
    source = clip.key if clip.file is None else hide_root(str(clip.file), root)
    part = Part(clip.key, job.fingerprint, 0, 0, (Rejected(source, reason),), how, clip_timeout)
    return part.say_whose(clip)
