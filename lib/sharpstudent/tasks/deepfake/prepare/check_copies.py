"""Checks the crops themselves, and finds exact copies.

A crop must be what was prepared, its landmarks must lie in it, and its face must not be too small. Exact copies are the
same bytes in two splits or with both labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.duplicates import find_mixed
from sharpstudent.tasks.deepfake.dataset.manifest import FaceRow
from sharpstudent.tasks.deepfake.dataset.shards import SHARD_SUFFIX, check_shard
from sharpstudent.tasks.deepfake.prepare.check_columns import UNUSED, Codes, Faces, Finding, count_of, yield_finding
from sharpstudent.tasks.deepfake.sources.manifest import StoredCrop

MOST_READ = 20_000  # crops; about 5 minutes on a slow disk
MOST_DECODED = 500  # of those, to compare their sides with what the manifest says
SEED = 0  # every run of `check` draws the same crops
OUTSIDE_SHARE = 0.25  # of a face's landmarks may lie outside; a face at the frame's edge has some there
OUTSIDE_MARGIN = 2.0  # px
AGAIN = "prepare the set again: what is whole is kept"


def check_crops(faces: Faces, *, full: bool) -> Iterator[Finding | str]:
    """Read every crop of a small set, a sample of a large one; check every shard's headers and all landmarks.

    Args:
        faces: The set.
        full: Read every crop of a large set, too.

    Yields:
        Findings, and a note where only a sample was read.
    """
    rows = choose_sample(len(faces), len(faces) if full else MOST_READ)
    if len(rows) < len(faces):
        yield f"{len(rows):,} of {len(faces):,} crops were read, drawn by seed {SEED}"
    for findings in (
        _find_unusable(faces, rows),
        _find_unsound_shards(faces),
        _find_outside(faces),
        _find_small(faces),
    ):
        yield from findings


def choose_sample(count: int, most: int) -> NDArray[np.int64]:
    """Draw rows by the seed.

    Args:
        count: How many rows there are.
        most: How many may be drawn.

    Returns:
        int64, ascending; all rows where there are no more than `most`.
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def _find_unusable(faces: Faces, rows: NDArray[np.int64]) -> Iterator[Finding]:
    reasons: list[str] = []
    decoded = set(rows[choose_sample(len(rows), MOST_DECODED)].tolist())
    every = len(rows) == len(faces)
    for index, row in zip(rows.tolist(), faces.manifest if every else map(faces.row, rows), strict=True):
        try:
            if index in decoded:
                _check_sides(faces, row)
            else:
                faces.manifest.read_crop_of(row)
        except UnreadableSample as error:
            reasons.append(str(error))
    what = (
        f"{count_of(len(reasons), 'crop is', 'crops are')} missing or not what was prepared ({len(rows):,} were read)"
    )
    yield from yield_finding(what, len(reasons), reasons, f"is the folder whole, the disk sound? If so, {AGAIN}")


def _check_sides(faces: Faces, row: FaceRow) -> None:
    """Raise UnreadableSample where a crop is no picture or has other sides than the manifest says."""
    found = StoredCrop(faces.manifest, row).load().image.shape[1::-1]
    wanted = expect_sides(np.array([row.crop_xyxy]), np.array([row.scale]))[0]
    if (np.abs(found - wanted) > 1).any():
        reason = "is {} x {} px, the manifest says {:.0f} x {:.0f}".format(*found, *wanted)
        raise UnreadableSample(faces.manifest.name_of(row), reason)


def expect_sides(crop_xyxy: NDArray[np.generic], scale: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute the sides that stored crops should have.

    Args:
        crop_xyxy: (n, 4), what was cut out [px of the frame].
        scale: (n,), pixels of the crop for each pixel of the frame.

    Returns:
        Width and height (n, 2) [px].
    """
    corners = np.asarray(crop_xyxy, np.float64)
    return np.round((corners[:, 2:] - corners[:, :2]) * np.asarray(scale, np.float64)[:, None])


def _find_unsound_shards(faces: Faces) -> Iterator[Finding]:
    column: Any = faces.manifest.column("path")  # Arrow's, for texts
    examples: list[str] = []
    in_shards = pc.call_function("ends_with", [column], pc.MatchSubstringOptions(SHARD_SUFFIX))
    for name in column.filter(in_shards).unique().to_pylist():
        path = faces.manifest.folder / name
        if not path.is_file():  # its crops are named as missing; in a storage its digest says that it is as packed
            continue
        try:
            check_shard(path)
        except UserError as error:
            examples.append("; ".join(f"{name} {problem.what}: {problem.got}" for problem in error.problems))
    what = count_of(len(examples), "shard holds", "shards hold") + " more than crops, or is broken"
    yield from yield_finding(what, len(examples), examples, f"do not unpack it; {AGAIN}, with --shards")


def _find_outside(faces: Faces) -> Iterator[Finding]:
    shares = measure_outside(faces)
    wrong = np.flatnonzero(shares > OUTSIDE_SHARE)
    what = f"{count_of(len(wrong), 'face has its', 'faces have their')} landmarks outside the crop"
    examples = (f"{faces.name_of(i)}: {shares[i]:.0%} of the points" for i in wrong.tolist())
    remedy = "the landmarks belong to another picture or another size: mend the source's files and prepare it again"
    yield from yield_finding(what, len(wrong), examples, remedy)


def measure_outside(faces: Faces) -> NDArray[np.float64]:
    """Return the share of landmarks that lie outside their crop or are not finite, (n,)."""
    sides = expect_sides(np.asarray(faces.manifest.column("crop_xyxy")), np.asarray(faces.manifest.column("scale")))
    column: Any = faces.manifest.column("landmarks")  # Arrow's, for lists
    shares, done = np.zeros(len(faces)), 0
    for chunk in column.chunks:  # a million faces have 650 MB of landmarks
        lengths = chunk.value_lengths().to_numpy() // 2
        points = chunk.flatten().to_numpy().reshape(-1, 2)
        limits = np.repeat(sides[done : done + len(chunk)], lengths, axis=0)
        inside = ((points >= -OUTSIDE_MARGIN) & (points <= limits + OUTSIDE_MARGIN)).all(axis=1)  # False for NaN
        starts = np.cumsum(lengths) - lengths
        shares[done : done + len(chunk)] = 1 - np.add.reduceat(inside.astype(np.float64), starts) / lengths
        done += len(chunk)
        faces.manifest.release()
    return shares


def _find_small(faces: Faces) -> Iterator[Finding]:
    least = faces.find_setting("min_face")
    if not isinstance(least, int | float):
        return
    small = np.flatnonzero(~(faces.face_size >= least))  # NaN too
    what = f"{count_of(len(small), 'face is', 'faces are')} smaller than the {least:g} px that were asked for"
    examples = (f"{faces.name_of(i)}: {faces.face_size[i]:.0f} px" for i in small.tolist())
    remedy = "prepare the set again, or with a lower --min-face if they are wanted"
    yield from yield_finding(what, len(small), examples, remedy)


MOST_COMPARED = 2_000  # pictures whose copies are compared byte by byte


def encode_content(faces: Faces) -> Codes:
    """Number the crops by crc32 and size, (n,): those that may have the same bytes share a number."""
    crc32 = np.asarray(faces.manifest.column("crc32")).astype(np.uint64)
    size = np.asarray(faces.manifest.column("size")).astype(np.uint64)
    return np.unique(size << np.uint64(32) | crc32, return_inverse=True)[1]


def check_copies(faces: Faces, content: Codes, *, full: bool) -> Iterator[Finding | str]:
    """Find crops with the same bytes in two splits or with both labels.

    Equal frames of one clip are no copies; rows of no split are left out.

    Args:
        faces: The set.
        content: The numbers from `encode_content`.
        full: Compare the bytes of all candidates of a large set, too.

    Yields:
        Findings and notes.
    """
    used = np.flatnonzero(faces.split != UNUSED)
    crossing = np.zeros(0, np.int64)
    for kinds, where, remedy in ((faces.split, "in two splits", _LEAK), (faces.label, "with both labels", _LABEL)):
        mixed = find_mixed(content[used], kinds[used])
        crossing = np.union1d(crossing, mixed)
        compared = mixed if full else mixed[:MOST_COMPARED]
        confirmed = [
            pair for pair in _find_pairs(faces, content, kinds, compared, used) if _have_same_bytes(faces, *pair)
        ]
        if len(compared) < len(mixed):
            yield f"of {len(mixed):,} pictures that seem to be {where}, {len(compared):,} were compared"
        what = f"{count_of(len(confirmed), 'picture is', 'pictures are')} {where}, byte for byte"
        examples = (f"{faces.name_of(one)} = {faces.name_of(two)}" for one, two in confirmed)
        yield from yield_finding(what, len(confirmed), examples, remedy)
    yield from _count_others(faces, content, crossing, used)


_LEAK = (
    "keep the copy of one split: leave the clip of the other one out of the source, or give both one person's folder"
)
_LABEL = "one of the two labels is wrong: find out which, and leave the other clip out of the source"


def _find_pairs(
    faces: Faces, content: Codes, kinds: Codes, codes: NDArray[np.int64], used: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield for each code two rows of different kinds and clips, where there are such."""
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
    except UnreadableSample:  # reported as a fault of its own
        return False


def _count_others(faces: Faces, content: Codes, crossing: Codes, used: NDArray[np.int64]) -> Iterator[str]:
    """Count copies within one split and label: they only give a picture more weight."""
    rows = used[~np.isin(content[used], crossing)]
    clips = int(faces.clip.max()) + 1
    by_clip = np.unique(content[rows] * clips + faces.clip[rows]) // clips  # equal crops of one clip count once
    extra = len(by_clip) - len(np.unique(by_clip))
    if extra:
        yield f"{count_of(extra, 'crop is an exact copy', 'crops are exact copies')} of one with its split and label"
