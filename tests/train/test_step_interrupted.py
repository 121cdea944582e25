"""A KeyboardInterrupt at every line that a step executes: the state is bit for bit that before the step.

Python delivers an interrupt between any two instructions. Here a trace function raises one at the n-th line, for every
n until a step comes through.

What is not covered, and cannot be in Python: a second interrupt while the first is being rolled back. In a run the
first Ctrl-C is a flag that is looked at between steps; the second raises, and ends the run without saving.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import pytest
import sharpstudent.core.random
import sharpstudent.optim.average
import sharpstudent.optim.build
import sharpstudent.optim.sam
import sharpstudent.train.step
import sharpstudent.train.transaction
import timm.utils.model_ema
import torch
from sharpstudent.train.step import TrainStep
from step_traps import Trap, to_nan, trap_loss
from tiny_models import START, are_identical, make_batch, make_full_step, take_snapshot

OURS: list[ModuleType] = [
    sharpstudent.train.step,
    sharpstudent.train.transaction,
    sharpstudent.optim.average,
    sharpstudent.optim.build,
    sharpstudent.optim.sam,
    sharpstudent.core.random,
]
# Where torch and timm do the step's work in Python, line after line.
THEIRS: list[ModuleType] = [
    *(sys.modules[f"torch.optim.{name}"] for name in ("sgd", "adamw", "adam", "optimizer")),
    torch.amp.grad_scaler,
    timm.utils.model_ema,
    contextlib,
]


class Interruption:
    """Raises KeyboardInterrupt at the n-th line executed in some modules (from 1; 0 only counts)."""

    def __init__(self, at: int, modules: list[ModuleType]) -> None:
        self.at, self.lines, self.where = at, 0, ""
        self._files = {inspect.getsourcefile(module) for module in modules}

    def __enter__(self) -> Interruption:
        self._previous = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _enter_frame(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        return self._follow if frame.f_code.co_filename in self._files else None

    def _follow(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
                raise KeyboardInterrupt
        return self._follow


def nothing(step: TrainStep) -> None:
    """A step that is taken."""


def overflow(step: TrainStep) -> None:
    """A step that overflows in pass 2, is rolled back, and halves the scale."""
    step.student.branch.weight.register_hook(lambda g: g if step.student.norm.track_running_stats else to_nan(g))


def bad_loss(step: TrainStep) -> None:
    """A step whose loss is not finite, always."""

    class Always(Trap):
        is_sprung = True

    trap_loss(step, Always(1, to_nan))


def interrupt_everywhere(base: str, spoil: Callable[[TrainStep], None], modules: list[ModuleType], every: int) -> int:
    """Returns how many lines were interrupted. Raises AssertionError at the first that left a trace."""
    torch.manual_seed(11)
    step = make_full_step(base=base)
    assert step(make_batch(0), START).ok  # so that the optimiser has a state
    spoil(step)
    before, batch = take_snapshot(step), make_batch(1)

    at = interrupted = 0
    while True:
        at += every
        with Interruption(at, modules) as interruption:
            try:
                result = step(batch, START)
                break
            except KeyboardInterrupt:
                interrupted += 1
        left = take_snapshot(step)
        changed = [name for name in before if not are_identical(before[name], left[name])]
        assert not changed, f"an interrupt at {interruption.where} left its trace in {changed}"
    check_the_whole_step(base, spoil, step, result)
    return interrupted


def check_the_whole_step(base: str, spoil: Callable[[TrainStep], None], step: TrainStep, result: Any) -> None:
    """After all those interrupts the step is the one of a run that was never interrupted."""
    torch.manual_seed(11)
    alone = make_full_step(base=base)
    assert alone(make_batch(0), START).ok
    spoil(alone)
    wanted = alone(make_batch(1), START)
    assert (result.status, result.reason) == (wanted.status, wanted.reason)
    assert result.status == ("ok" if spoil is nothing else "skipped")
    assert are_identical(take_snapshot(step), take_snapshot(alone))


def test_an_interrupt_at_lines_spread_over_the_step_leaves_no_trace() -> None:
    assert interrupt_everywhere("sgd", nothing, OURS, every=13) > 30


def test_an_interrupt_while_a_failed_step_is_rolled_back_leaves_no_trace() -> None:
    assert interrupt_everywhere("sgd", overflow, OURS, every=13) > 30


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [nothing, overflow, bad_loss])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_an_interrupt_at_every_line_of_ours_leaves_no_trace(base: str, spoil: Callable[[TrainStep], None]) -> None:
    lines = interrupt_everywhere(base, spoil, OURS, every=1)
    print(f"{base}, {spoil.__name__}: {lines} lines interrupted")
    assert lines > 100


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_an_interrupt_at_every_line_of_the_libraries_that_move_the_state_leaves_no_trace(base: str) -> None:
    lines = interrupt_everywhere(base, nothing, THEIRS, every=1)
    print(f"{base}: {lines} lines interrupted")
    assert lines > 500
