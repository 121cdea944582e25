"""Ten classes of small pictures: scikit-learn's handwritten digits, 8 x 8 pixels, chosen by accuracy.

A whole task in one file. `docs/adding-a-task.md` walks through it.
"""

from __future__ import annotations

import numpy as np
import torch
from sharpstudent.task import Batch, ClassificationTask, ModelSpec, Sample, Samples, TaskSection, choose
from torch import Tensor, nn

SPLITS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}  # shares of the writers


class DigitsSection(TaskSection):
    """The task's own keys, in the group `data` of a config."""

    noise: float = 0.3  # standard deviation of what is added to a picture in training
    share: float = 1.0  # of each split that is used


class Digits(Samples):
    """Pictures in groups of ten, as a writer would leave them; no group stands in two splits."""

    def __init__(self, split: str, section: DigitsSection) -> None:
        from sklearn.datasets import load_digits

        pictures, labels = load_digits(return_X_y=True)
        start, end = (int(share * len(labels) / 10) * 10 for share in choose(SPLITS, split, "split"))
        end = start + int((end - start) * section.share)
        self.first = start
        self.pictures = (pictures[start:end].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
        self.labels = labels[start:end].astype(np.int64)
        self.noise = section.noise if split == "train" else 0.0
        self.notes = (f"digits, {split}: {len(self)} pictures",)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"digit {self.first + index}"

    def group(self, index: int) -> str:
        return f"writer {(self.first + index) // 10}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        noise = rng.normal(0.0, 1.0, (1, 1, 8, 8)).astype(np.float32) * np.float32(self.noise)
        return Sample(
            inputs={"image": self.pictures[index : index + 1] + noise},
            targets={"label": self.labels[index : index + 1]},
            rows={"id": (self.name(index),)},
        )


class ConvNet(nn.Module):
    """Two convolutions and a head: `image` (R, 1, 8, 8) -> `logits` (R, 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(image))}


class DigitsTask(ClassificationTask):
    """Which digit it is."""

    Section = DigitsSection
    section: DigitsSection
    classes = tuple("0123456789")
    unit, group_unit = "picture", "writer"

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        return tuple(Digits(split, self.section) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        return ConvNet(choose({"narrow": 4, "wide": 24}, spec.name, spec.role))

    def example_batch(self, count: int) -> Batch:
        names = tuple(map(str, range(count)))
        return Batch(
            inputs={"image": torch.zeros(count, 1, 8, 8)},
            targets={"label": torch.arange(count) % 10},
            rows={"id": names, "group": names},
        )
