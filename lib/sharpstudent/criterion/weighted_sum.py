"""The criterion: a list of pure terms, each with an absolute weight that follows a schedule.

A term that is not used is not in the list. The criterion has no state: SAM calls it twice in a step with the same
progress, and both passes must see the same loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sharpstudent.config.terms import TargetSource
from sharpstudent.core.schedules import Progress, Schedule
from sharpstudent.core.types import Batch, Outputs

# The models whose outputs a term can learn from, as messages call them.
SOURCES: Mapping[TargetSource, str] = {"teacher": "teacher", "ema": "averaged student"}


@dataclass(frozen=True)
class WeightedTerm:
    """One term of the loss.

    Attributes:
        name: Its name in logs and checkpoints.
        compute: `compute(outputs, batch, teacher_outputs, **settings)` gives a value per row (R,), whose weighted mean
            is the term. `teacher_outputs` has the outputs of the source for the same batch; it is None where there is
            none.
        weight: The factor of the term.
        settings: Scheduled numbers, such as `temperature`; `compute` gets their values by name.
        source: The model whose outputs are the targets: the teacher, or the student's averaged weights (`ema`); None
            for neither.
        where: The name of the batch's weights that the rows have in this term. With None, or with a name that the batch
            lacks, every row has weight 1.
        couples_rows: Whether the value is one scalar for all rows together, which cannot be computed in parts. Such a
            term applies the weights of the rows itself.
        least_rows: The rows below which it says nothing; of fewer its value is 0.
        module: A module with parameters that are trained with the student, such as a projection. It may have no
            buffers, because a step that fails would not restore them.
        student_layers: Layers of the student whose feature maps it reads, as `features/LAYER`.
        teacher_layers: Layers of the teacher whose feature maps it reads.
    """

    name: str
    compute: Callable[..., Tensor]
    weight: Schedule
    settings: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    source: TargetSource | None = None
    where: str | None = None
    couples_rows: bool = False
    least_rows: int = 1
    module: nn.Module | None = None
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossValue:
    """The value of the criterion on a batch.

    Attributes:
        total: The weighted sum, a scalar with its graph.
        terms: Each term without its weight, detached; a term of weight 0 is absent.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class WeightedSum:
    """The sum over terms of weight(progress) * term. It is pure: the same arguments give the same value."""

    def __init__(self, terms: Sequence[WeightedTerm]) -> None:
        names = [term.name for term in terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a criterion needs one or more terms of different names, got {names}")
        self.terms = tuple(terms)
        self.module = nn.ModuleDict({term.name: term.module for term in terms if term.module is not None})
        if any(True for _ in self.module.buffers()):
            raise ValueError("the module of a term may have parameters only, no buffers")

    @property
    def sources(self) -> frozenset[TargetSource]:
        """The sources of all terms, except those whose weight is always 0."""
        return frozenset(
            term.source
            for term in self.terms
            if term.source is not None and getattr(term.weight, "constant", None) != 0.0
        )

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The student's layers whose feature maps the terms read."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.student_layers))

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's layers whose feature maps the terms read."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.teacher_layers))

    def count(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Sum, for each term, the weights of all rows in these parts of a batch: the divisor of its weighted mean."""
        return {
            term.name: sum(
                float(len(batch) if weights is None else weights.sum())
                for batch in batches
                for weights in [_find_weights(term, batch)]
            )
            for term in self.terms
        }

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        source_outputs: Mapping[TargetSource, Outputs],
        progress: Progress,
        *,
        totals: Mapping[str, float] | None = None,
    ) -> LossValue:
        """Compute the weighted sum on one batch, or on one part of it.

        A term of weight 0 is not computed: 0 * inf would be nan. A term whose rows all weigh 0 is 0, with its graph.

        Args:
            outputs: Outputs of the student.
            batch: The rows.
            source_outputs: Outputs of each of the `sources`.
            progress: How far the run is; schedules read it.
            totals: For one part of a batch, what `count` gives for the whole batch: the values of all parts then add up
                to those of the whole. None for a whole batch.
        """
        totals = self.count([batch]) if totals is None else totals
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        for term in self.terms:
            weight = _compute_weight(term, progress)
            if weight == 0.0:
                continue
            teacher_outputs = None if term.source is None else source_outputs.get(term.source)
            if term.source is not None and teacher_outputs is None:
                missing = f"there are no outputs of the {SOURCES[term.source]}"
                raise ValueError(f"the term {term.name!r} has weight {weight}, but {missing}")
            settings = {name: schedule(progress) for name, schedule in term.settings.items()}
            value = _reduce(term, term.compute(outputs, batch, teacher_outputs, **settings), batch, totals[term.name])
            values[term.name] = value.detach()
            total = weight * value if total is None else total + weight * value
        if total is None:
            raise ValueError(f"every term has weight 0 in epoch {progress.epoch}: there is nothing to learn from")
        return LossValue(total=total, terms=values)

    def describe(self, progress: Progress) -> dict[str, float]:
        """List every number of the loss at this progress, for logs: `hard/weight`, `kd/temperature` and so on."""
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


def check_values(term: WeightedTerm, values: Tensor, rows: int) -> None:
    """Check the shape of the values of a term.

    Args:
        term: The term.
        values: What its `compute` gave.
        rows: Number of rows in the batch.

    Raises:
        ValueError: Unless there is one value per row, or one scalar where the term couples the rows.
    """
    if values.shape != (() if term.couples_rows else (rows,)):
        wanted = "one scalar" if term.couples_rows else "one value"
        raise ValueError(
            f"the term {term.name!r} must give {wanted} for {'all' if term.couples_rows else 'each'} of the {rows} "
            f"rows of the batch, not the shape {tuple(values.shape)}"
        )


def _find_weights(term: WeightedTerm, batch: Batch) -> Tensor | None:
    """Find the weights of the rows (R,) for a term; None where every row has weight 1."""
    return None if term.where is None else batch.weights.get(term.where)


def _reduce(term: WeightedTerm, values: Tensor, batch: Batch, total: float) -> Tensor:
    """Compute sum(w l) / total, the part of the batch's weighted mean that comes from these rows."""
    check_values(term, values, len(batch))
    if term.couples_rows:
        return values
    weights = _find_weights(term, batch)
    if weights is None:
        return values.sum() / total
    # The value of a row without the target may be nan or inf, so it is left out and not multiplied by 0.
    summed = torch.where(weights > 0, values * weights, torch.zeros_like(values)).sum()
    return summed / total if total > 0.0 else summed
