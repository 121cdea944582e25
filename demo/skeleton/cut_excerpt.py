"""Cuts the demo's excerpt out of UI-PRMD: four repetitions of each movement and person, every second frame.

    python demo/skeleton/cut_excerpt.py FOLDER

FOLDER holds ui_prmd_kinect.npz and index.csv, as docs/skeleton.md describes them.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv

HERE = Path(__file__).resolve().parent
REPETITIONS, STEP = 4, 2


def main() -> None:
    source = Path(sys.argv[1])
    arrays = dict(np.load(source / "ui_prmd_kinect.npz", allow_pickle=False))
    rows = list(csv.DictReader((source / "index.csv").read_text().splitlines()))
    parts, kept, ends = [], [], [0]
    for number, row in enumerate(rows):
        if int(row["repetition"]) <= REPETITIONS:
            start, end = arrays["offsets"][number : number + 2]
            parts.append(arrays["xyz_mm"][start:end:STEP])
            ends.append(ends[-1] + len(parts[-1]))
            kept.append({**row, "frames": len(parts[-1])})
    np.savez_compressed(
        HERE / "ui_prmd_kinect.npz",
        xyz_mm=np.concatenate(parts),
        offsets=np.array(ends, np.int32),
        joints=arrays["joints"],
        parents=arrays["parents"],
    )
    write_text_atomically(HERE / "index.csv", format_csv([list(kept[0]), *(list(row.values()) for row in kept)]))


if __name__ == "__main__":
    main()
