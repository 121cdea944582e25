"""Exact copies: crops with the same bytes in two splits, or with both labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lib.data.duplicates import find_mixed
from lib.data.items import UnreadableItem
from lib.tasks.deepfake.prepare.check_columns import UNUSED, Codes, Faces
from lib.tasks.deepfake.prepare.check_finding import EXAMPLES, Finding, Findings, count_of

MOST_COMPARED = 2_000  # pictures whose copies are compared byte by byte


def encode_content(faces: Faces) -> Codes:
    """Crops that may have the same bytes share a number, (n,): by crc32 and size."""
    crc32 = np.asarray(faces.manifest.column("crc32")).astype(np.uint64)
    size = np.asarray(faces.manifest.column("size")).astype(np.uint64)
    return np.unique(size << np.uint64(32) | crc32, return_inverse=True)[1]


def check_copies(faces: Faces, content: Codes, *, full: bool) -> Findings:
    """content: from `encode_content`. Equal frames of one clip are no copies; rows of no split are left out."""
    used = np.flatnonzero(faces.split != UNUSED)
    found: list[Finding] = []
    notes: list[str] = []
    crossing = np.zeros(0, np.int64)
    for kinds, where, remedy in ((faces.split, "in two splits", _LEAK), (faces.label, "with both labels", _LABEL)):
        mixed = find_mixed(content[used], kinds[used])
        crossing = np.union1d(crossing, mixed)
        looked = mixed if full else mixed[:MOST_COMPARED]
        confirmed = [
            pair for pair in _find_pairs(faces, content, kinds, looked, used) if _have_same_bytes(faces, *pair)
        ]
        if len(looked) < len(mixed):
            notes.append(f"of {len(mixed):,} pictures that seem to be {where}, {len(looked):,} were compared")
        if confirmed:
            what = f"{count_of(len(confirmed), 'picture is', 'pictures are')} {where}, byte for byte"
            examples = [f"{faces.name_of(one)} = {faces.name_of(two)}" for one, two in confirmed[:EXAMPLES]]
            found.append(Finding(what, len(confirmed), examples, remedy))
    return Findings(tuple(found), (*notes, *_count_others(faces, content, crossing, used)))


_LEAK = (
    "keep the copy of one split: leave the clip of the other one out of the source, or give both one person's folder"
)
_LABEL = "one of the two labels is wrong: find out which, and leave the other clip out of the source"


def _find_pairs(
    faces: Faces, content: Codes, kinds: Codes, codes: NDArray[np.int64], used: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """For each code two rows of different kinds and clips, where there are such."""
    rows = used[np.isin(content[used], codes)]
    rows = rows[np.lexsort((kinds[rows], content[rows]))]
    ends = np.searchsorted(content[rows], codes, side="right")
    for start, end in zip(np.searchsorted(content[rows], codes), ends, strict=True):
        first, others = rows[start], rows[start:end]
        other = others[(kinds[others] != kinds[first]) & (faces.clip[others] != faces.clip[first])]
        if len(other):
            yield int(first), int(other[0])


def _have_same_bytes(faces: Faces, one: int, two: int) -> bool:
    try:
        return faces.manifest.read_crop(one) == faces.manifest.read_crop(two)
    except UnreadableItem:  # a fault of its own
        return False


def _count_others(faces: Faces, content: Codes, crossing: Codes, used: NDArray[np.int64]) -> Iterator[str]:
    """Copies within one split and label: they only give a picture more weight."""
    rows = used[~np.isin(content[used], crossing)]
    clips = int(faces.clip.max()) + 1
    by_clip = np.unique(content[rows] * clips + faces.clip[rows]) // clips  # a clip's own once
    extra = len(by_clip) - len(np.unique(by_clip))
    if extra:
        yield f"{count_of(extra, 'crop is an exact copy', 'crops are exact copies')} of one with its split and label"
