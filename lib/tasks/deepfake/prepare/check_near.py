"""Near copies: crops of two clips that show the same picture, in two splits or with different labels.

Near hashes propose pairs of clips, the pixels of their nearest faces decide. A fake resembles the real clip that it
was made of: where the two share their group of people and their split, nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.duplicates import NearPairs
from lib.tasks.deepfake.prepare.check_columns import UNUSED, Codes, Faces
from lib.tasks.deepfake.prepare.check_finding import EXAMPLES, Finding, Findings, count_of
from lib.tasks.deepfake.prepare.check_lookalike import ALIKE, Lookalikes
from lib.tasks.deepfake.prepare.check_nearest import NearestPairs

# Bits of 64. Over 244 photos of 142 people, 28 of 29,544 pairs of different people are this near: too many for a large
# set, but none of them is ALIKE as well (at most 0.75). Found by both: all copies at JPEG quality 20, 95 % of those at
# half the size, 89 % at a third and quality 40; and 49 of 102 pairs of one person, once neutral, once smiling. Farther
# hashes would cost four times the search and bring 3 % more of the smaller copies.
DISTANCE = 8
MOST_LOOKED = 3_000  # pairs of clips whose pixels are compared, the nearest first; a minute or so
MOST_COUNTED = 300  # of those within one split and label


@dataclass(frozen=True)
class _Kind:
    """How the two of a pair differ, and what that means."""

    where: str
    remedy: str


_SPLITS = _Kind(
    "in two splits",
    "the same scene on both sides of a split makes the score too good: leave one of the two clips out",
)
_LABELS = _Kind(
    "with different labels",
    "one of the two labels may be wrong: look at both; a fake and its original should name the same person",
)


def check_near(faces: Faces, content: Codes, *, full: bool) -> Findings:
    """content: numbers of equal crops, which are not looked at again here."""
    rows = _choose_rows(faces)
    search = NearPairs(faces.phash[rows], DISTANCE)
    lookalikes = Lookalikes(faces)
    found: list[Finding] = []
    notes: list[str] = []
    for kind, pairs in zip((_SPLITS, _LABELS, None), _collect(faces, content, rows, search), strict=True):
        most = MOST_COUNTED if kind is None else len(pairs) if full else MOST_LOOKED
        alike = list(_find_alike(lookalikes, pairs, most))
        if kind is None:
            notes += _count_within(len(alike), min(most, len(pairs)), len(pairs))
            continue
        if alike:
            what = f"{count_of(len(alike), 'pair of clips looks', 'pairs of clips look')} the same {kind.where}"
            examples = [
                f"{faces.name_of(a)} ~ {faces.name_of(b)}: {share:.0%} alike" for a, b, share in alike[:EXAMPLES]
            ]
            found.append(Finding(what, len(alike), examples, kind.remedy))
        if len(pairs) > most:
            notes.append(
                f"of {len(pairs):,} pairs of clips with near hashes {kind.where}, the nearest {most:,} were looked at"
            )
        if pairs.has_forgotten:
            notes.append(f"there were more pairs of clips with near hashes {kind.where} than {len(pairs):,}")
    if search.left_out:
        notes.append(f"{search.left_out:,} faces share their hash with more than 64 others: not all were compared")
    if not search.complete:
        notes.append("there are too many near hashes to find all of them: near copies may be missing here")
    return Findings(tuple(found), tuple(notes))


def _choose_rows(faces: Faces) -> NDArray[np.int64]:
    """One row a hash, clip, split and label; of equal hashes those come first that differ in split or label."""
    used = np.flatnonzero(faces.split != UNUSED)
    kind = faces.split[used] * 2 + faces.label[used]
    order = np.lexsort((faces.clip[used], kind, faces.phash[used]))
    used, kind = used[order], kind[order]
    hashes, clips = faces.phash[used], faces.clip[used]
    new_kind = np.append(True, (hashes[1:] != hashes[:-1]) | (kind[1:] != kind[:-1]))[: len(used)]
    new = new_kind | np.append(True, clips[1:] != clips[:-1])[: len(used)]
    used, new_kind = used[new], new_kind[new]
    places = np.arange(len(used))
    rank = places - np.maximum.accumulate(np.where(new_kind, places, 0))
    return used[np.argsort(rank, kind="stable")]


def _collect(
    faces: Faces, content: Codes, rows: NDArray[np.int64], search: NearPairs
) -> tuple[NearestPairs, NearestPairs, NearestPairs]:
    """The pairs that cross splits; those that cross labels only; those of other people that cross neither."""
    across_splits, across_labels, within = (NearestPairs(faces) for _ in range(3))
    for pairs in search:
        one, two = rows[pairs[:, 0]], rows[pairs[:, 1]]
        others = (faces.clip[one] != faces.clip[two]) & (content[one] != content[two])
        one, two = one[others], two[others]
        splits_differ = faces.split[one] != faces.split[two]
        labels_differ = faces.label[one] != faces.label[two]
        unrelated = faces.group[one] != faces.group[two]
        across_splits.add(one[splits_differ], two[splits_differ])
        chosen = ~splits_differ & labels_differ & unrelated
        across_labels.add(one[chosen], two[chosen])
        chosen = ~splits_differ & ~labels_differ & unrelated
        within.add(one[chosen], two[chosen])
    for kept in (across_splits, across_labels, within):
        kept.sort()
    return across_splits, across_labels, within


def _find_alike(lookalikes: Lookalikes, pairs: NearestPairs, most: int) -> Iterator[tuple[int, int, float]]:
    """Of the nearest `most` pairs those that show the same picture, with their correlation."""
    for one, two in zip(pairs.one[:most].tolist(), pairs.two[:most].tolist(), strict=True):
        alike = lookalikes.compare(one, two)
        if alike is not None and alike >= ALIKE:
            yield one, two, alike


def _count_within(alike: int, looked: int, near: int) -> Iterator[str]:
    if alike:
        of = "" if looked == near else f" ({looked:,} of {near:,} with near hashes were looked at)"
        yield f"{count_of(alike, 'pair of clips', 'pairs of clips')} within one split and label look the same{of}"
