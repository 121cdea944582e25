"""From the config's terms to the criterion. Each term is built by the file that config/terms.py names for it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.criterion.gradient_check import check_liveness
from sharpstudent.criterion.section import Shapes, name_term
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm


@dataclass(frozen=True)
class Layers:
    """Names of the layers whose feature maps the terms read, each once, in the order of the terms."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]


def find_layers(sections: Sequence[TermSection]) -> Layers:
    """What must be tapped before the shapes are known that `build_criterion` needs: the choices `student_layer` and
    `teacher_layer` of the terms.
    """
    names = (
        tuple(dict.fromkeys(section.choices[choice] for section in sections if choice in section.choices))
        for choice in ("student_layer", "teacher_layer")
    )
    return Layers(*names)


def build_criterion(sections: Sequence[TermSection], shapes: Shapes) -> WeightedSum:
    """The weighted sum of the config's terms, in their order; projections on the CPU, in fp32.

    Raises UserError, with every problem, for terms that do not fit these shapes or cannot teach at them. Projections
    draw their first weights as the seed says; the random state is left as it was, so that a run without them and a run
    with them see the same pictures and masks.
    """
    problems: list[Problem] = []
    terms: list[WeightedTerm] = []
    with torch.random.fork_rng(devices=[]):
        for section in sections:
            try:
                terms.append(_build_term(section, shapes))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(*problems)
    return WeightedSum(terms)


def _build_term(section: TermSection, shapes: Shapes) -> WeightedTerm:
    module, function = TERMS[section.term].builder.split(":")
    build: Callable[[TermSection, Shapes], WeightedTerm] = getattr(
        importlib.import_module(f"sharpstudent.criterion.{module}"), function
    )
    term = build(section, shapes)
    # torch keeps a container's own attributes and its parts in one namespace.
    if term.module is not None and hasattr(nn.ModuleDict(), term.name):
        raise UserError(
            Problem(name_term(section), "has a name that torch keeps for itself", remedy="give it another name")
        )
    check_liveness(term, shapes)
    return term
