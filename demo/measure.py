"""Scores of trained demo models on people by split, for `make results`, and where the demo's runs and data are."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sharpstudent.checkpoint.store import load_checkpoint
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import Table
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.models.vision import build_classifier
from sharpstudent.tasks.deepfake.samples import BlendedPairs
from sharpstudent.tasks.deepfake.sources.face import Face, find_copies
from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from torch import nn

FACES = Path("data/demo/faces.csv")
BLENDS = 8  # of each real face, which is there once: drawn anew each time, always the same ones
SWAPS = Path("data/demo/swaps")  # of test people, by make_swaps.py
SEED = 20_261_122  # of the blends of these measurements; no training or validation uses it


@dataclass(frozen=True)
class Trained:
    """A checkpoint with its model, ready to evaluate."""

    model: nn.Module
    about: dict[str, Any]
    path: Path


def load_trained(path: Path) -> Trained:
    """The classifier that a checkpoint's own description names. Raises UserError for a damaged file."""
    checkpoint = load_checkpoint(path)
    about = checkpoint.about
    model = build_classifier(about["architecture"], classes=len(about["classes"]), dropout=about["dropout"])
    model.load_state_dict(checkpoint.tensors["model"])
    return Trained(model.eval(), about, path)


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


def score_people(trained: Trained, split: str, *, num_workers: int = 2) -> Table:
    """Logits on each real face of a split and on `BLENDS` self-blended fakes of it."""
    image_size = int(trained.about["image_size"])
    source = BlendedPairs(list_faces(split, image_size), image_size=image_size, train=False, times=BLENDS)
    source.seed = SEED
    task = DeepfakeTask(facts={"image_size": image_size})
    (table,), _ = compute_tables(
        [trained.model], source, task, batch_size=16, num_workers=num_workers, device=torch.device("cpu")
    )
    return table
