"""The task's own term: clauses are to be quiet, so that each is true for few tokens."""

from __future__ import annotations

from torch import Tensor

from sharpstudent.config.run_config import TermSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.section import Shapes, make_term, name_term
from sharpstudent.criterion.weighted_sum import WeightedTerm


def build_clause_sparsity(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `clause_sparsity`: the mean over the clauses of their absolute value, one value a row.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.

    Returns:
        The term.

    Raises:
        UserError: For a student without clauses.
    """
    if "clauses" not in shapes.student:
        raise UserError.about(
            name_term(section), "needs a student with clauses", "tm_vit, tm_swin, deeptm_vit or deeptm_swin"
        )

    def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None) -> Tensor:
        return outputs["clauses"].float().abs().mean(1)

    return make_term(section, compute)
