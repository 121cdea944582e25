"""What a run folder tells of a model's training: its epochs and its config."""

from __future__ import annotations

from typing import Any

from lib.config.read import read_config_file
from lib.config.stored import STORED_NAME
from lib.engine.open_model import OpenedModel
from lib.report.results import TrainingResult
from lib.report.training import read_training
from lib.tasks.deepfake.evaluation.run_validation import find_run_folder

METRIC = "val_auc"
# What a report repeats of a checkpoint's description.
TRAINED = ("stage", "run", "seed", "epoch", "task", "classes", "input", "selection_metric")


def read_history(opened: OpenedModel) -> TrainingResult | None:
    """metrics.csv of the run that the model lies in; None for a file elsewhere."""
    folder = find_run_folder(opened.path)
    if folder is None:
        return None
    best, metric = opened.about.get("epoch"), str(opened.about.get("selection_metric", METRIC))
    return read_training(folder / "logs" / "metrics.csv", best_epoch=best, metric=metric)


def read_run_config(opened: OpenedModel) -> dict[str, Any] | None:
    """The resolved config of the run that the model lies in, as it is on disk."""
    folder = find_run_folder(opened.path)
    return None if folder is None else read_config_file(folder / STORED_NAME)


def read_trained(opened: OpenedModel) -> dict[str, Any]:
    """How the checkpoint says that it was trained."""
    return {name: opened.about[name] for name in TRAINED if name in opened.about}


def read_validation(opened: OpenedModel) -> dict[str, float]:
    """The validation metrics that chose it, as the checkpoint says."""
    return {
        name: float(value)
        for name, value in opened.about.items()
        if name.startswith("val_") and isinstance(value, int | float) and not isinstance(value, bool)
    }
