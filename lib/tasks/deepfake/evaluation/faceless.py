"""Frames of a prepared set in which no face was found: its manifest has no row of them, the clips' parts name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.data.items import UnreadableItem
from lib.data.manifest import SPLITS
from lib.tasks.deepfake.evaluation.manifest_rows import ManifestRows
from lib.tasks.deepfake.prepare.parts import PARTS, Part, find_part_file, read_part

EMPTY = "the clip has no frames"


@dataclass(frozen=True)
class FacelessFrame:
    """label: real 0, fake 1, None where nobody kept it; the others as in `FrameColumns`."""

    clip_id: str
    frame_index: int
    reason: str
    label: int | None
    group: str
    manipulation: str


@dataclass(frozen=True)
class Faceless:
    """The frames, and lines to be said of them."""

    frames: tuple[FacelessFrame, ...]
    notes: tuple[str, ...]


def find_faceless(folder: Path, rows: ManifestRows, split: str, *, has_row: Callable[[str, int], bool]) -> Faceless:
    """The frames without a face of the clips of a split ("all": of every clip). folder: the manifest's; has_row:
    whether a frame of a clip, by its number, has a row.

    A clip with rows is in their split. One without any goes where its person is, if that is one split, else where all
    rows are, if that is one split; else only "all" counts it, and a note says how many were passed over. Such a clip is
    one frame where nothing of it could be read.
    """
    if not (folder / PARTS).is_dir():
        return Faceless((), (f"no {PARTS}/ beside the manifest: frames without a face are not known, nor counted",))
    clips = _Clips(rows)
    frames: list[FacelessFrame] = []
    unread = homeless = 0
    for path in clips.list_parts(folder, split):
        try:
            _, part = read_part(path)
        except UnreadableItem:
            unread += 1
            continue
        where = clips.find_split(part)
        if split != "all" and where is None:
            homeless += 1
        elif split in ("all", where):
            frames.extend(clips.list_frames(part, has_row))
    notes = [
        f"{count:,} {text}"
        for count, text in (
            (unread, f"files in {PARTS}/ cannot be read: frames without a face of their clips are not counted"),
            (homeless, "clips without any face belong to no known split: not counted (--split all counts them)"),
            (
                len({frame.clip_id for frame in frames if frame.label is None}),
                "clips without any face were prepared before labels of such were kept: counted without one",
            ),
        )
        if count
    ]
    return Faceless(tuple(frames), tuple(notes))


class _Clips:
    """Whose the clips are, and where."""

    def __init__(self, rows: ManifestRows) -> None:
        self._rows = rows
        self._row_of = rows.find_first_of_clips()
        self._splits_of_person: dict[str, set[str]] = {}
        self._group_of_person: dict[str, str] = {}
        for row in self._row_of.values():
            person = rows.people.names[rows.people.codes[row]]
            self._splits_of_person.setdefault(person, set()).add(rows.find_split(row))
            self._group_of_person.setdefault(person, rows.groups.names[rows.groups.codes[row]])
        ends = (0, *rows.split_ends)
        self._used = [split for split, start, end in zip(SPLITS, ends, ends[1:], strict=False) if end > start]

    def list_parts(self, folder: Path, split: str) -> list[Path]:
        """All parts but those that are known to be of another split: each costs the opening of a file."""
        others: set[Path] = set()
        if split != "all":
            rows = self._rows
            others = {find_part_file(folder, key) for key, row in self._row_of.items() if rows.find_split(row) != split}
        return sorted(path for path in (folder / PARTS).glob("*.arrow") if path not in others)

    def find_split(self, part: Part) -> str | None:
        row = self._row_of.get(part.key)
        if row is not None:
            return self._rows.find_split(row)
        known = self._splits_of_person.get(part.identity, set(self._used))
        return next(iter(known)) if len(known) == 1 else None

    def list_frames(self, part: Part, has_row: Callable[[str, int], bool]) -> Iterator[FacelessFrame]:
        """Each frame once, with the first reason against it. What is said of a frame with a face is a remark only."""
        row = self._row_of.get(part.key)
        reasons: dict[int, str] = {}
        for item in part.rejected:
            if item.frame is not None or row is None:
                reasons.setdefault(item.frame or 0, item.reason)
        if row is None and not reasons:
            reasons[0] = EMPTY
        for index, reason in sorted(reasons.items()):
            if row is None or not has_row(part.key, index):
                yield self._describe(part, row, index, reason)

    def _describe(self, part: Part, row: int | None, index: int, reason: str) -> FacelessFrame:
        rows = self._rows
        if row is None:
            group = self._group_of_person.get(part.identity, part.identity or part.key)
            return FacelessFrame(part.key, index, reason, part.label, group, part.manipulation)
        group, kind = (texts.names[texts.codes[row]] for texts in (rows.groups, rows.manipulations))
        return FacelessFrame(part.key, index, reason, int(rows.labels[row]), group, kind)
