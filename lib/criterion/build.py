"""From the config's terms to the criterion."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lib.config.build_schedule import build_schedule
from lib.config.sections import TermSection
from lib.criterion.cross_entropy import compute_cross_entropy
from lib.criterion.distillation import compute_kd
from lib.criterion.weighted_sum import WeightedSum, WeightedTerm
from lib.types import Batch, Outputs


def build_criterion(sections: Sequence[TermSection]) -> WeightedSum:
    """The weighted sum of the config's terms, in their order."""
    return WeightedSum([_build_term(section) for section in sections])


def _build_term(section: TermSection) -> WeightedTerm:
    weight = build_schedule(section.weight)
    if section.term == "hard":
        return WeightedTerm("hard", _compute_hard, weight)
    numbers = {name: build_schedule(number) for name, number in section.numbers.items()}
    return WeightedTerm("kd", _compute_kd, weight, settings=numbers, needs_teacher=True)


def _compute_hard(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None) -> Tensor:
    return compute_cross_entropy(outputs.logits, batch.labels)


def _compute_kd(outputs: Outputs, batch: Batch, teacher_outputs: Outputs, *, temperature: float) -> Tensor:
    return compute_kd(outputs.logits, teacher_outputs.logits, temperature)
