"""Distillation from the student's own averaged weights: the soft-label term of `distillation`, with another teacher.

The average of weights along a run is usually the better model (Tarvainen, Valpola 2017, "Mean teachers are better role
models", equation 1); its answers are data, as those of any teacher.
"""

from __future__ import annotations

from lib.config.sections import TermSection
from lib.criterion.distillation import compute_softened
from lib.criterion.section import Shapes, check_outputs, make_term
from lib.criterion.weighted_sum import WeightedTerm


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of one output."""
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    return make_term(section, compute_softened)
