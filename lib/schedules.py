"""Scalar schedules: a value as a function of where the run stands. Pure; for weights, temperature and learning rate.

Epochs count from 1, as in the logs and in the published table of the two-stage guide.
"""

from __future__ import annotations

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
        return ((self.epoch - 1) * self.steps_per_epoch + self.step) / (self.epochs * self.steps_per_epoch)


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
