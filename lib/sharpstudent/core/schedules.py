"""Schedules: scalars (learning rate, weights, temperature) as functions of the progress of a run.

The classes with a `kind` can be written in a config; pydantic reads them from JSON, with these fields and bounds.
Epochs count from 1, as in the logs and in the published table of the two-stage guide.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, Field

Count = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: The current epoch, 1 to `epochs`.
        step: The current step within the epoch, 0 to `steps_per_epoch` - 1.
        epochs: Number of epochs in the run.
        steps_per_epoch: Number of steps in each epoch.
    """

    epoch: int
    step: int
    epochs: int
    steps_per_epoch: int

    @property
    def fraction(self) -> float:
        """Share of all steps that are done, in [0, 1)."""
        return self.done / (self.epochs * self.steps_per_epoch)

    @property
    def done(self) -> int:
        """Number of steps of the run that are done, from 0."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step

    @property
    def share_to_last(self) -> float:
        """The linear share of the way from the first step of the run (0) to its last (1); 0 in a run of one step."""
        return self.done / max(1, self.epochs * self.steps_per_epoch - 1)


class Schedule(Protocol):
    """A scalar that depends on nothing but the progress of the run."""

    def __call__(self, progress: Progress) -> float:
        """The value at a step of the run."""
        ...


def _check_points(points: dict[str, float]) -> dict[str, float]:
    """Check the keys: epochs as text (JSON has no other keys), without leading zeros, and epoch 1 among them."""
    wrong = sorted(epoch for epoch in points if re.fullmatch("[1-9][0-9]{0,6}", epoch) is None)
    if wrong:
        raise ValueError(f'has a key that is no epoch: "{wrong[0]}"')
    if "1" not in points:
        raise ValueError("has no value for epoch 1")
    return points


@dataclass(frozen=True, kw_only=True)
class ConfigSchedule(ABC):
    """A schedule that a config can write.

    Attributes:
        kind: The name of its shape in the config.
        complement: Whether the value is one minus the shape. A teacher's weight 1 - alpha follows alpha in this way.
    """

    kind: str = ""
    complement: bool = False

    def __call__(self, progress: Progress) -> float:
        """The value at a step of the run."""
        value = self._compute(progress)
        return round(1.0 - value, 12) if self.complement else value

    @abstractmethod
    def _compute(self, progress: Progress) -> float:
        """Compute the value of the shape, before `complement` is applied."""
        ...

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that the config gives, by field: `start`, `end` or `value`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in ("start", "end", "value")}

    @property
    def turns(self) -> set[int]:
        """The epochs inside a run at which the schedule can turn or jump."""
        return {getattr(self, "epochs") + 1} if hasattr(self, "epochs") else set()  # noqa: B009, not all have it

    @property
    def constant(self) -> float | None:
        """The value of a schedule that is the same throughout any run; None for any other schedule."""
        extremes = {0.0, *self.numbers.values()} if isinstance(self, Ramp) else set(self.numbers.values())
        return self(Progress(1, 0, 1, 1)) if len(extremes) == 1 else None

    def as_json(self) -> dict[str, Any]:
        """The schedule as a config writes it: `kind`, and the fields that differ from their defaults."""
        written = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {"kind": self.kind, **written}

    def scale(self, factor: float) -> Self:
        """The schedule with `factor` times every value, over the same epochs."""
        return replace(self, **{name: value * factor for name, value in self.numbers.items()})


@dataclass(frozen=True)
class Constant(ConfigSchedule):
    """The same value throughout."""

    value: float
    kind: Literal["constant"] = field(default="constant", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(ConfigSchedule):
    """From `start` at the first step of the run to `end` at the last, along a straight line, in each step.

    value = (1 - s) start + s end, s = step / (total steps - 1), so that both ends are reached to the bit. A run of one
    step has `start`.
    """

    start: float
    end: float
    kind: Literal["linear"] = field(default="linear", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return _mix(self.start, self.end, progress.share_to_last)


@dataclass(frozen=True)
class Cosine(ConfigSchedule):
    """From `start` at the first step of the run to `end` at the last, along half a cosine, in each step.

    value = start + 0.5 (1 - cos(pi s)) (end - start), s = step / (total steps - 1): the annealing of Loshchilov and
    Hutter, "SGDR" (2017), equation 5, without restarts. A run of one step has `start`.
    """

    start: float
    end: float
    kind: Literal["cosine"] = field(default="cosine", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return _mix(self.start, self.end, 0.5 * (1.0 - math.cos(math.pi * progress.share_to_last)))


@dataclass(frozen=True)
class Staircase(ConfigSchedule):
    """Equal stairs from `start` over `epochs` epochs, then `end`: the progressive table of the two-stage guide.

    k = floor(stairs (e - 1) / epochs), value = start - k 2 / (2 stairs + 1) (start - end) for e <= epochs, then end. So
    the drop to `end` is one and a half stairs high, whatever their number. With 0.95, 0.5, 20 and 4 stairs: .95 .85 .75
    .65, then .50.
    """

    start: float
    end: float
    epochs: Count
    stairs: Count = 4
    kind: Literal["staircase"] = field(default="staircase", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        if progress.epoch > self.epochs:
            return self.end
        stair = self.stairs * (progress.epoch - 1) // self.epochs
        # Rounded so that the table is exact to the digit (0.95 - 2 * 0.1 is 0.7499999999999999 otherwise).
        value = round(self.start - stair * 2 / (2 * self.stairs + 1) * (self.start - self.end), 12)
        # Rounding must not move a tiny weight beyond `start` or `end`.
        return max(min(self.start, self.end), min(max(self.start, self.end), value))


@dataclass(frozen=True)
class Ramp(ConfigSchedule):
    """From 0 to `value` over the first `epochs` epochs, in equal steps, then `value`.

    value_k = value min(1, (k + 1) / (epochs * steps per epoch)) at step k, counted from 0. As in the warm-ups, the
    first step is above 0, because a step of weight 0 would be lost, and the last step of the ramp has the full value.
    """

    value: float
    epochs: Count = 1
    kind: Literal["ramp"] = field(default="ramp", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return self.value * min(1.0, (progress.done + 1) / (self.epochs * progress.steps_per_epoch))


@dataclass(frozen=True)
class Table(ConfigSchedule):
    """Values from given epochs on: each one is valid until the epoch of the next.

    Attributes:
        points: Epoch (as text, from 1 on, "1" among them) -> value.
    """

    points: Annotated[dict[str, float], AfterValidator(_check_points)]
    kind: Literal["table"] = field(default="table", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return self.points[str(max(epoch for epoch in map(int, self.points) if epoch <= progress.epoch))]

    @property
    def numbers(self) -> dict[str, float]:
        """The values by `points.EPOCH`, in the order of the epochs."""
        return {f"points.{epoch}": self.points[epoch] for epoch in sorted(self.points, key=int)}

    @property
    def turns(self) -> set[int]:
        """The epochs of the points."""
        return set(map(int, self.points))

    def scale(self, factor: float) -> Self:
        """The schedule with `factor` times every value, at the same epochs."""
        return replace(self, points={epoch: value * factor for epoch, value in self.points.items()})


@dataclass(frozen=True)
class TwoStage(ConfigSchedule):
    """The value `start` in the epochs 1 to `epochs`, then `end`."""

    start: float
    end: float
    epochs: Count
    kind: Literal["two_stage"] = field(default="two_stage", kw_only=True)

    def _compute(self, progress: Progress) -> float:
        return self.start if progress.epoch <= self.epochs else self.end


KINDS: dict[str, type[ConfigSchedule]] = {
    kind.kind: kind for kind in (Constant, Linear, Cosine, Staircase, Ramp, Table, TwoStage)
}


@dataclass(frozen=True)
class FlatThenLinear:
    """A constant value that falls linearly to 0 at the end of the run; a warm-up first raises it from 0.

    Attributes:
        value: The constant.
        flat: Share of all steps after which the value begins to fall.
        warmup: Share of all steps over which the value rises.
    """

    value: float
    flat: float = 0.75
    warmup: float = 0.0

    def __call__(self, progress: Progress) -> float:
        """The value at a step of the run."""
        done = progress.fraction
        if done < self.warmup:
            step = 1 / (progress.epochs * progress.steps_per_epoch)
            return self.value * min(1.0, (done + step) / self.warmup)
        if done < self.flat or math.isclose(self.flat, 1.0):
            return self.value
        return self.value * (1.0 - done) / (1.0 - self.flat)


@dataclass(frozen=True)
class RiseThenLinear:
    """From 0 to `value` over `rise`, then linearly to `end`; constant where `rise` is 0 and `end` is `value`.

    Attributes:
        value: The value after the rise.
        end: The value at the end of the run.
        rise: Share of all steps over which the value rises.
    """

    value: float
    end: float
    rise: float = 0.0

    def __call__(self, progress: Progress) -> float:
        """The value at a step of the run."""
        done = progress.fraction
        if done < self.rise:
            step = 1 / (progress.epochs * progress.steps_per_epoch)
            return self.value * min(1.0, (done + step) / self.rise)
        if self.end == self.value:
            return self.value
        return self.value + (self.end - self.value) * (done - self.rise) / (1.0 - self.rise)


@dataclass(frozen=True)
class ZeroUntil:
    """0, and the value of another schedule in the last steps of the run.

    Attributes:
        inner: The other schedule.
        last: Share of all steps that have its value.
    """

    inner: Schedule
    last: float

    def __call__(self, progress: Progress) -> float:
        """The value at a step of the run."""
        is_late = progress.fraction >= 1.0 - self.last or math.isclose(progress.fraction, 1.0 - self.last)
        return self.inner(progress) if is_late else 0.0


def _mix(start: float, end: float, share: float) -> float:
    """Interpolate linearly: exactly `start` at share 0, and exactly `end` at share 1.

    The result never leaves the range of the two, and no sum of both can overflow.
    """
    value = (1.0 - share) * start + share * end
    return max(min(start, end), min(max(start, end), value))
