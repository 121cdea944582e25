"""What a run folder tells of a model's training: its epochs and its config."""

from __future__ import annotations

from typing import Any

from lib.config.read import read_config_file
from lib.config.stored import STORED_NAME
from lib.engine.checkpoint_about import read_selection_metric
from lib.engine.open_model import OpenedModel
from lib.report.results import TrainingResult
from lib.report.training import read_training
from lib.tasks.deepfake.evaluation.run_validation import find_run_folder


def read_history(opened: OpenedModel) -> TrainingResult | None:
    """metrics.csv of the run that the model lies in; None for a file elsewhere."""
    folder = find_run_folder(opened.path)
    if folder is None:
        return None
    metric = read_selection_metric(opened.about)
    return read_training(folder / "logs" / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=metric)


def read_run_config(opened: OpenedModel) -> dict[str, Any] | None:
    """The resolved config of the run that the model lies in, as it is on disk."""
    folder = find_run_folder(opened.path)
    return None if folder is None else read_config_file(folder / STORED_NAME)
