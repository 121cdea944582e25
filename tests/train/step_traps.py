"""Ways to make a step fail at a chosen call of a chosen part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from sharpstudent.criterion.weighted_sum import WeightedSum
from sharpstudent.train.step import TrainStep
from torch import Tensor, nn


class Trap:
    """Does its mischief at the given call of something."""

    def __init__(self, at: int, mischief: Callable[[Any], Any]) -> None:
        self.at, self.mischief, self.calls = at, mischief, 0

    def __call__(self, value: Any) -> Any:
        self.calls += 1
        return self.mischief(value) if self.is_sprung else value

    @property
    def is_sprung(self) -> bool:
        """Whether the call under way is the chosen one."""
        return self.calls == self.at


def to_nan(value: Tensor) -> Tensor:
    return value * float("nan")


def raise_from(error: type[BaseException]) -> Callable[[Any], Any]:
    def mischief(_: Any) -> Any:
        raise error("injected")

    return mischief


def trap_inputs(step: TrainStep, trap: Trap) -> None:
    """Nothing to set: the batch itself is bad."""


def trap_teacher(step: TrainStep, trap: Trap) -> None:
    step.teacher.register_forward_hook(lambda _, args, out: {"logits": trap(out["logits"])})


def trap_forward(step: TrainStep, trap: Trap) -> None:
    step.student.depth.register_forward_hook(lambda _, args, out: trap(out))


def trap_loss(step: TrainStep, trap: Trap) -> None:
    """Replaces the criterion by one whose first term passes through the trap."""
    terms = [
        replace(t, compute=lambda *args, t=t, **kw: trap(t.compute(*args, **kw))) for t in step.criterion.terms[:1]
    ]
    step.criterion = WeightedSum([*terms, *step.criterion.terms[1:]])


def trap_gradient(step: TrainStep, trap: Trap) -> None:
    step.student.branch.weight.register_hook(trap)


def trap_buffer(step: TrainStep, trap: Trap) -> None:
    def poison(_: nn.Module, args: Any, out: Tensor) -> None:
        if trap(0) != 0:
            step.student.norm.running_var.data[0] = float("inf")  # behind the back of autograd

    step.student.norm.register_forward_hook(poison)


def trap_clip(step: TrainStep, trap: Trap) -> None:
    """After it has scaled the gradients."""
    wrap(step.optimizer, "clip", after=trap)


def trap_unscale(step: TrainStep, trap: Trap) -> None:
    """After the gradients were divided."""
    wrap(step.loss_scale, "unscale", after=trap)


def trap_before_update(step: TrainStep, trap: Trap) -> None:
    step.optimizer.base_optimizer.register_step_pre_hook(lambda *_: trap(None))


def trap_inside_update(step: TrainStep, trap: Trap) -> None:
    """When half of the parameters, and their optimiser states, have moved."""
    base = step.optimizer.base_optimizer
    real = base.step

    def half() -> None:
        trap.calls += 1
        if trap.is_sprung:
            parameters = step.optimizer.parameters
            for parameter in parameters[len(parameters) // 2 :]:
                parameter.grad = None
            before = [p.detach().clone() for p in parameters]
            real()
            assert any(not torch.equal(p, q) for p, q in zip(parameters, before, strict=True))
            trap.mischief(None)
        real()

    base.step = half  # type: ignore[method-assign]


def trap_after_update(step: TrainStep, trap: Trap) -> None:
    step.optimizer.base_optimizer.register_step_post_hook(lambda *_: trap(None))


def trap_updated_weight(step: TrainStep, trap: Trap) -> None:
    def poison(*_: Any) -> None:
        if trap(0) != 0:
            step.student.head.bias.data[0] = float("inf")

    step.optimizer.base_optimizer.register_step_post_hook(poison)


def trap_scale_update(step: TrainStep, trap: Trap) -> None:
    """After the base step, with the scale's counter moved."""
    wrap(step.loss_scale, "step", after=trap)


def trap_inside_average(step: TrainStep, trap: Trap) -> None:
    """When some of the averaged tensors have moved and the count has not."""
    average = step.average
    real = average.update

    def half(student: nn.Module) -> None:
        trap.calls += 1
        if trap.is_sprung:
            tensors = average.tensors
            for tensor in tensors[: len(tensors) // 2]:
                tensor.copy_(torch.full_like(tensor, 7))
            trap.mischief(None)
        real(student)

    average.update = half  # type: ignore[method-assign]


def trap_after_average(step: TrainStep, trap: Trap) -> None:
    wrap(step.average, "update", after=trap)


def trap_weight_copies(step: TrainStep, trap: Trap) -> None:
    """The copies of the weights that both the ascent and the transaction need."""
    wrap(step.optimizer, "copy_parameters", before=trap)


def trap_average_copies(step: TrainStep, trap: Trap) -> None:
    """The last copies before the update."""
    if type(step.average).__name__ != "TrappedAverage":
        kind = type(step.average)
        tensors = kind.tensors.fget
        step.average.__class__ = type(
            "TrappedAverage", (kind,), {"tensors": property(lambda self: (self.trap(None), tensors(self))[1])}
        )
    step.average.trap = trap


def wrap(
    owner: Any, name: str, *, before: Callable[[Any], Any] | None = None, after: Callable[[Any], Any] | None = None
) -> None:
    """Calls something before or after each call of one method of one object."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(None)
        result = real(*args, **kwargs)
        if after is not None:
            after(None)
        return result

    setattr(owner, name, wrapped)
