"""Finds near copies: crops of two clips that show the same picture, in two splits or with different labels.

Near hashes propose pairs of clips, and the pixels of their nearest faces decide. A fake resembles the real clip that it
was made from: where the two share their group of people and their split, nothing is wrong.

Among many faces of one kind of picture, some 64-bit hashes are near by chance. The pixels tell them from copies: two
copies, laid over one another by their landmarks, agree in details that are finer than the light on the face. The
nearest pair of faces of every pair of clips is collected from a stream of pairs in bounded memory.

Legend: n rows, k pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.duplicates import NearPairs
from sharpstudent.tasks.deepfake.prepare.check_columns import UNUSED, Codes, Faces, Finding, count_of, yield_finding
from sharpstudent.tasks.deepfake.sources.manifest import StoredCrop

SIDE = 64  # px of a face laid over another
# Where the centres of the right eye, the left eye and the mouth go, as shares of SIDE.
ANCHORS = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.75]])
ANCHOR_POINTS = (slice(36, 42), slice(42, 48), slice(48, 68))  # dlib's order
LIGHT = 4.0  # px; coarser changes of grey are taken for light on the face and removed
ALIKE = 0.8  # the least correlation of two copies; the comment on DISTANCE has the measurements


def read_face(faces: Faces, index: int) -> NDArray[np.float32] | None:
    """Read a row's face as a vector.

    Args:
        faces: The set.
        index: The row.

    Returns:
        The vector of `describe_face`; None where the crop cannot be read, which is a fault of its own.
    """
    row = faces.row(index)
    try:
        return describe_face(StoredCrop(faces.manifest, row).load().image, row.landmarks)
    except UnreadableSample:
        return None


def describe_face(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Describe a face as a vector of norm 1: turned upright, in grey, without the coarse changes that light makes.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) [px of the image].

    Returns:
        float32 (SIDE * SIDE,).
    """
    points = np.array([landmarks[part].mean(axis=0) for part in ANCHOR_POINTS], np.float64)
    turn = _fit_similarity(points, ANCHORS * SIDE)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = float(np.hypot(turn[0, 0], turn[0, 1]))
    if scale < 1:  # without the blur, scaling down would skip pixels
        grey = cv2.GaussianBlur(grey, (0, 0), 0.5 / max(scale, 0.02))
    upright = cv2.warpAffine(grey, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    fine = upright - cv2.GaussianBlur(upright, (0, 0), LIGHT)
    vector = fine.ravel() - fine.mean()
    return (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)


def _fit_similarity(points: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the turn, scale and shift (2, 3) that brings points (n, 2) nearest to targets (n, 2), least squares."""
    x, y = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, shift_x, shift_y = np.linalg.lstsq(rows, targets.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, shift_x], [b, a, shift_y]])


MOST_KEPT = 200_000  # pairs of clips


class NearestPairs:
    """The nearest pair of rows of each pair of clips.

    Attributes:
        one: int64 (k,), a row of each pair, in ascending distance of their hashes once `sort` was called.
        two: int64 (k,), the other row.
        has_forgotten: Whether there were more pairs of clips than are kept.
    """

    def __init__(self, faces: Faces) -> None:
        self._faces = faces
        self._waiting: list[tuple[Codes, Codes]] = []
        self.one = self.two = np.zeros(0, np.int64)
        self.has_forgotten = False

    def __len__(self) -> int:
        return len(self.one)

    def add(self, one: Codes, two: Codes) -> None:
        """Add pairs of rows.

        Args:
            one: int64 (k,), a row of each pair.
            two: int64 (k,), the other row.
        """
        self._waiting.append((one, two))
        if sum(len(rows) for rows, _ in self._waiting) > 2 * MOST_KEPT:
            self.sort()

    def sort(self) -> None:
        """Keep the nearest pair of each two clips, the nearest `MOST_KEPT` of them, in order."""
        one = np.concatenate([self.one, *(rows for rows, _ in self._waiting)])
        two = np.concatenate([self.two, *(rows for _, rows in self._waiting)])
        self._waiting = []
        distance = np.bitwise_count(self._faces.phash[one] ^ self._faces.phash[two])
        clips = np.sort(np.stack([self._faces.clip[one], self._faces.clip[two]]), axis=0)
        order = np.lexsort((two, one, distance, clips[1], clips[0]))
        is_new = np.append(True, (clips[:, order[1:]] != clips[:, order[:-1]]).any(axis=0))[: len(order)]
        order = order[is_new]
        order = order[np.lexsort((two[order], one[order], distance[order]))]
        self.has_forgotten |= len(order) > MOST_KEPT
        self.one, self.two = one[order[:MOST_KEPT]], two[order[:MOST_KEPT]]


# Bits of 64. Over 244 photos of 142 people, 28 of 29,544 pairs of different people are this near: too many for a large
# set, but none of them is ALIKE as well (at most 0.75). Found by both: all copies at JPEG quality 20, 95 % of those at
# half the size, 89 % at a third and quality 40; and 49 of 102 pairs of one person, once neutral, once smiling. Farther
# hashes would cost four times the search and bring 3 % more of the smaller copies.
DISTANCE = 8
MOST_COMPARED = 3_000  # pairs of clips whose pixels are compared, the nearest first; a minute or so
MOST_COUNTED = 300  # of those within one split and label


# How the two clips of a pair differ, and the remedy; pairs of the third kind do not differ, and are only counted.
KINDS = (
    (
        "in two splits",
        "the same scene on both sides of a split makes the score too good: leave one of the two clips out",
    ),
    (
        "with different labels",
        "one of the two labels may be wrong: look at both; a fake and its original should name the same person",
    ),
    ("within one split and label", ""),
)


def check_near(faces: Faces, content: Codes, *, full: bool) -> Iterator[Finding | str]:
    """Find clips that show the same picture in two splits or with different labels.

    Args:
        faces: The set.
        content: Numbers of equal crops, which are not compared again here.
        full: Compare the pixels of all candidates, however many.

    Yields:
        Findings and notes.
    """
    rows = _choose_rows(faces)
    search = NearPairs(faces.phash[rows], DISTANCE)
    read = lru_cache(maxsize=1024)(partial(read_face, faces))
    for (where, remedy), pairs in zip(KINDS, _collect(faces, content, rows, search), strict=True):
        most = MOST_COUNTED if not remedy else len(pairs) if full else MOST_COMPARED
        alike = list(_find_alike(read, pairs, most))
        if not remedy:
            yield from _count_within(len(alike), min(most, len(pairs)), len(pairs))
            continue
        what = f"{count_of(len(alike), 'pair of clips looks', 'pairs of clips look')} the same {where}"
        examples = (f"{faces.name_of(a)} ~ {faces.name_of(b)}: {share:.0%} alike" for a, b, share in alike)
        yield from yield_finding(what, len(alike), examples, remedy)
        if len(pairs) > most:
            yield f"of {len(pairs):,} pairs of clips with near hashes {where}, the nearest {most:,} were compared"
        if pairs.has_forgotten:
            yield f"there were more pairs of clips with near hashes {where} than {len(pairs):,}"
    if search.left_out:
        yield f"{search.left_out:,} faces share their hash with more than 64 others: not all were compared"
    if not search.complete:
        yield "there are too many near hashes to find all of them: near copies may be missing here"


def _choose_rows(faces: Faces) -> NDArray[np.int64]:
    """Return one row a hash, clip, split and label; of equal hashes those that differ in split or label come first."""
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


def _collect(faces: Faces, content: Codes, rows: NDArray[np.int64], search: NearPairs) -> tuple[NearestPairs, ...]:
    """Collect pairs of rows in three kinds.

    They are the pairs that cross splits, those that cross labels only, and those of other people that cross neither.
    """
    kinds = (NearestPairs(faces), NearestPairs(faces), NearestPairs(faces))
    for pairs in search:
        one, two = rows[pairs[:, 0]], rows[pairs[:, 1]]
        others = (faces.clip[one] != faces.clip[two]) & (content[one] != content[two])
        one, two = one[others], two[others]
        splits_differ = faces.split[one] != faces.split[two]
        labels_differ = faces.label[one] != faces.label[two]
        unrelated = ~splits_differ & (faces.group[one] != faces.group[two])
        for kind, chosen in zip(
            kinds, (splits_differ, unrelated & labels_differ, unrelated & ~labels_differ), strict=True
        ):
            kind.add(one[chosen], two[chosen])
    for kind in kinds:
        kind.sort()
    return kinds


def _find_alike(
    read: Callable[[int], NDArray[np.float32] | None], pairs: NearestPairs, most: int
) -> Iterator[tuple[int, int, float]]:
    """Yield those of the nearest `most` pairs that show the same picture, with their correlation -1..1."""
    for one, two in zip(pairs.one[:most].tolist(), pairs.two[:most].tolist(), strict=True):
        first, second = read(one), read(two)
        if first is not None and second is not None and (alike := float(first @ second)) >= ALIKE:
            yield one, two, alike


def _count_within(alike: int, compared: int, near: int) -> Iterator[str]:
    if alike:
        of = "" if compared == near else f" ({compared:,} of {near:,} with near hashes were compared)"
        yield f"{count_of(alike, 'pair of clips', 'pairs of clips')} within one split and label look the same{of}"
