"""Where the demo's runs and data are, and its faces by split."""

from __future__ import annotations

import csv
from pathlib import Path

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.sources.face import Face, find_copies
from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops

FACES = Path("data/demo/faces.csv")
BLENDS = 8  # of each real face, which is there once: drawn anew each time, always the same ones
SWAPS = Path("data/demo/swaps")  # of test people, by make_swaps.py
SEED = 20_261_122  # of the blends of these measurements; no training or validation uses it


def find_run(pattern: str) -> Path:
    """The newest run's best checkpoint."""
    found = sorted(Path("output").glob(f"{pattern}/weights/best_model.pth"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            Problem(
                where=f"output/{pattern}/weights/best_model.pth",
                what="does not exist: this part of the demo has not been trained",
                remedy="make demo",
            )
        )
    return found[-1]


def list_faces(split: str, image_size: int, table: Path = FACES) -> list[Face]:
    """The real faces of a split, as crops; a picture that is there twice, under two names, is one face."""
    with open(table, newline="", encoding="utf-8") as file:
        people = {table.parent / row["path"]: row["person"] for row in csv.DictReader(file) if row["split"] == split}
    copies = {path for same in find_copies(people) for path in same[1:]}
    crops = FaceCrops(image_size=image_size).prepare([path for path in people if path not in copies])
    return [Face(str(path), str(path), people[path], 0, crop.load) for path, crop in crops.items()]
