"""Runs the preparation: finds clips, crops those that are not finished, puts the set together.

After a kill at any instant the same command continues, and its result is the same to the last byte. Ctrl-C and SIGTERM
end it at once; a second signal does not interrupt the cleanup.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.io import lock_folder, make_folder, stop_signals_raised, write_text_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.ray_pool import RayPool
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.report.console import print_line
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip
from sharpstudent.tasks.deepfake.layouts.registry import find_clips
from sharpstudent.tasks.deepfake.prepare import destination, finished, packing, parts, remote
from sharpstudent.tasks.deepfake.prepare.assemble import assemble
from sharpstudent.tasks.deepfake.prepare.crop_clip import VERSION, ClipCropper
from sharpstudent.tasks.deepfake.prepare.pool import IsolatedWork, Lost, WorkerPool
from sharpstudent.tasks.deepfake.prepare.progress import ClipProgress, Counts, describe_counts, describe_next
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request

Find = Callable[..., tuple[str, Found]]


def run_preparation(
    request: Request,
    console: Console,
    *,
    find: Find = find_clips,
    build_cropper: Callable[[CropSettings], finished.Cropper] = ClipCropper,
    for_training: bool = True,
) -> Counts:
    """Make the prepared set of request.source in request.dest, and print a summary.

    Args:
        request: What the user asked for.
        console: Where it is printed.
        find: Finds the clips.
        build_cropper: Makes what crops them; tests give another one.
        for_training: Print the splits, and the commands that come next.

    Returns:
        What was counted.

    Raises:
        UserError: For what the user can fix.
        RunInterrupted: For Ctrl-C and SIGTERM.
    """

    def say(line: str) -> None:
        print_line(console, line)

    request, work = remote.open_work(request)
    with stop_signals_raised(), remote.stand_ins(request, work, console) as (source, dest):
        destination.check_places(request.source, request.dest)
        lock = lock_folder(request.dest, say, doing="prepared") if request.dest.is_dir() else None
        people = {} if request.people is None else {"people": request.people}
        layout, found = find(request.source, layout=request.layout, label=request.label, **people)
        for note in (f"{request.shown_source}: {layout}, {describe_kinds(found.clips)}", *found.notes):
            say(note)
        make_folder(request.dest)
        lock = lock or lock_folder(request.dest, say, doing="prepared")
        try:
            counts = _Preparation(request, layout, found, console, (source, dest)).run(build_cropper)
        finally:
            if lock is not None:
                lock.release()
    shown = counts if for_training else replace(counts, by_split={})
    for line in (*describe_counts(shown), *(describe_next(request.shown_dest) if for_training else ())):
        say(line)
    return counts


_Done = finished.ClipDone | finished.Carried
_Pool = WorkerPool[finished.Job, _Done] | RayPool[finished.Job, _Done | Lost]
_Stored = tuple[remote.StoredSource | None, remote.StoredSet | None]


def _work_on_node(
    build: Callable[[], Callable[[finished.Job], _Done]], timeout_s: float, places: Sequence[Path]
) -> IsolatedWork[finished.Job, _Done]:
    """Make what crops clips on a node of a Ray cluster. Raises UserError where it does not see SOURCE and DEST."""
    for place in places:
        if not place.exists():
            raise UserError.about(
                "--ray",
                "a node does not see what this one sees",
                expected="SOURCE and DEST under the same paths on every node",
                got=f"{platform.node()} has no {printable(str(place))}",
                remedy="put both on a disk that all nodes share",
            )
    return IsolatedWork(build, timeout_s=timeout_s)


class _Preparation:
    """One run of the preparation: the wanted set, and which part of it is finished."""

    def __init__(
        self, request: Request, layout: str, found: Found, console: Console, stored: _Stored = (None, None)
    ) -> None:
        """List the clips of the wanted set, and compute the digest of the set.

        Args:
            request: What the user asked for.
            layout: The name of the source's layout.
            found: Its clips.
            console: Where progress is shown, and lines are printed.
            stored: SOURCE and DEST where they lie in a storage.
        """
        self._request, self._dest, self._console = request, request.dest, console
        self._say = functools.partial(print_line, console)
        self._stored_source, self._stored_set = stored
        self._root = found.root if request.source.is_file() else request.source
        self._settings = request.describe(layout)
        self._jobs = [
            finished.Job(
                clip,
                parts.compute_fingerprint(clip, request.crop, self._root, version=VERSION),
                () if self._stored_source is None else self._stored_source.list_stored(clip),
            )
            for clip in sorted(found.clips, key=lambda clip: clip.key)
        ]
        self._rejected = [finished.hide_roots(rejection, self._root) for rejection in found.rejected]
        check_keys([job.clip for job in self._jobs])
        self._digest = finished.compute_digest(self._settings, self._jobs, self._rejected)

    def run(self, build_cropper: Callable[[CropSettings], finished.Cropper]) -> Counts:
        """Do what is missing, and return what was counted."""
        request, dest = self._request, self._dest
        before = finished.read_finished(dest)
        if before is not None and self._is_unchanged(before) and self._is_complete():
            but = f", but {destination.COLUMNS}" if self._write_columns() else ""
            self._say(f"everything is done already: nothing was changed{but}")
            self._remove_other_form(before.shards)
            return before.counts
        destination.check_settings(dest, self._settings, overwrite=request.overwrite, say=self._say)
        gone = self._find_gone()
        destination.check_gone(dest, gone, overwrite=request.overwrite)
        destination.remove_strays(dest)
        if self._stored_set is not None:
            self._stored_set.fetch_rest()
        if before is not None:  # without a finished set the crops are loose files already
            settings = (destination.read_preparation(dest) or {"settings": {}})["settings"]
            packing.unpack(dest, settings.get("picture", "png"), self._say)
        packing.remove(dest / finished.FINISHED)
        destination.write_preparation(dest, self._settings, None)
        with ClipProgress(self._console, len(self._jobs)) as progress:
            jobs = [job for job in self._jobs if not self._is_done(job, lambda: progress.tick("checking what is done"))]
        if jobs:
            check_models([job.clip for job in jobs])
        self._remove_stale(gone, jobs)
        self._crop_clips(jobs, build_cropper)
        return self._assemble()

    def _is_unchanged(self, before: finished.Finished) -> bool:
        request, shortest = self._request, before.shortest_timeout
        has_time = shortest is None or shortest >= request.clip_timeout
        return before.digest == self._digest and has_time and not request.retry

    def _is_complete(self) -> bool:
        return finished.is_complete(self._dest) or (self._stored_set is not None and self._stored_set.is_complete)

    def _find_gone(self) -> list[Path]:
        """Find parts of clips that the source no longer has."""
        wanted = {parts.find_part_file(self._dest, job.clip.key) for job in self._jobs}
        return sorted(path for path in (self._dest / parts.PARTS).glob("*.arrow") if path not in wanted)

    def _is_done(self, job: finished.Job, tick: Callable[[], None]) -> bool:
        tick()
        try:
            part = parts.StoredPart(self._dest, job.clip.key)
            about = part.about
            if about.fingerprint != job.fingerprint or (about.broken is not None and self._request.retry):
                return False
            if about.clip_timeout is not None and about.clip_timeout < self._request.clip_timeout:
                return False  # it exceeded the time limit, which is longer now
            if not part.has_its_crops(self._dest):
                return False
            part.update_clip(self._dest, job.clip)
            return True
        except UnreadableSample:
            return False

    def _remove_stale(self, gone: Sequence[Path], jobs: Sequence[finished.Job]) -> None:
        """Remove parts and crops that are no longer valid, but first the manifest, which names them."""
        stale = [path for job in jobs if (path := parts.find_part_file(self._dest, job.clip.key)).exists()]
        if stale or gone:
            packing.remove(self._dest / MANIFEST)
        for path in (*stale, *gone):
            packing.remove(path)
        parts.clear_other_crops(self._dest, frozenset(job.clip.key for job in self._jobs))

    def _crop_clips(
        self, jobs: Sequence[finished.Job], build_cropper: Callable[[CropSettings], finished.Cropper]
    ) -> None:
        if not jobs:
            return
        request, dest = self._request, self._dest
        done_before = len(self._jobs) - len(jobs)
        if done_before:
            self._say(f"{format_count_of(done_before, 'clip')} finished already, {len(jobs):,} left")
        build = functools.partial(
            finished.ClipWorker, dest, self._root, request.crop, build_cropper, self._stored_source
        )
        with ClipProgress(self._console, len(jobs)) as progress, self._choose_pool(build) as pool:
            for job, result in pool.run(jobs, progress.tick):
                if isinstance(result, finished.Carried):
                    parts.write_carried(dest, job.clip.key, result.files)
                    result = result.done
                done = self._record_lost(job, result) if isinstance(result, Lost) else result
                progress.add_clip(faces=done.faces, rejected=done.rejected, frames=done.frames_read)

    def _choose_pool(self, build: Callable[[], finished.ClipWorker]) -> _Pool:
        request = self._request
        if request.ray is None:
            return WorkerPool(build, request.workers, timeout_s=request.clip_timeout)
        places = [self._root] if self._stored_source is None else []
        on_node: Callable[[], Callable[[finished.Job], _Done]] = build
        if self._stored_set is None:
            places.append(request.dest / destination.PREPARATION)
        else:
            on_node = functools.partial(finished.CarryingWorker, build, self._stored_set.clips)
        work = functools.partial(_work_on_node, on_node, request.clip_timeout, places)
        return RayPool(work, request.ray, count=request.workers, say=self._say)

    def _record_lost(self, job: finished.Job, lost: Lost) -> finished.ClipDone:
        """Record a clip whose worker was lost, unless it had finished the clip just before."""
        with contextlib.suppress(UnreadableSample):
            part = parts.StoredPart(self._dest, job.clip.key)
            if part.about.fingerprint == job.fingerprint and part.has_its_crops(self._dest):
                rejected = sum(not one.is_used for one in part.about.rejected)
                return finished.ClipDone(len(part.rows), rejected, part.about.frames_read)
        request = self._request
        timeout = request.clip_timeout if lost.how == "too slow" else None
        parts.write_broken_part(self._dest, finished.build_broken_part(job, lost.how, lost.reason, self._root, timeout))
        return finished.ClipDone(0, 1, 0)

    def _assemble(self) -> Counts:
        dest = self._dest
        with ClipProgress(self._console, len(self._jobs)) as progress:
            made = assemble(
                dest,
                [job.clip for job in self._jobs],
                self._rejected,
                request=self._request,
                settings=self._settings,
                digest=self._digest,
                tick=progress.tick,
            )
        self._write_columns()
        destination.write_preparation(dest, self._settings, asdict(made.counts))
        finished.write_finished(dest, made)
        self._remove_other_form(made.shards)
        return made.counts

    def _write_columns(self) -> bool:
        """Write what the user's table says besides, or remove what it no longer says; return whether that was needed.

        It decides no crop and no row, so a set stays finished without it.
        """
        text, path = destination.render_columns([job.clip for job in self._jobs]), self._dest / destination.COLUMNS
        if destination.has_columns(self._dest, text):
            return False
        if text is None:
            packing.remove(path)
        else:
            write_text_atomically(path, text)
        return True

    def _remove_other_form(self, shards: int) -> None:
        """Remove the other form of the crops; a kill in the middle leaves the rest to the next run."""
        if shards:
            packing.remove_loose(self._dest)
        packing.remove_other_shards(self._dest, keep=shards)


def describe_kinds(clips: Sequence[RawClip]) -> str:
    """Count the clips in words, such as `3 videos, 12 photos`."""
    count = Counter("clip" if clip.kind in ("frames", "crops") else clip.kind for clip in clips)
    return ", ".join(format_count_of(count[kind], kind) for kind in ("video", "photo", "clip") if count[kind])


def check_keys(clips: Sequence[RawClip]) -> None:
    """Raise ValueError, a layout's defect, for a clip whose crops would lie outside DEST or over another's."""
    for clip in clips:
        if {"", ".", ".."} & set(clip.key.split("/")) or "\0" in clip.key or clip.key.startswith("/"):
            raise ValueError(f"clip {clip.key!r}: its key is no relative path")
    if len({clip.key for clip in clips}) < len(clips):
        raise ValueError("two clips have the same key")


def check_models(clips: Sequence[RawClip]) -> None:
    """Raise UserError where a face model is missing and one of these clips brings no landmarks."""
    from sharpstudent.tasks.deepfake.sources.face_crops import check_model_files

    if any(clip.file is not None or any(frame.landmarks is None for frame in clip.frames) for clip in clips):
        check_model_files()
