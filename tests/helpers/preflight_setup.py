"""Pictures that say their class in red, models that read it, and an output folder in which the checks run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sharpstudent.config.run_config import TeacherSection
from sharpstudent.core.types import Outputs, Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble
from sharpstudent.task import Task
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import TrainingData
from sharpstudent.train.preflight.run import PreflightReport, preflight
from sharpstudent.train.run import Run
from sharpstudent.train.validate import Validator
from tiny_runs import make_config
from torch import Tensor, nn

SIDE = 8  # [px]


@dataclass
class Pictures(Samples):
    """One real and one fake picture a sample: red says which, green is random. Two samples a person. `made` lists the
    indices that were made."""

    samples: int = 20
    folder: Path | None = None
    broken: tuple[int, ...] = ()
    shade: int = 0
    labels: tuple[int, int] = (0, 1)
    made: list[int] = field(default_factory=list)
    seed: int = 5
    depends_on: Sequence[Path] = ()

    def __len__(self) -> int:
        return self.samples

    def name(self, index: int) -> str:
        return f"sample {index}" if self.folder is None else str(self.folder / f"{index}.png")

    def group(self, index: int) -> str:
        return f"person {index // 2}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        self.made.append(index)
        if index in self.broken:
            raise UnreadableSample(self.name(index), "is broken")
        images = np.full((2, SIDE, SIDE, 3), self.shade, np.uint8)
        images[1, :, :, 0] = 255
        images[..., 1] = rng.integers(0, 256, (2, 1, 1))
        names = (f"{self.name(index)}#real", f"{self.name(index)}#fake")
        return Sample(
            inputs={"image": images},
            targets={"label": np.array(self.labels, np.int64)},
            rows={"id": names, "clip": (f"clip {index}",) * 2},
        )


class Reader(nn.Module):
    """Adds `gain` times what red says to `noise` times what green says, both in -1..1."""

    def __init__(self, gain: float, noise: float = 0.0) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([gain, noise]))
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, image: Tensor) -> Outputs:
        self.calls += 1
        margin = self.dropout(2 * image[:, :2].mean((2, 3)) - 1) @ self.weights
        return {"logits": torch.stack([-margin / 2, margin / 2], 1)}


def make_task(image_size: int = SIDE) -> DeepfakeTask:
    """The deepfake task for pictures of this size, without data of its own."""
    return DeepfakeTask(facts={"image_size": image_size})


GOOD, STUDENT = (4.0, 3.0), (3.0, 2.0)  # gain and noise of two models that are right, and not too sure


@dataclass
class PreflightSetup:
    """An output folder, data and teachers for preflight checks; `lines` are those that the last run printed."""

    root: Path
    source: Pictures = field(default_factory=Pictures)
    task: Task = field(default_factory=make_task)
    stop: Callable[[], None] = lambda: None
    lines: list[str] = field(default_factory=list)
    sections: tuple[TeacherSection, ...] = ()  # of the config's teachers
    allow: tuple[str, ...] = ()

    def make_validator(self) -> Validator:
        update = {"output_root": str(self.root), "teachers": self.sections, "allow": self.allow}
        config = make_config().model_copy(update=update)
        run = Run(config, torch.device("cpu"), Console(file=io.StringIO()), None, False, folder=self.root / "run")
        return Validator(run, self.task, TrainingData(self.source, self.source), self.stop, lambda _: None)

    def run_preflight(
        self, student: nn.Module | tuple[float, float] = STUDENT, *teachers: nn.Module | tuple[float, float]
    ) -> PreflightReport:
        models = [model if isinstance(model, nn.Module) else Reader(*model) for model in (student, *teachers)]
        named = [(f"teacher {number}", model) for number, model in enumerate(models)][1:]
        self.lines, self.source.made = [], []
        return preflight(self.make_validator(), ("student s", models[0]), named, say=self.lines.append)

    def find_kept(self) -> list[Path]:
        return sorted((self.root / ".preflight").glob("*"))

    @property
    def has_evaluated(self) -> bool:
        """Whether the last preflight evaluated a model on the samples."""
        return len(self.source.made) > 1  # the first sample is always made

    def run_preflight_with_ensemble(
        self, student: tuple[float, float], *teachers: tuple[float, float], calibrate: Sequence[int] = (), **keys: Any
    ) -> PreflightReport:
        """As `run_preflight`, with an ensemble. calibrate: indices of calibrated teachers; keys: of the ensemble."""
        adapted = [FrozenTeacher(Reader(*teacher)) for teacher in teachers]
        self.sections = tuple(TeacherSection(name="x", calibrate=index in calibrate) for index in range(len(adapted)))
        self.ensemble = TeacherEnsemble(adapted, **keys)
        named = [(f"teacher {number}", model) for number, model in enumerate(adapted, 1)]
        self.lines, self.source.made = [], []
        return preflight(
            self.make_validator(), ("student s", Reader(*student)), named, ensemble=self.ensemble, say=self.lines.append
        )
