"""What a run keeps of itself and goes on from: its room, when it saves, its best epochs, its state taken up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.checkpoint.resume import load_run_state
from lib.checkpoint.room import check_room
from lib.checkpoint.selection import BestCheckpoints
from lib.config.sections import RunConfig
from lib.engine.position import Position, refuse_other_model, restore_step
from lib.engine.run import Run
from lib.engine.step import TrainStep
from lib.engine.task import Task


def describe_room(run: Run, step: TrainStep) -> str:
    """What the run will need of its disk. Raises UserError where the first saves do not fit."""
    config = run.config
    return check_room(
        run.folder if run.is_resumed else Path(config.output_root),
        step.student.state_dict(),
        optimizer_copies={"sgd": 1, "adamw": 2}[config.optimizer.base] + (config.training.ema_decay is not None),
        keep_best=min(config.training.keep_best, config.training.epochs),
        resumed=run.is_resumed,
    )


def open_selection(run: Run, task: Task) -> BestCheckpoints:
    """The table of the best epochs, by the metric of the run."""
    metric = task.selection_metric
    keep, direction = run.config.training.keep_best, task.selection_metrics[metric]
    return BestCheckpoints(run.weights_folder, keep=keep, metric=metric, direction=direction)


def is_save_due(config: RunConfig, step: int, steps_per_epoch: int, age_s: float) -> bool:
    """Whether the state is to be saved after so many steps of an epoch, its last save being so old; the end of an epoch
    saves anyway.
    """
    if step == steps_per_epoch:
        return False
    by_steps = config.save_every_steps is not None and step % config.save_every_steps == 0
    return by_steps or (config.save_every_minutes is not None and age_s >= 60 * config.save_every_minutes)


def take_up_run(run: Run, step: TrainStep, about: Mapping[str, Any], selection: BestCheckpoints) -> Position:
    """Where the run's last state was saved, with weights, optimiser, random states and the table put back.

    Raises UserError, before anything is changed, for a state of another model, optimiser or selection metric.
    """
    state = load_run_state(run.weights_folder)
    refuse_other_model(state, step, about, run.folder)
    position = Position.from_json(state.progress["position"])
    selection_notes = selection.restore(state.progress["selection"])
    restore_step(step, state.tensors)
    at = f"epoch {position.epoch}, step {position.step}"
    for note in [f"resuming {run.resumed_from} at {at}", *state.notes, *selection_notes]:
        run.say(note)
    return position
