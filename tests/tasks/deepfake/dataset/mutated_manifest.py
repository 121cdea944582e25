"""Run as a program: mutated_manifest.py MANIFEST COUNT opens so many damaged copies of it and reads every row.

Prints how many were refused, how many had unreadable rows, and how many read well; fails when damage that changed a
row passes `verify`.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[4]), str(Path(__file__).resolve().parent)]

from made_rows import describe_row
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, Manifest


def mutate(whole: bytes, rng: np.random.Generator) -> bytes:
    """A few bits flipped, or some bytes set to an extreme; half of the time in the footer, where the layout stands."""
    content = bytearray(whole)
    start = len(whole) - 6000 if rng.random() < 0.5 else 0
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(start, len(whole)))
        if rng.random() < 0.5:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            content[place : place + 4] = bytes([int(rng.choice([0, 127, 128, 255]))]) * 4
    return bytes(content[: len(whole)])


def read(path: Path, good: list[object]) -> int:
    """0: refused, 1: some rows unreadable, 2: all read."""
    try:
        manifest = Manifest.open(path)
    except UserError:
        return 0
    is_whole, rows = True, []
    for index in range(len(manifest)):
        try:
            rows.append(describe_row(manifest.face(index)))
        except UnreadableSample:
            is_whole = False
    with contextlib.suppress(UserError):
        for name in ("path", "label", "landmarks", "box_xyxy"):
            len(manifest.column(name))
    try:
        manifest.verify()
    except UserError:
        return 2 if is_whole else 1
    assert rows == good, "verify let damage pass"
    assert [len(manifest.rows_of(split)) for split in SPLITS] == [8, 7, 8, 7]
    return 2


if __name__ == "__main__":
    original = Path(sys.argv[1])
    whole, seen = original.read_bytes(), [0, 0, 0]
    good: list[object] = [describe_row(row) for row in Manifest.open(original)]
    for seed in range(int(sys.argv[2])):
        copy = original.with_name(f"{seed}.arrow")
        copy.write_bytes(mutate(whole, np.random.default_rng(seed)))
        seen[read(copy, good)] += 1
        copy.unlink()
    print(*seen)
