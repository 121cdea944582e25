"""What a stage ended with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.checkpoint.selection import BestCheckpoints
from lib.checkpoint.store import read_about
from lib.config.sections import RunConfig
from lib.engine.position import Position
from lib.engine.stopping import explain_early_stop
from lib.engine.task import PICTURE_AUC


@dataclass(frozen=True)
class FitResult:
    """best: epoch and value of the selection metric; best_auc: AUC of single pictures of that epoch's model, start_auc:
    of the student before the first step (stage 2); None where they are not known. stopped: why it ended early.
    """

    best_epoch: int
    best_value: float
    best_auc: float | None
    last_metrics: Mapping[str, Any]
    start_auc: float | None
    skipped: int
    seconds: float
    epochs_done: int
    stopped: str | None = None


def build_result(
    config: RunConfig,
    position: Position,
    selection: BestCheckpoints,
    metrics: Mapping[str, Any],
    first_epoch: int,
    seconds: float,
) -> FitResult:
    """Of a stage that is over; metrics: of its last epoch; first_epoch: with which this process began."""
    best = selection.best
    assert best is not None
    return FitResult(
        best_epoch=best.epoch,
        best_value=best.value,
        best_auc=best.value if selection.metric == PICTURE_AUC else read_picture_auc(selection.best_path),
        last_metrics=metrics,
        start_auc=position.start_auc,
        skipped=position.skipped,
        seconds=seconds,
        epochs_done=position.epoch - first_epoch,
        stopped=explain_early_stop(config.training, position, best.epoch),
    )


def read_picture_auc(checkpoint: Path) -> float | None:
    """Of the model that is in the file, student or average, as the JSON beside it says; None where it does not say."""
    about = read_about(checkpoint) or {}
    value = about.get(f"{PICTURE_AUC}_ema" if about.get("selected") == "ema" else PICTURE_AUC)
    return value if isinstance(value, float) else None
