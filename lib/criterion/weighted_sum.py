"""The criterion: a list of pure terms, each with an absolute weight that follows a schedule.

An absent term is absent from the list; there are no switches and no counters here. SAM calls it twice a step, with the
same progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lib.schedules import Complement, Constant, FlatThenLinear, Progress, Schedule, Staircase
from lib.types import Batch, Outputs


@dataclass(frozen=True)
class WeightedTerm:
    """One term of the loss.

    compute(outputs, batch, teacher_outputs, **settings) gives a scalar; `settings` (such as `temperature`) are
    schedules too and reach it as numbers. teacher_outputs is None where nobody asked the teacher.
    """

    name: str
    compute: Callable[..., Tensor]
    weight: Schedule
    settings: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    needs_teacher: bool = False


@dataclass(frozen=True)
class LossValue:
    """total: scalar with its graph; terms: each term, unweighted and detached; one of weight 0 is absent."""

    total: Tensor
    terms: Mapping[str, Tensor]


class WeightedSum:
    """total = sum over terms of weight(progress) * term. Pure: the same arguments give the same value."""

    def __init__(self, terms: Sequence[WeightedTerm]) -> None:
        names = [term.name for term in terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a criterion needs one or more terms of different names, got {names}")
        self.terms = tuple(terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that reads the teacher can ever have a weight other than 0."""
        return any(term.needs_teacher and not _is_always(term.weight, 0.0) for term in self.terms)

    def __call__(
        self, outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None, progress: Progress
    ) -> LossValue:
        """The weighted sum on one batch. A term of weight 0 is not computed: 0 * inf would be nan."""
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        for term in self.terms:
            weight = _compute_weight(term, progress)
            if weight == 0.0:
                continue
            if term.needs_teacher and teacher_outputs is None:
                raise ValueError(f"the term {term.name!r} has weight {weight} but no teacher was asked")
            settings = {name: schedule(progress) for name, schedule in term.settings.items()}
            value = term.compute(outputs, batch, teacher_outputs, **settings)
            values[term.name] = value.detach()
            total = weight * value if total is None else total + weight * value
        if total is None:
            raise ValueError(f"every term has weight 0 in epoch {progress.epoch}: there is nothing to learn from")
        return LossValue(total=total, terms=values)

    def weights(self, progress: Progress) -> dict[str, float]:
        """The weight of every term by name, zeros included."""
        return {term.name: _compute_weight(term, progress) for term in self.terms}

    def temperature(self, progress: Progress) -> float | None:
        """The temperature of the first term that has one, else None."""
        found = (term.settings["temperature"] for term in self.terms if "temperature" in term.settings)
        schedule = next(found, None)
        return None if schedule is None else schedule(progress)

    def describe(self, progress: Progress) -> dict[str, float]:
        """Every number that steers the loss, for logs: `hard/weight`, `kd/weight`, `kd/temperature`, in order."""
        numbers: dict[str, float] = {}
        for term in self.terms:
            numbers[f"{term.name}/weight"] = _compute_weight(term, progress)
            for name, schedule in term.settings.items():
                numbers[f"{term.name}/{name}"] = schedule(progress)
        return numbers


def _compute_weight(term: WeightedTerm, progress: Progress) -> float:
    weight = term.weight(progress)
    if not (math.isfinite(weight) and weight >= 0.0):
        raise ValueError(f"the weight of the term {term.name!r} must be finite and >= 0, got {weight}")
    return weight


def _is_always(schedule: Schedule, value: float) -> bool:
    """Whether the schedule is this value at every progress; False where it cannot be known."""
    match schedule:
        case Constant():
            return schedule.value == value
        case Staircase():
            return schedule.start == schedule.end == value
        case Complement():
            return _is_always(schedule.of, 1.0 - value)
        case FlatThenLinear():
            return schedule.value == value == 0.0
        case _:
            return False
