"""Run as a program: mutated_manifest.py MANIFEST COUNT opens so many damaged copies of it and reads every row.

Prints how many were refused, and how many were opened; fails when one that was opened holds a changed row.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[4]), str(Path(__file__).resolve().parent)]

from made_rows import describe_row
from sharpstudent.core.errors import UserError
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


def is_refused(path: Path, good: list[object]) -> bool:
    """Whether the file is refused; one that opens must hold what was written."""
    try:
        manifest = Manifest.open(path)
    except UserError:
        return True
    assert [describe_row(manifest.face(index)) for index in range(len(manifest))] == good, "damage was let pass"
    assert [len(manifest.rows_of(split)) for split in SPLITS] == [8, 7, 8, 7]
    for name in ("path", "label", "landmarks", "box_xyxy"):
        assert len(manifest.column(name)) == len(good)
    return False


if __name__ == "__main__":
    original = Path(sys.argv[1])
    whole, seen = original.read_bytes(), {True: 0, False: 0}
    good: list[object] = [describe_row(row) for row in Manifest.open(original)]
    for seed in range(int(sys.argv[2])):
        copy = original.with_name(f"{seed}.arrow")
        copy.write_bytes(mutate(whole, np.random.default_rng(seed)))
        seen[is_refused(copy, good)] += 1
        copy.unlink()
    print(seen[True], seen[False])
