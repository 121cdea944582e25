"""Writes sequences of UI-PRMD as true `.skeleton` files with the 25 joints of NTU RGB+D.

    python demo/skeleton/write_ntu.py FOLDER [SOURCE]

SOURCE holds ui_prmd_kinect.npz and index.csv; by default it is the excerpt beside this file. Both are recordings of a
Kinect, so that the whole path of NTU RGB+D runs on real motion: names, official splits, parser, training, predict.py.
Wrists serve as hands, tips of hands and thumbs, which UI-PRMD lacks. Setup 1, camera 1; actions 1 to 20 are the classes
of the task, in their order. Positions stay in the frame of the Kinect, in metres.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.tasks.skeleton.ntu import SUFFIX, Name, write_skeleton

HERE = Path(__file__).resolve().parent
# The joint of uiprmd22 that each joint of ntu25 is taken from.
JOINTS = (0, 1, 3, 4, 7, 8, 9, 9, 11, 12, 13, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2, 9, 9, 13, 13)


def write_files(folder: Path, source: Path = HERE, *, most: int | None = None) -> int:
    """Write the sequences.

    Args:
        folder: Where the files go.
        source: The folder of the data.
        most: How many sequences are written at most; None for all.

    Returns:
        How many were written.
    """
    with np.load(source / "ui_prmd_kinect.npz", allow_pickle=False) as arrays:
        xyz, offsets = arrays["xyz_mm"], arrays["offsets"]
    rows = list(csv.DictReader((source / "index.csv").read_text(encoding="utf-8").splitlines()))[:most]
    make_folder(folder)
    for number, row in enumerate(rows):
        start, end = offsets[number : number + 2]
        action = 2 * int(row["movement"]) - 1 + int(row["correct"])
        name = Name(1, 1, int(row["subject"]), int(row["repetition"]), action)
        metres = xyz[start:end, JOINTS].astype(np.float64) / 1000.0
        write_text_atomically(folder / f"{name}{SUFFIX}", write_skeleton(metres[None]))
    return len(rows)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python demo/skeleton/write_ntu.py FOLDER [SOURCE]")
    folder = Path(sys.argv[1])
    print(f"{write_files(folder, *map(Path, sys.argv[2:]))} files in {folder}")


if __name__ == "__main__":
    main()
