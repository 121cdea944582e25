"""Where a run stands, and the state of its step: taken for saving, put back on a resume, refused where it misfits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib.checkpoint.resume import RunState
from lib.engine.collapse import CollapseWatch
from lib.engine.step import TrainStep
from lib.errors import Problem, UserError
from lib.random import capture_rng_state, restore_rng_state


@dataclass
class Position:
    """Where the run stands: the next step to take, and what the epoch under way has summed up so far."""

    epoch: int = 1
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    start_auc: float | None = None  # of single pictures, of the student as it came from stage 1
    start_accuracy: float | None = None  # of the same
    parts: int | None = None  # micro-batches a batch passes in, once memory has run out
    unreadable: dict[str, str] = field(default_factory=dict[str, str])  # path -> reason
    told_ratio: bool = False  # the advice on the terms' balance has been given
    watch: CollapseWatch = field(default_factory=CollapseWatch)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "sums": dict(self.sums), "watch": self.watch.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Position:
        watch = CollapseWatch(**stored.get("watch", {}))
        return cls(**{**stored, "sums": defaultdict(float, stored["sums"]), "watch": watch})


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


def refuse_other_model(state: RunState, step: TrainStep, about: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError when the state is of another model or optimiser: no permission makes it fit."""
    groups, ours = (_name_options(s) for s in (state.tensors["optimizer"], step.optimizer.state_dict()))
    changes = [
        f"{key}: {state.progress.get(key)} -> {about[key]}"
        for key in ("architecture", "classes")
        if state.progress.get(key) != about[key]
    ]
    changes += ["optimizer: its stored state is that of another kind"] if groups != ours else []
    stored, now = (_name_shapes(s) for s in (state.tensors.get("criterion", {}), step.criterion.module.state_dict()))
    changes += [
        f"projection {name}: {stored.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in dict.fromkeys((*stored, *now))
        if stored.get(name) != now.get(name)
    ]
    if changes:
        raise UserError(
            Problem(
                where=f"--resume {folder}",
                what="cannot go on with another model or optimiser, --allow changed-config or not",
                got="\n".join(changes),
                remedy="start a new run: -n NAME without --resume",
            )
        )


def _name_options(stored: Mapping[str, Any]) -> list[tuple[frozenset[str], int]]:
    """The option names and the number of parameters of each group: what tells one kind of optimiser from another."""
    return [(frozenset(group), len(group["params"])) for group in stored["base"]["param_groups"]]


def _name_shapes(stored: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in stored.items()}
