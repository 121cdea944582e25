"""Scalar schedules: a value as a function of where the run stands. Pure; for weights, temperature and learning rate.

Epochs count from 1, as in the logs and in the published table of the two-stage guide.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """Where a run stands: epoch 1..epochs, step 0..steps_per_epoch-1 within it."""

    epoch: int
    step: int
    epochs: int
    steps_per_epoch: int

    @property
    def fraction(self) -> float:
        """Share of all steps already done, in [0, 1)."""
        return self.done / (self.epochs * self.steps_per_epoch)

    @property
    def done(self) -> int:
        """Steps already done, from 0."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step

    @property
    def way(self) -> float:
        """Share of the way from the first step, 0, to the last, 1; a run of one step stays at the start, 0."""
        return self.done / max(1, self.epochs * self.steps_per_epoch - 1)


class Schedule(Protocol):
    """A scalar that depends on nothing but the progress of the run."""

    def __call__(self, progress: Progress) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same value for ever."""

    value: float

    def __call__(self, progress: Progress) -> float:
        return self.value


@dataclass(frozen=True)
class Staircase:
    """Equal stairs from `start` over `epochs` epochs, then `end`: the progressive table of the two-stage guide.

    k = floor(4 (e - 1) / epochs), value = start - k (2/9) (start - end) for e <= epochs, then end; 2/9 is 2 / (2
    stairs + 1), so that the drop to `end` is one and a half stairs high, whatever their number. With 0.95, 0.5, 20:
    .95 .85 .75 .65, then .50.
    """

    start: float
    end: float
    epochs: int
    stairs: int = 4

    def __call__(self, progress: Progress) -> float:
        if progress.epoch > self.epochs:
            return self.end
        stair = self.stairs * (progress.epoch - 1) // self.epochs
        # Rounded so that the table is exact to the digit (0.95 - 2 * 0.1 is 0.7499999999999999 otherwise).
        value = round(self.start - stair * 2 / (2 * self.stairs + 1) * (self.start - self.end), 12)
        # Rounding must not carry a tiny weight past its ends.
        return max(min(self.start, self.end), min(max(self.start, self.end), value))


@dataclass(frozen=True)
class Complement:
    """One minus another schedule: the soft weight that belongs to a hard weight."""

    of: Schedule

    def __call__(self, progress: Progress) -> float:
        return round(1.0 - self.of(progress), 12)


@dataclass(frozen=True)
class FlatThenLinear:
    """`value` until `flat` (a share of all steps), then linearly to 0 at the end; over `warmup` (a share) it rises."""

    value: float
    flat: float = 0.75
    warmup: float = 0.0

    def __call__(self, progress: Progress) -> float:
        done = progress.fraction
        if done < self.warmup:
            step = 1 / (progress.epochs * progress.steps_per_epoch)
            return self.value * min(1.0, (done + step) / self.warmup)
        if done < self.flat or math.isclose(self.flat, 1.0):
            return self.value
        return self.value * (1.0 - done) / (1.0 - self.flat)


@dataclass(frozen=True)
class RiseThenLinear:
    """From 0 to `value` over `rise` (a share of all steps), then linearly to `end`; constant when both are idle."""

    value: float
    end: float
    rise: float = 0.0

    def __call__(self, progress: Progress) -> float:
        done = progress.fraction
        if done < self.rise:
            step = 1 / (progress.epochs * progress.steps_per_epoch)
            return self.value * min(1.0, (done + step) / self.rise)
        if self.end == self.value:
            return self.value
        return self.value + (self.end - self.value) * (done - self.rise) / (1.0 - self.rise)


@dataclass(frozen=True)
class Linear:
    """From `start` at the first step of the run to `end` at the last, along a straight line, a little each step.

    value = (1 - s) start + s end, s = step / (total steps - 1), so that both ends are met to the bit. A run of one
    step takes `start`.
    """

    start: float
    end: float

    def __call__(self, progress: Progress) -> float:
        return _mix(self.start, self.end, progress.way)


@dataclass(frozen=True)
class Cosine:
    """From `start` at the first step of the run to `end` at the last, along half a cosine: slow, quick, slow.

    value = start + 0.5 (1 - cos(pi s)) (end - start), s = step / (total steps - 1): the annealing of Loshchilov and
    Hutter, "SGDR" (2017), equation 5, without restarts and in steps. A run of one step takes `start`.
    """

    start: float
    end: float

    def __call__(self, progress: Progress) -> float:
        return _mix(self.start, self.end, 0.5 * (1.0 - math.cos(math.pi * progress.way)))


@dataclass(frozen=True)
class Ramp:
    """From 0 to `value` over the first `epochs` epochs, in equal steps, then `value`.

    value_k = value min(1, (k + 1) / (epochs * steps per epoch)) at step k, counted from 0: as with the warm-ups, the
    first step is above 0, for a step of weight 0 would be lost, and the last step of the ramp has the full value.
    """

    value: float
    epochs: int = 1

    def __call__(self, progress: Progress) -> float:
        return self.value * min(1.0, (progress.done + 1) / (self.epochs * progress.steps_per_epoch))


@dataclass(frozen=True)
class TableSchedule:
    """Pairs (epoch, value): each value holds from its epoch on, until the next. Epochs rise, and the first is 1.

    Raises ValueError where they do not.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.points]
        if epochs[:1] != [1] or any(after <= before for before, after in itertools.pairwise(epochs)):
            raise ValueError(f"the epochs of a table must start at 1 and rise, got {epochs}")

    def __call__(self, progress: Progress) -> float:
        return next(value for epoch, value in reversed(self.points) if epoch <= progress.epoch)


@dataclass(frozen=True)
class TwoStage:
    """`start` in the epochs 1 to `epochs`, then `end`: one drop, and nothing in between."""

    start: float
    end: float
    epochs: int

    def __call__(self, progress: Progress) -> float:
        return self.start if progress.epoch <= self.epochs else self.end


def find_constant(schedule: Schedule) -> float | None:
    """The value of a schedule that never moves, however long the run; None for one that moves, or that is unknown."""
    match schedule:
        case Constant(value):
            return value
        case Staircase(start, end) | Linear(start, end) | Cosine(start, end) | TwoStage(start, end):
            return start if start == end else None
        case TableSchedule(points):
            return points[0][1] if len({value for _, value in points}) == 1 else None
        case Complement(of):
            inner = find_constant(of)
            return None if inner is None else round(1.0 - inner, 12)
        case FlatThenLinear(value, flat, warmup):
            return value if value == 0.0 or (math.isclose(flat, 1.0) and warmup == 0.0) else None
        case RiseThenLinear(value, end, rise):
            return value if value == end and (rise == 0.0 or value == 0.0) else None
        case Ramp(value):
            return 0.0 if value == 0.0 else None
        case _:
            return None


def _mix(start: float, end: float, share: float) -> float:
    """`start` at share 0, `end` at share 1, to the bit; never past either, and no sum of both that could overflow."""
    value = (1.0 - share) * start + share * end
    return max(min(start, end), min(max(start, end), value))
