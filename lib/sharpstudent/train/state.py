"""The state of a run: when it is saved, how it is restored, and how a stage ends.

A stage ends after its last epoch, or earlier when `patience` has run out or the user stops it. This module decides what
is saved then, and what the user is told.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sharpstudent.checkpoint.disk_space import check_disk_space
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import LAST_NAME, Checkpoint, UnusableStateError, load_run_state
from sharpstudent.config.run_config import RunConfig, TrainingSection
from sharpstudent.core.archive import read_about
from sharpstudent.core.errors import ExitCode, Problem, RunInterrupted, TrainingStopped, UserError
from sharpstudent.core.files import explain
from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.metrics.checks import MetricError
from sharpstudent.task import Task
from sharpstudent.train.alarms import CollapseWatch
from sharpstudent.train.oom import OutOfMemory, is_out_of_memory
from sharpstudent.train.run import Run, StopRequested
from sharpstudent.train.step import TrainStep
from sharpstudent.train.validate import PREFIX

if TYPE_CHECKING:
    from sharpstudent.core.ranks import Ranks

MOST_NAMES = 3  # of tensors in a message


@dataclass
class TrainState:
    """The progress of a run: the next step to take, and the sums over the steps of the current epoch so far.

    Attributes:
        epoch: The epoch of the next step, from 1.
        step: The number of the next step within the epoch, from 0.
        skipped: Steps skipped since the run began.
        skipped_in_a_row: Steps skipped since the last one that was taken.
        sums: The sums of the numbers that the epoch's steps logged, and the number of these steps.
        start: Metrics of the student that stage 2 began with, by name; None before they are known.
        started_from: Name and sha256 of the file of the trained model that the run started from; None without one.
        parts: The number of micro-batches in a batch, if it was raised when memory ran out.
        unreadable: Reason by path of each sample that could not be read.
        told_ratio: Whether the advice on the terms' balance has been given.
        watch: Counts and averages that show a collapse of the training.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    epoch: Annotated[int, Field(ge=1)] = 1
    step: Annotated[int, Field(ge=0)] = 0
    skipped: Annotated[int, Field(ge=0)] = 0
    skipped_in_a_row: Annotated[int, Field(ge=0)] = 0
    sums: dict[str, float] = field(default_factory=dict[str, float])
    start: dict[str, float] | None = None
    started_from: dict[str, str] | None = None
    parts: Annotated[int, Field(ge=1)] | None = None
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    told_ratio: bool = False
    watch: CollapseWatch = field(default_factory=CollapseWatch)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TrainState:
        """Read the state from what `to_json` of this or an earlier version returned.

        Args:
            stored: The state as JSON values.

        Returns:
            The state.

        Raises:
            UserError: For the state of a newer version.
            ValueError: For values of other types, or out of their range.
        """
        stored = dict(stored)
        earlier = {name: stored.pop(f"start_{name}", None) for name in ("auc", "accuracy")}  # before November 2026
        if stored.get("start") is None and earlier["auc"] is not None:
            stored["start"] = {name: value for name, value in earlier.items() if value is not None}
        sums = stored.get("sums")
        if isinstance(sums, dict) and "perturbed_loss" in sums and "ascents" not in sums:  # before the variants of SAM
            stored["sums"] = {**sums, "ascents": sums.get("steps", 0.0)}
        try:
            return TypeAdapter(cls).validate_json(json.dumps(stored))
        except ValidationError as error:
            unknown = [e["loc"] for e in error.errors() if e["type"] == "unexpected_keyword_argument"]
            if unknown:
                names = ", ".join(".".join(map(str, place)) for place in unknown)
                raise UserError.about(
                    LAST_NAME,
                    "was saved by a newer version of this program",
                    got=f"position with {names}, which this version does not know",
                    remedy="resume with the version that saved it, or start a new run: -n NAME without --resume",
                ) from None
            first = error.errors()[0]
            raise ValueError(f"position: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def capture_step(step: TrainStep, device: torch.device) -> dict[str, Any]:
    """Collect all state that the next step depends on, apart from the teacher.

    Args:
        step: The models, the criterion and the optimiser.
        device: The device on which it computes.

    Returns:
        The state dictionaries of the student and the optimiser, of the criterion's parameters, the average, the weights
        of the start and the loss scale if the run has them, and the random states, those of all ranks if there are
        several. All ranks must call this together.
    """
    state = {
        "model": step.student.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "rng": capture_rng_state(device_type=device.type),
        "rng_of_ranks": _gather_rng(step, device),
        "criterion": step.criterion.module.state_dict(),
        "average": None if step.average is None else step.average.state_dict(),
        "start": None if step.start is None else step.start.state_dict(),
        "loss_scale": None if step.loss_scale is None else step.loss_scale.state_dict(),
    }
    return {name: value for name, value in state.items() if value}


def _gather_rng(step: TrainStep, device: torch.device) -> list[dict[str, Any]] | None:
    if step.others is None:
        return None
    return step.others.ranks.gather(capture_rng_state(device_type=device.type))


def restore_step(step: TrainStep, tensors: Mapping[str, Any]) -> None:
    """Restore the state that `capture_step` collected. The optimiser keeps the config's settings, such as weight decay.

    Args:
        step: The models, the criterion and the optimiser to restore.
        tensors: The state.
    """
    step.student.load_state_dict(tensors["model"])
    step.criterion.module.load_state_dict(tensors.get("criterion", {}))
    groups = step.optimizer.base_optimizer.param_groups
    _check_slots(tensors["optimizer"], groups)
    settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    step.optimizer.load_state_dict(tensors["optimizer"])
    for group, setting in zip(step.optimizer.base_optimizer.param_groups, settings, strict=True):
        group.update(setting)
    if step.average is not None:
        if "average" in tensors:
            step.average.load_state_dict(tensors["average"])
        else:  # the average was switched on by a permitted change of the config, and begins now
            step.average.update(step.student)
    if step.start is not None:
        step.start.load_state_dict(tensors["start"])
    if step.loss_scale is not None and "loss_scale" in tensors:
        step.loss_scale.load_state_dict(tensors["loss_scale"])
    restore_rng_state(tensors["rng"])
    if step.others is not None:
        _restore_own_rng(step.others.ranks, tensors.get("rng_of_ranks", []))


def _restore_own_rng(ranks: Ranks, stored: Sequence[Mapping[str, Any]]) -> None:
    """Restore the random state of this rank; one that the saved run did not have begins with a state of its own."""
    if ranks.number < len(stored):
        restore_rng_state(dict(stored[ranks.number]))
    elif not ranks.is_first:
        seed_rank(ranks)


def seed_rank(ranks: Ranks) -> None:
    """Give this rank random numbers of its own, apart from rank 0, which draws what one process would."""
    if not ranks.is_first:
        torch.manual_seed(torch.initial_seed() + ranks.number)


def _check_slots(stored: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError where momentum and the like have other shapes than their parameters; torch does not look."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    for number, slots in stored["base"]["state"].items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape != parameters[number].shape:
                raise ValueError(f"optimizer: {name} of parameter {number} has the shape {tuple(value.shape)}")


def _check_numbers(value: Any, name: str) -> None:
    """Raise ValueError for a tensor, at any depth, with values that are no numbers."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
        raise ValueError(f"{name} holds values that are no numbers (NaN or infinite)")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, f"{name}.{key}")


@contextlib.contextmanager
def _explain_malformed(folder: Path) -> Iterator[None]:
    """Turn what a malformed state leads to, whatever it is, into an UnusableStateError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else explain(error)
        raise UnusableStateError(
            Problem(
                where=f"--resume {folder}",
                what=f"is no state that a run can go on from: {reason}",
                expected="what this program saved: model, optimizer, rng, position and selection",
                remedy="restore weights/last.pth from a copy, or start a new run: -n NAME without --resume",
            )
        ) from error


def refuse_other_model(state: Checkpoint, step: TrainStep, about: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError when the state belongs to another model or optimiser; no `--allow` permits that.

    Args:
        state: The saved state of the run.
        step: The models and the optimiser that it would be loaded into.
        about: The description of this run's checkpoints.
        folder: The folder of the run.
    """
    changes = [
        f"{key}: {state.about.get(key)} -> {about[key]}"
        for key in ("architecture", "classes", "options", "tune")
        if state.about.get(key) != about.get(key)
    ]
    changes += list_misfits(state.tensors, step)
    if step.start is not None and "start" not in state.tensors:
        changes.append(
            "the weights that the run started from: absent in the file, and l2_start or start_share needs them"
        )
    if changes:
        raise UserError.about(
            where=f"--resume {folder}",
            what="cannot go on with another model or optimiser, --allow changed-config or not",
            got="\n".join(changes),
            remedy="start a new run: -n NAME without --resume",
        )


def list_misfits(tensors: Mapping[str, Any], step: TrainStep) -> list[str]:
    """List the differences that prevent loading a stored state.

    Args:
        tensors: The state that `capture_step` collected.
        step: The models and the optimiser that it would be loaded into.

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
    # Optimisers of different kinds differ in the option names, or in the number of parameters, of their groups.
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


def describe_disk_space(run: Run, step: TrainStep) -> str:
    """Describe how much disk space the run will need.

    Args:
        run: The run.
        step: The models and the optimiser that are saved.

    Raises:
        UserError: When there is not enough space for the first saves.
    """
    config = run.config
    return check_disk_space(
        run.folder if run.is_resumed else Path(config.output_root),
        step.student.state_dict(),
        optimizer_copies={"sgd": 1, "adamw": 2}[config.optimizer.base]
        + (config.training.ema_decay is not None)
        + (step.start is not None),
        keep_best=min(config.training.keep_best, config.training.epochs),
        resumed=run.is_resumed,
    )


def open_selection(run: Run, task: Task) -> BestCheckpoints:
    """Open the record of the best epochs of the run, by its selection metric.

    Args:
        run: The run.
        task: The task, which says in which direction the metric is better.
    """
    metric, keep = run.config.training.selection_metric, run.config.training.keep_best
    direction = task.metrics[metric].direction
    return BestCheckpoints(run.weights_folder, keep=keep, metric=f"{PREFIX}{metric}", direction=direction)


def is_save_due(config: RunConfig, step: int, steps_per_epoch: int, age_s: float) -> bool:
    """Whether the state is to be saved within an epoch; the end of an epoch saves anyway.

    Args:
        config: The config of the run.
        step: The number of steps of the epoch that are done.
        steps_per_epoch: The number of steps in each epoch.
        age_s: Seconds since the last save.
    """
    if step == steps_per_epoch:
        return False
    by_steps = config.save_every_steps is not None and step % config.save_every_steps == 0
    return by_steps or (config.save_every_minutes is not None and age_s >= 60 * config.save_every_minutes)


def resume_run(
    run: Run, step: TrainStep, about: Mapping[str, Any], selection: BestCheckpoints | None, *, steps_per_epoch: int
) -> TrainState:
    """Restore weights, optimiser, random states and the best epochs of a run from its last save, or the one before.

    Args:
        run: The resumed run.
        step: The models, the criterion and the optimiser to restore.
        about: The description of this run's checkpoints.
        selection: The record of the best epochs to restore; None on a rank that does not keep it.
        steps_per_epoch: The number of steps in each epoch.

    Returns:
        The progress of the run.

    Raises:
        UserError: For a state of another model, optimiser, selection metric or newer version, and where neither save
            can be used. Nothing has been changed in the folder then.
    """
    may_change = "changed-config" in run.config.allow

    def restore(stored: Checkpoint) -> tuple[TrainState, list[str]]:
        with _explain_malformed(run.folder):
            state = TrainState.from_json(stored.about["position"])
            if not may_change and (state.epoch > run.config.training.epochs + 1 or state.step > steps_per_epoch):
                raise ValueError(f"position: epoch {state.epoch}, step {state.step} lie beyond the run's end")
            for name in ("model", "criterion", "optimizer", "average", "start"):
                _check_numbers(stored.tensors.get(name), name)
            refuse_other_model(stored, step, about, run.folder)
            restore_step(step, stored.tensors)
            notes = [] if selection is None else selection.restore(stored.about["selection"])
            return state, [*_note_ranks(stored.tensors, run), *notes]

    (state, selection_notes), notes = load_run_state(run.weights_folder, restore)
    at = f"epoch {state.epoch}, step {state.step}"
    for note in [f"resuming {run.resumed_from} at {at}", *notes, *selection_notes]:
        run.say(note)
    return state


def _note_ranks(tensors: Mapping[str, Any], run: Run) -> list[str]:
    """Say where a run goes on with another number of ranks than it had: its random draws then change."""
    had, has = (len(tensors.get("rng_of_ranks") or [0]), 1 if run.ranks is None else run.ranks.count)
    return [f"the run goes on with {has} rank{'s' if has > 1 else ''}; it had {had}"] if had != has else []


def is_over(training: TrainingSection, state: TrainState, best_epoch: int | None) -> bool:
    """Whether no step is left to take.

    Args:
        training: The config's keys of the stage.
        state: The progress of the run.
        best_epoch: The best epoch so far, the earliest of equal ones; None without one.
    """
    return state.epoch > training.epochs or explain_early_stop(training, state, best_epoch) is not None


def explain_early_stop(training: TrainingSection, state: TrainState, best_epoch: int | None) -> str | None:
    """Say why a stage ends before its last epoch; None where it does not.

    The answer depends only on what a saved state holds, so that a resumed run stops after the same epoch as an
    uninterrupted one. An epoch that has begun is always finished.

    Args:
        training: The config's keys of the stage.
        state: The progress of the run.
        best_epoch: The best epoch so far, the earliest of equal ones; None without one.
    """
    patience, done = training.patience, state.epoch - 1
    if patience is None or best_epoch is None or state.step > 0 or done >= training.epochs:
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
    state: TrainState, save_state: Callable[[], None], describe_stop: Callable[[str], str], *, is_shared: bool = False
) -> Iterator[None]:
    """Context manager: an exception becomes an error with an exit code, and the state is saved if it is consistent.

    Args:
        state: The progress of the run.
        save_state: Saves the state.
        describe_stop: Describes the progress of the run, what is saved, and how to resume.
        is_shared: Whether other ranks take part in a save. After an error of one of them there is none.

    Raises:
        RunInterrupted: After a signal.
        TrainingStopped: When memory runs out.
        Exception: Any other exception, unchanged.
    """
    try:
        yield
    except StopRequested as stop:
        save_state()
        raise RunInterrupted(f"interrupted at {describe_stop('saved')}", stop.exit_code) from None
    except KeyboardInterrupt:
        where = describe_stop("this point is not saved; the last save is whole")
        raise RunInterrupted(f"stopped at once in {where}", ExitCode.INTERRUPTED) from None
    except MetricError as error:
        raise TrainingStopped(f"epoch {state.epoch}: {error}") from error
    except (OutOfMemory, RuntimeError, MemoryError) as error:
        in_step = isinstance(error, OutOfMemory)
        if not in_step and not is_out_of_memory(error):
            raise
        what = str(error) if in_step else f"out of memory while validating ({error})."
        if is_shared:
            raise TrainingStopped(f"{what}\n{describe_stop('the last save is whole')}") from error
        save_state()
        raise TrainingStopped(f"{what}\n{describe_stop('saved')}") from error


@dataclass(frozen=True)
class FitResult:
    """The result of a stage.

    Attributes:
        best_epoch: The best epoch.
        best_value: The selection metric of its model.
        best_metrics: All metrics of its model, by name.
        start: Metrics of the student before the first step of stage 2; {} where they are not known.
        skipped: Steps skipped since the run began.
        seconds: How long this process has trained.
        epochs_done: The number of epochs that this process trained.
        stopped: Why the stage ended before its last epoch; None where it did not.
    """

    best_epoch: int
    best_value: float
    best_metrics: Mapping[str, float]
    start: Mapping[str, float]
    skipped: int
    seconds: float
    epochs_done: int
    stopped: str | None = None


def read_metrics(checkpoint: Path) -> dict[str, float]:
    """Read the metrics of a checkpoint's model from the JSON beside it, by name; {} if it holds none."""
    about = read_about(checkpoint) or {}
    ending = "_ema" if about.get("selected") == "ema" else ""
    names = {key.removeprefix(PREFIX) for key in about if key.startswith(PREFIX) and not key.endswith("_ema")}
    found = {name: about.get(f"{PREFIX}{name}{ending}") for name in sorted(names)}
    return {name: value for name, value in found.items() if isinstance(value, float)}
