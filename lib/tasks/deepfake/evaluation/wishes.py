"""What evaluate_model.py and compare_models.py were asked to do. Torch-free, so that a slip costs no seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.report.results import Role
from lib.tasks.deepfake.evaluation.set_request import FacesRule, Split


@dataclass(frozen=True)
class ModelWish:
    """One model as it was named: NAME=PATH or PATH, and its role in a comparison.

    The rest is for a file that does not say it itself, as in `lib.engine.model_spec.ModelSpec`.
    """

    path: Path
    name: str | None = None
    role: Role = "model"
    architecture: str | None = None
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class DataWish:
    """One data set as it was named: NAME=PATH or PATH."""

    path: Path
    name: str | None = None


@dataclass(frozen=True)
class DataChoices:
    """How all data sets are read; the meaning of each is that of the option of its name."""

    split: Split = "test"
    crops: bool = False
    layout: str | None = None
    label: int | None = None
    faces: FacesRule = "largest"
    frames: int = 32
    min_face: int = 40


@dataclass(frozen=True)
class EvaluationRequest:
    """data: none of them means the validation data of the last model's own run. validation: where temperature and
    thresholds are chosen, instead of what the checkpoints have stored; fprs: wanted rates of false alarms, 0..1; store:
    write them into the checkpoints. rules: by which videos are scored, as in
    `lib.metrics.aggregation`. robustness: disturbances to run (none: all), None for no robustness; out: a folder
    of its own, None for a new one under output/.
    """

    models: tuple[ModelWish, ...]
    data: tuple[DataWish, ...] = ()
    choices: DataChoices = DataChoices()
    validation: tuple[DataWish, ...] = ()
    fprs: tuple[float, ...] = ()
    store: bool = False
    robustness: tuple[str, ...] | None = None
    robustness_faces: int | None = 1000
    costs: bool = False
    heat_maps: bool = False
    rules: tuple[str, ...] = ("mean", "max", "top10")
    rounds: int = 1000
    device: str = "auto"
    workers: int = 2
    batch_size: int = 16
    out: Path | None = None
