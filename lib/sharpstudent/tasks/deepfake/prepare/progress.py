"""Shows the progress of a preparation, and sums up its result.

A terminal gets a bar, a log gets a plain line now and then.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from sharpstudent.core.errors import format_count_of
from sharpstudent.report.console import LINE_SECONDS, WorkProgress, format_duration
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, SPLITS, describe_bystanders
from sharpstudent.tasks.deepfake.layouts.clip import Rejected
from sharpstudent.tasks.deepfake.prepare.destination import QUARANTINE


class ClipProgress(WorkProgress):
    """Shows clips done, frames a second, faces, rejected and time left; a last line sums up what was done."""

    def __init__(self, console: Console, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start to count.

        Args:
            console: Where it is shown.
            total: How many clips there are.
            clock: Returns the time [s].
        """
        super().__init__(console, "", total, "clip", first_seconds=LINE_SECONDS, clock=clock)
        self._faces = self._rejected = self._frames = 0
        self._doing = ""

    def __exit__(self, *error: Any) -> None:
        """Stop drawing, and print the last line where a clip is done."""
        super().__exit__(*error)
        self._doing = ""
        if self._done:
            self._print(self._describe(self._clock()))

    def add_clip(self, *, faces: int, rejected: int, frames: int) -> None:
        """Count one clip as done.

        Args:
            faces: The number of its faces.
            rejected: The number of its files and frames without a usable face.
            frames: The number of its frames that were read.
        """
        self._faces += faces
        self._rejected += rejected
        self._frames += frames
        self._doing = ""
        self.add()

    def tick(self, doing: str = "") -> None:
        """Draw, unless the last drawing was a moment ago; doing: the work after the last clip, in words."""
        self._doing = doing
        self._draw_if_due()

    def _describe(self, now: float) -> str:
        elapsed = now - self._started
        done = f"{self._done:,} of {self._total:,} clips done in {format_duration(elapsed)}"
        return self._doing or f"{done}, {self._describe_speed(elapsed)}"

    def _render(self, now: float, width: int) -> RenderableType:
        facts = self._doing or self._describe_speed(now - self._started)
        return Text(f"{self._describe_count()}, {facts}", style="dim")

    def _describe_speed(self, elapsed: float) -> str:
        left = elapsed / self._done * (self._total - self._done) if self._done else float("nan")
        return (
            f"{self._frames / max(elapsed, 1e-9):.1f} frames/s, {self._faces:,} faces, {self._rejected:,} rejected, "
            f"{format_duration(left)} left"
        )


SHOWN_REASONS, SHOWN_EXAMPLES = 12, 3
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass
class Counts:
    """What is counted while the parts are read.

    Attributes:
        clips: The number of clips.
        clips_with_face: The number of clips with at least one face.
        frames_read: The number of frames that were read.
        frames_with_face: The number of frames in which a face was found.
        faces: The number of faces that were kept.
        real: The number of these faces that are real.
        fake: The number of these faces that are fake.
        people: The number of people.
        by_split: The numbers of faces, clips and people of each split.
        reasons: By reason, with the numbers in it left out: how many files and frames it rejected, the reason in full,
            and the names of the first few.
        rejected: The number of files and frames without a usable face.
        remarks: The number of frames that are used with a remark.
        unsure_fakes: The number of fake clips that show several people and have no usable mask.
    """

    clips: int = 0
    clips_with_face: int = 0
    frames_read: int = 0
    frames_with_face: int = 0
    faces: int = 0
    real: int = 0
    fake: int = 0
    people: int = 0
    by_split: dict[str, list[int]] = field(default_factory=dict)
    reasons: dict[str, list[Any]] = field(default_factory=dict)
    rejected: int = 0
    remarks: int = 0
    unsure_fakes: int = 0

    def reject(self, rejection: Rejected) -> None:
        """Count a file or frame without a usable face, or one with a remark."""
        self.rejected += not rejection.is_used
        self.remarks += rejection.is_used
        name = rejection.source if rejection.frame is None else f"{rejection.source} frame {rejection.frame}"
        known = self.reasons.setdefault(_NUMBER.sub("N", rejection.reason), [0, rejection.reason, []])
        known[0] += 1
        if known[1] != rejection.reason:
            known[1] = _NUMBER.sub("N", rejection.reason)
        if len(known[2]) < SHOWN_EXAMPLES:
            known[2].append(name)

    def count_splits(self, clips: Iterable[tuple[str, str, int]]) -> None:
        """Count faces, clips and people by split.

        clips: split, identity and number of faces of each clip with a face.
        """
        faces: Counter[str] = Counter()
        number: Counter[str] = Counter()
        people: dict[str, set[str]] = {}
        for split, identity, count in clips:
            faces[split] += count
            number[split] += 1
            people.setdefault(split, set()).add(identity)
        self.by_split = {name: [faces[name], number[name], len(people[name])] for name in SPLITS if name in people}
        self.people = len(set().union(*people.values()))


def describe_counts(counts: Counts) -> list[str]:
    """Return the lines of a summary, without those that name places."""
    share = f" ({counts.frames_with_face / counts.frames_read:.1%})" if counts.frames_read else ""
    lines = [
        f"{counts.clips:,} clips or photos, {counts.clips_with_face:,} with a face; "
        f"{counts.frames_read:,} frames read, {counts.frames_with_face:,} with a face{share}",
        f"{counts.faces:,} faces ({counts.real:,} real, {counts.fake:,} fake) of "
        f"{format_count_of(counts.people, 'person')}",
    ]
    lines += [
        f"  {name:<5} {format_count_of(faces, 'face')} of {format_count_of(people, 'person')} in "
        f"{clips:,} {'clip or photo' if clips == 1 else 'clips or photos'}"
        for name, (faces, clips, people) in counts.by_split.items()
    ]
    return [*lines, *describe_reasons(counts), *describe_bystanders(counts.unsure_fakes)]


def describe_reasons(counts: Counts) -> list[str]:
    """Return lines of what was rejected, the most frequent reason first."""
    if not counts.rejected and not counts.remarks:
        return ["nothing was rejected"]
    reasons = sorted(counts.reasons.values(), key=lambda known: (-known[0], known[1]))
    remarks = f", {counts.remarks:,} used with a remark" if counts.remarks else ""
    lines = [f"{counts.rejected:,} rejected{remarks}, each named in {QUARANTINE}:"]
    for number, reason, names in reasons[:SHOWN_REASONS]:
        more = ", ..." if number > len(names) else ""
        lines.append(f"  {number:,} x {reason}: {', '.join(names)}{more}")
    if len(reasons) > SHOWN_REASONS:
        lines.append(f"  and {len(reasons) - SHOWN_REASONS} more reasons")
    return lines


def describe_next(dest: str) -> list[str]:
    """Return lines that name the manifest of DEST, as the user wrote it, and the two commands that come next."""
    name = shlex.quote(dest)
    train = "python train_student_only.py configs/config_SBI.json -n NAME --set data_source=manifest"
    return [
        f"manifest: {os.path.join(dest, MANIFEST)}",
        f"check it:   python prepare_faces.py check {name}",
        f"train on it: {train} --set {shlex.quote(f'data_root={dest}')}",
    ]
