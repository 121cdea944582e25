"""When a stage ends: after its last epoch, or early, where `patience` has run out."""

from __future__ import annotations

from lib.config.sections import TrainingSection
from lib.engine.position import Position


def is_over(training: TrainingSection, position: Position, best_epoch: int | None) -> bool:
    """Whether no step is left to take."""
    return position.epoch > training.epochs or explain_early_stop(training, position, best_epoch) is not None


def explain_early_stop(training: TrainingSection, position: Position, best_epoch: int | None) -> str | None:
    """Why a stage ends before its last epoch; None where it does not.

    It depends on nothing but what a saved state holds, so that a resumed run stops where an undisturbed one does. An
    epoch that has been begun is finished. best_epoch: the best so far, an earlier one among equals.
    """
    patience, done = training.patience, position.epoch - 1
    if patience is None or best_epoch is None or position.step > 0 or done >= training.epochs:
        return None
    if done - best_epoch < patience:
        return None
    without = f"{done - best_epoch} epoch{'s' if done - best_epoch > 1 else ''}"
    return (
        f"stopped early after epoch {done} of {training.epochs}: no new best {training.selection_metric} in {without} "
        f"(patience {patience})"
    )
