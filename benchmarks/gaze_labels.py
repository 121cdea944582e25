"""How long labels as many as GazeFollow's take to read, check and split. Pictures are not opened.

    python benchmarks/gaze_labels.py

The tables have as many rows as those of GazeFollow extended: 125,557 in training and 47,824 in the test.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from sharpstudent.tasks.gaze.section import GazeSection
from sharpstudent.tasks.gaze.task import GazeTask

TRAIN, TEST_HEADS, MARKS = 125_557, 4_782, 10


def write_tables(root: Path) -> None:
    """Write both tables, with names and boxes alone."""
    rng = np.random.default_rng(0)

    def make_row(name: str, number: int, place: np.ndarray, gaze: np.ndarray, more: str) -> str:
        x, y = 40 + 500 * place
        body = "0.1,0.1,0.3,0.8"
        box = f"{x:.1f},{y:.1f},{x + 60:.1f},{y + 80:.1f}"
        eyes = f"{place[0]:.4f},{place[1]:.4f},{gaze[0]:.4f},{gaze[1]:.4f}"
        return f"{name},{number},{body},{eyes},{box}{more},source,meta"

    places, gazes = rng.random((TRAIN, 2)), rng.random((TRAIN, 2))
    rows = [
        make_row(f"train/{n // 1000:08}/{n:08}.jpg", n, places[n], gazes[n], ",0" if n % 9 == 0 else ",1")
        for n in range(TRAIN)
    ]
    (root / "train_annotations_release.txt").write_text("\n".join(rows) + "\n")
    marks = [
        make_row(f"test2/{n // 1000:08}/{n:08}.jpg", n, places[n], gazes[n * MARKS + mark], "")
        for n in range(TEST_HEADS)
        for mark in range(MARKS)
    ]
    (root / "test_annotations_release.txt").write_text("\n".join(marks) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder))
        begun = time.process_time()
        parts = GazeTask(GazeSection.model_validate({"data_root": folder})).open_data("train", "validation", "test")
        seconds = time.process_time() - begun
    for samples in parts:
        print(samples.notes[0])
    print(f"{seconds:.1f} s of processor time")


if __name__ == "__main__":
    main()
