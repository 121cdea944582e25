"""One-dimensional signals of four shapes: the teacher reads the signal itself, the student a transform of the same
augmented sample, the sizes of its frequencies.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.task import Batch, ClassificationTask, ModelSpec, Sample, Samples, TaskSection, choose
from torch import Tensor, nn

LENGTH = 64
STARTS = {"train": 0, "validation": 1000, "test": 2000}  # number of the first device of a split
DEVICES = {"train": 40, "validation": 15, "test": 20}
PER_DEVICE = 8


class SignalsSection(TaskSection):
    """The task's own keys."""

    noise: float = 0.15  # standard deviation


def draw_shape(label: int, phase: float, cycles: float) -> NDArray[np.float64]:
    """One of four shapes (LENGTH,), in -1..1."""
    t = np.arange(LENGTH) / LENGTH * cycles + phase
    return [np.sin(2 * np.pi * t), np.sign(np.sin(2 * np.pi * t)), 2 * (t % 1) - 1, np.abs(4 * (t % 1) - 2) - 1][label]


def transform(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sizes of the frequencies of signals (k, LENGTH): (k, 32), logarithms in about -1..1."""
    sizes = np.abs(np.fft.rfft(signal, axis=1))[:, 1:33]
    return (np.log10(sizes + 0.1) - 0.3).astype(np.float32)


class Signals(Samples):
    """Each device plays eight signals in its own pitch."""

    def __init__(self, split: str, noise: float) -> None:
        self.split, self.noise, self.first = split, noise, choose(STARTS, split, "split")

    def __len__(self) -> int:
        return DEVICES[self.split] * PER_DEVICE

    def name(self, index: int) -> str:
        return f"signal {self.first * PER_DEVICE + index}"

    def group(self, index: int) -> str:
        return f"device {self.first + index // PER_DEVICE}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        device = np.random.default_rng(self.first + index // PER_DEVICE)
        cycles, label = 4.0 + 0.4 * device.random(), index % 4
        signal = draw_shape(label, rng.random(), cycles) + self.noise * rng.normal(size=LENGTH)
        raw = signal[None].astype(np.float32)
        return Sample(
            inputs={"raw": raw, "spectrum": transform(raw)},  # both of the same augmented signal
            targets={"label": np.array([label])},
            rows={"id": (self.name(index),)},
        )


class RawNet(nn.Module):
    """A teacher: `raw` (R, 64) -> `logits` (R, 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, width, 9, padding=4),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 9, stride=2, padding=4),
            nn.ReLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(width, 4)

    def forward(self, raw: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(raw[:, None]))}


class SpectrumNet(nn.Module):
    """A student: `spectrum` (R, 32) -> `logits` (R, 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(width, 4)

    def forward(self, spectrum: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(spectrum))}


class SignalsTask(ClassificationTask):
    """Which shape a signal has."""

    Section = SignalsSection
    section: SignalsSection
    classes = ("sine", "square", "saw", "triangle")
    unit, group_unit = "signal", "device"

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        return tuple(Signals(split, self.section.noise) for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        build = choose({"raw": RawNet, "spectrum": SpectrumNet}, spec.name, spec.role)
        return build(int(spec.options.get("width", 12)))

    def example_batch(self, count: int) -> Batch:
        names = tuple(map(str, range(count)))
        return Batch(
            inputs={"raw": torch.zeros(count, LENGTH), "spectrum": torch.zeros(count, 32)},
            targets={"label": torch.arange(count) % 4},
            rows={"id": names, "group": names},
        )
