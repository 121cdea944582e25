"""The criterion: a list of pure terms, each with an absolute weight that follows a schedule.

An absent term is absent from the list; there are no switches and no counters here. SAM calls it twice a step, with the
same progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from sharpstudent.config.terms import Asks
from sharpstudent.core.schedules import Progress, Schedule, find_constant
from sharpstudent.core.types import Batch, Outputs

# Whom a term can ask, as messages call them.
SOURCES: Mapping[Asks, str] = {"teacher": "teacher", "ema": "averaged student"}


@dataclass(frozen=True)
class WeightedTerm:
    """One term of the loss.

    compute(outputs, batch, answer, **settings) gives a value for each row of the batch (B,); their mean is the term.
    `settings` (such as `temperature`) are schedules too and reach it as numbers. answer: what `asks` says of the same
    batch, the teacher or the student's averaged weights; None where the term asks nobody. module: what the term itself
    learns, such as a projection; parameters only, for buffers would not be put back with a step that fails.
    student_layers, teacher_layers: whose feature maps it reads, in `outputs.features` and `answer.features`.
    """

    name: str
    compute: Callable[..., Tensor]
    weight: Schedule
    settings: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    asks: Asks | None = None
    module: nn.Module | None = None
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def compute_rows(self, outputs: Outputs, batch: Batch, answer: Outputs | None, progress: Progress) -> Tensor:
        """The term's value for each row (B,), unweighted, with its graph. Raises ValueError for a value of another
        shape: a mean over the batch would be weighed wrongly, and silently.
        """
        settings = {name: schedule(progress) for name, schedule in self.settings.items()}
        rows = self.compute(outputs, batch, answer, **settings)
        if rows.shape != batch.labels.shape:
            raise ValueError(
                f"the term {self.name!r} must give one value for each of the {len(batch)} rows of a batch, "
                f"got the shape {tuple(rows.shape)}"
            )
        return rows


@dataclass(frozen=True)
class LossValue:
    """total: scalar with its graph; terms: each term, unweighted and detached; one of weight 0 is absent.

    Of a part of a batch: its share of them, so that those of all parts add up to those of the batch.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class WeightedSum:
    """total = sum over terms of weight(progress) * term. Pure: the same arguments give the same value."""

    def __init__(self, terms: Sequence[WeightedTerm]) -> None:
        names = [term.name for term in terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a criterion needs one or more terms of different names, got {names}")
        self.terms = tuple(terms)
        self.module = nn.ModuleDict({term.name: term.module for term in terms if term.module is not None})
        if any(True for _ in self.module.buffers()):
            raise ValueError("what a term learns may hold parameters only, no buffers")

    @property
    def asked(self) -> frozenset[Asks]:
        """Whose answers are read by a term that can ever have a weight other than 0."""
        return frozenset(
            term.asks for term in self.terms if term.asks is not None and find_constant(term.weight) != 0.0
        )

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The student's layers whose feature maps the terms read."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.student_layers))

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's layers whose feature maps the terms read."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.teacher_layers))

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        answers: Mapping[Asks, Outputs],
        progress: Progress,
        *,
        images: int | None = None,
    ) -> LossValue:
        """The weighted sum of the terms, each the mean of its rows. answers: of each source in `asked`; images: of the
        whole batch where this is a part of it, so that each row weighs the same in whatever part it is.

        A term of weight 0 is not computed: 0 * inf would be nan.
        """
        count = len(batch) if images is None else images
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        for term in self.terms:
            weight = _compute_weight(term, progress)
            if weight == 0.0:
                continue
            answer = None if term.asks is None else answers.get(term.asks)
            if term.asks is not None and answer is None:
                raise ValueError(f"the term {term.name!r} has weight {weight} but no {SOURCES[term.asks]} was asked")
            value = term.compute_rows(outputs, batch, answer, progress).sum() / count
            values[term.name] = value.detach()
            total = weight * value if total is None else total + weight * value
        if total is None:
            raise ValueError(f"every term has weight 0 in epoch {progress.epoch}: there is nothing to learn from")
        return LossValue(total=total, terms=values)

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
