"""Heat maps with a second output: where each head of a scene looks, and whether it looks anywhere in the picture.

A scene owns one row a head; its picture is shared by these rows. Rows of heads that look nowhere carry no heat map.
Chosen by the distance between the peak of the map and the target: lower is better.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.task import (
    Batch,
    ModelSpec,
    Outputs,
    Sample,
    Samples,
    Table,
    Task,
    TaskSection,
    choose,
    make_mean_metric,
)
from torch import Tensor, nn

SIDE = 12  # pixels
STARTS = {"train": 0, "validation": 10_000, "test": 20_000}
SCENES = {"train": 240, "validation": 60, "test": 80}


class PointingSection(TaskSection):
    """The task's own keys."""

    noise: float = 0.25  # standard deviation of what is added to a picture


def draw_peak(row: float, column: float, width: float = 1.2) -> NDArray[np.float32]:
    """A bump (SIDE, SIDE) of height 1."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2)).astype(np.float32)


class Scenes(Samples):
    """Pictures of one thing to look at and one to three heads; three pictures of a place."""

    def __init__(self, split: str, noise: float) -> None:
        self.split, self.noise, self.first = split, noise, choose(STARTS, split, "split")

    def __len__(self) -> int:
        return SCENES[self.split]

    def name(self, index: int) -> str:
        return f"scene {self.first + index}"

    def group(self, index: int) -> str:
        return f"place {(self.first + index) // 3}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        scene = np.random.default_rng(self.first + index)
        heads, thing = int(scene.integers(1, 4)), scene.integers(1, SIDE - 1, size=2)
        places = scene.integers(0, SIDE, size=(heads, 2))
        looks = (scene.random(heads) < 0.7).astype(np.float32)
        picture = np.zeros((1, 2, SIDE, SIDE), np.float32)
        picture[0, 1] = draw_peak(*thing)
        masks = np.zeros((heads, 1, SIDE, SIDE), np.float32)
        for head, (row, column) in enumerate(places.tolist()):
            masks[head, 0, row, column] = 1.0
            picture[0, 0, row, column] = 1.0 if looks[head] else -1.0
        picture += self.noise * rng.normal(size=picture.shape).astype(np.float32)
        return Sample(
            inputs={"picture": picture, "picture_index": np.zeros(heads, np.int64), "head": masks},
            targets={
                "heatmap": looks[:, None, None] * draw_peak(*thing),
                "point": np.repeat(thing[None].astype(np.float32), heads, 0),
                "inside": looks,
            },
            weights={"heatmap": looks},
            rows={"id": tuple(f"{self.name(index)}, head {head}" for head in range(heads))},
            shared={"picture": "picture_index"},
        )


class PointingNet(nn.Module):
    """Logits `heatmap` (R, S, S) and `inside` (R,), of pictures (I, 2, S, S) and heads (R, 1, S, S)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scene = nn.Sequential(
            nn.Conv2d(2, width, 5, padding=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.map = nn.Conv2d(width + 1, 1, 3, padding=1)
        self.inside = nn.Linear(width, 1)

    def forward(self, picture: Tensor, picture_index: Tensor, head: Tensor) -> dict[str, Tensor]:
        features = self.scene(picture)[picture_index]
        at_head = (features * head).sum((2, 3))
        return {
            "heatmap": self.map(torch.cat([features.relu(), head], 1))[:, 0],
            "inside": self.inside(at_head)[:, 0],
        }


def _list_distances(table: Table) -> NDArray[np.float64]:
    return table["distance"]


def _list_mistakes(table: Table) -> NDArray[np.float64]:
    return ((table["inside"] > 0.0) != (table["looks"] > 0.5)).astype(np.float64)


class PointingTask(Task):
    """Where heads look."""

    Section = PointingSection
    section: PointingSection
    # Guessing the middle of the picture is off by about 4.2 pixels.
    metrics = {  # noqa: RUF012
        "distance": make_mean_metric(_list_distances, "lower", chance=4.2, perfect=0.0, format=".2f"),
        "wrong_inside": make_mean_metric(_list_mistakes, "lower", perfect=0.0, title="wrong about inside"),
    }
    unit, group_unit = "head", "place"

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        return tuple(Scenes(split, self.section.noise) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        return PointingNet(choose({"narrow": 3, "wide": 12}, spec.name, spec.role))

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """The distance [px] between the peak and the target, NaN for a head that looks nowhere."""
        peak = outputs["heatmap"].flatten(1).argmax(1)
        found = torch.stack([peak // SIDE, peak % SIDE], 1).float()
        distance = (found - batch.targets["point"]).norm(dim=1)
        distance[batch.weights["heatmap"] == 0] = torch.nan
        return {
            "distance": distance.cpu().numpy().astype(np.float64),
            "inside": outputs["inside"].float().cpu().numpy(),
            "looks": batch.targets["inside"].cpu().numpy(),
        }

    def example_batch(self, count: int) -> Batch:
        names = tuple(map(str, range(count)))
        return Batch(
            inputs={
                "picture": torch.zeros(count, 2, SIDE, SIDE),
                "picture_index": torch.arange(count),
                "head": torch.zeros(count, 1, SIDE, SIDE),
            },
            targets={
                "heatmap": torch.rand(count, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
                "point": torch.zeros(count, 2),
                "inside": (torch.arange(count) % 2).float(),
            },
            weights={"heatmap": torch.ones(count)},
            rows={"id": names, "group": names},
            shared={"picture": "picture_index"},
        )

    def finish_export(self, path: Path) -> list[str]:
        """Write beside the file how maps are read, for a program that reads no metadata."""
        target = path.with_suffix(".map.txt")
        target.write_text("row column")
        return [f"{target}: the axes of a map"]
