"""Where a run stands: its state, when it is saved and how it is restored, and how a stage ends.

The state of a step is taken for saving, put back on a resume, and refused where it misfits. A stage ends after its last
epoch, or early, where `patience` has run out or the user ends it: what is saved then, and what the user is told.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sharpstudent.checkpoint.description import read_about
from sharpstudent.checkpoint.disk_space import check_disk_space
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import Checkpoint, load_run_state
from sharpstudent.config.run_config import RunConfig, TrainingSection
from sharpstudent.core.errors import ExitCode, Problem, RunInterrupted, TrainingStopped, UserError
from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.metrics.checks import MetricError
from sharpstudent.task import Task
from sharpstudent.train.alarms import CollapseWatch
from sharpstudent.train.oom import OutOfMemory, is_out_of_memory
from sharpstudent.train.run import Run, StopRequested
from sharpstudent.train.step import TrainStep
from sharpstudent.train.validate import PREFIX

MOST_NAMES = 3  # of tensors in a message


@dataclass
class Position:
    """Where the run stands: the next step to take, and what the epoch under way has summed up so far."""

    epoch: int = 1
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    start: dict[str, float] | None = None  # metrics by name, of the student as it came from stage 1
    parts: int | None = None  # micro-batches a batch passes in, once memory has run out
    unreadable: dict[str, str] = field(default_factory=dict[str, str])  # path -> reason
    told_ratio: bool = False  # the advice on the terms' balance has been given
    watch: CollapseWatch = field(default_factory=CollapseWatch)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "sums": dict(self.sums), "watch": self.watch.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Position:
        watch = CollapseWatch(**stored.get("watch", {}))
        stored = {**stored, "sums": defaultdict(float, stored["sums"]), "watch": watch}
        earlier = {name: stored.pop(f"start_{name}", None) for name in ("auc", "accuracy")}  # before November 2026
        if stored.get("start") is None and earlier["auc"] is not None:
            stored["start"] = earlier
        return cls(**stored)


def capture_step(step: TrainStep, device: torch.device) -> dict[str, Any]:
    """Weights, those that the loss itself learns, optimiser, average, loss scale, random states: what the next step
    depends on. The teacher is not.
    """
    state = {
        "model": step.student.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "rng": capture_rng_state(device_type=device.type),
    }
    learnt = step.criterion.module.state_dict()
    if learnt:
        state["criterion"] = learnt
    if step.average is not None:
        state["average"] = step.average.state_dict()
    if step.loss_scale is not None:
        state["loss_scale"] = step.loss_scale.state_dict()
    return state


def restore_step(step: TrainStep, tensors: Mapping[str, Any]) -> None:
    """Put back what `capture_step` took; the optimiser's settings, such as weight decay, stay those of the config."""
    step.student.load_state_dict(tensors["model"])
    step.criterion.module.load_state_dict(tensors.get("criterion", {}))
    groups = step.optimizer.base_optimizer.param_groups
    settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    step.optimizer.load_state_dict(tensors["optimizer"])
    for group, setting in zip(step.optimizer.base_optimizer.param_groups, settings, strict=True):
        group.update(setting)
    if step.average is not None:
        if "average" in tensors:
            step.average.load_state_dict(tensors["average"])
        else:  # switched on by a permitted change of the config: it begins here
            step.average.update(step.student)
    if step.loss_scale is not None and "loss_scale" in tensors:
        step.loss_scale.load_state_dict(tensors["loss_scale"])
    restore_rng_state(tensors["rng"])


def refuse_other_model(state: Checkpoint, step: TrainStep, about: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError when the state of a run is of another model or optimiser: no permission makes it fit.

    Args:
        state: What the run has saved.
        step: What it would be loaded into.
        about: The description of this run's checkpoints.
        folder: Of the run.
    """
    changes = [
        f"{key}: {state.about.get(key)} -> {about[key]}"
        for key in ("architecture", "classes", "options")
        if state.about.get(key) != about.get(key)
    ]
    changes += list_misfits(state.tensors, step)
    if changes:
        raise UserError(
            Problem(
                where=f"--resume {folder}",
                what="cannot go on with another model or optimiser, --allow changed-config or not",
                got="\n".join(changes),
                remedy="start a new run: -n NAME without --resume",
            )
        )


def list_misfits(tensors: Mapping[str, Any], step: TrainStep) -> list[str]:
    """List what of a stored state does not fit.

    Args:
        tensors: What `capture_step` gave.
        step: What it would be loaded into.

    Returns:
        A line for each of the first tensors whose shapes differ, and one for an optimiser of another kind.
    """
    stored = _list_shapes(tensors["model"], tensors.get("criterion", {}))
    ours = _list_shapes(step.student.state_dict(), step.criterion.module.state_dict())
    misfits = [
        f"{name}: {stored.get(name, 'absent')} in the file, {ours.get(name, 'absent')} in the model"
        for name in dict.fromkeys((*stored, *ours))
        if stored.get(name) != ours.get(name)
    ]
    if len(misfits) > MOST_NAMES:
        misfits[MOST_NAMES:] = [f"{len(misfits) - MOST_NAMES} more"]
    # Option names and the number of parameters of each group tell one kind of optimiser from another.
    groups, our_groups = (
        [(frozenset(group), len(group["params"])) for group in state["base"]["param_groups"]]
        for state in (tensors["optimizer"], step.optimizer.state_dict())
    )
    if not misfits and groups != our_groups:
        misfits = ["optimizer: its stored state is that of another kind"]
    return misfits


def _list_shapes(model: Mapping[str, torch.Tensor], criterion: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    named = {**model, **{f"projection {name}": tensor for name, tensor in criterion.items()}}
    return {name: tuple(tensor.shape) for name, tensor in named.items()}


def describe_room(run: Run, step: TrainStep) -> str:
    """What the run will need of its disk. Raises UserError where the first saves do not fit."""
    config = run.config
    return check_disk_space(
        run.folder if run.is_resumed else Path(config.output_root),
        step.student.state_dict(),
        optimizer_copies={"sgd": 1, "adamw": 2}[config.optimizer.base] + (config.training.ema_decay is not None),
        keep_best=min(config.training.keep_best, config.training.epochs),
        resumed=run.is_resumed,
    )


def open_selection(run: Run, task: Task) -> BestCheckpoints:
    """The table of the best epochs, by the metric of the run."""
    word, keep = run.config.training.selection_metric, run.config.training.keep_best
    return BestCheckpoints(
        run.weights_folder, keep=keep, metric=f"{PREFIX}{word}", direction=task.metrics[word].direction
    )


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
    position = Position.from_json(state.about["position"])
    selection_notes = selection.restore(state.about["selection"])
    restore_step(step, state.tensors)
    at = f"epoch {position.epoch}, step {position.step}"
    for note in [f"resuming {run.resumed_from} at {at}", *state.notes, *selection_notes]:
        run.say(note)
    return position


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


@contextlib.contextmanager
def explain_endings(
    position: Position, save_state: Callable[[], None], describe_stop: Callable[[str], str]
) -> Iterator[None]:
    """Turn what ends the block into RunInterrupted (a signal) or TrainingStopped (no memory, scores that are not
    numbers), after saving the state where it is whole; every other exception passes.

    describe_stop: where the run stands and how to go on, given what is saved.
    """
    try:
        yield
    except StopRequested as stop:
        save_state()
        raise RunInterrupted(f"interrupted at {describe_stop('saved')}", stop.exit_code) from None
    except KeyboardInterrupt:
        told = describe_stop("this point is not saved; the last save is whole")
        raise RunInterrupted(f"stopped at once in {told}", ExitCode.INTERRUPTED) from None
    except OutOfMemory as error:
        save_state()
        raise TrainingStopped(f"{error}\n{describe_stop('saved')}") from error
    except MetricError as error:
        raise TrainingStopped(f"epoch {position.epoch}: {error}") from error
    except (RuntimeError, MemoryError) as error:  # outside a step, that is in a validation
        if not is_out_of_memory(error):
            raise
        save_state()
        told = describe_stop("saved")
        raise TrainingStopped(f"out of memory while validating ({error}).\n{told}") from error


@dataclass(frozen=True)
class FitResult:
    """best_epoch, best_value: of the selection metric. best_metrics: all metrics by name of that epoch's model, start:
    those of the student before the first step (stage 2); {} where they are not known. stopped: why it ended early.
    """

    best_epoch: int
    best_value: float
    best_metrics: Mapping[str, float]
    last_metrics: Mapping[str, Any]
    start: Mapping[str, float]
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
        best_metrics={**read_metrics(selection.best_path), selection.metric.removeprefix(PREFIX): best.value},
        last_metrics=metrics,
        start=position.start or {},
        skipped=position.skipped,
        seconds=seconds,
        epochs_done=position.epoch - first_epoch,
        stopped=explain_early_stop(config.training, position, best.epoch),
    )


def read_metrics(checkpoint: Path) -> dict[str, float]:
    """Of the model in the file, student or average, by name, as the JSON beside it says; {} where it does not."""
    about = read_about(checkpoint) or {}
    ending = "_ema" if about.get("selected") == "ema" else ""
    names = {key.removeprefix(PREFIX) for key in about if key.startswith(PREFIX) and not key.endswith("_ema")}
    found = {name: about.get(f"{PREFIX}{name}{ending}") for name in sorted(names)}
    return {name: value for name, value in found.items() if isinstance(value, float)}
