"""What an evaluation of token transformers tells besides metrics: how much their clauses and attention heads are used.

It stands among the notes of results.json and report.html; `metrics.csv` of a run has the same after each epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharpstudent.evaluation.renderer import Measurements, Renderer, Session
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

if TYPE_CHECKING:
    from sharpstudent.evaluation.evaluate import Evaluation, Heading


class TokensRenderer(Renderer):
    """Adds a line about each model with clauses or specialised heads to the results."""

    def build_results(self, session: Session, evaluation: Evaluation, measured: Measurements, heading: Heading) -> Any:
        """Build the results as for every task, with the usage of clauses and heads among the notes."""
        results = super().build_results(session, evaluation, measured, heading)
        pairs = [(one.name, one.model) for one in session.models if isinstance(one.model, UnifiedTMTransformer)]
        notes = [f"{name}: {line}" for name, model in pairs for line in describe_usage(model)]
        return results.model_copy(update={"notes": (*results.notes, *notes)})


def describe_usage(model: UnifiedTMTransformer) -> list[str]:
    """Say how many clauses vary, and how much each attention head is used before and after its gain."""
    found = model.describe_usage()
    lines: list[str] = []
    if model.machines:
        total, dead = sum(len(machine.clause_bias) for machine in model.machines), int(found["dead_clauses"])
        lines.append(f"{total - dead} of {total} clauses vary over the training pictures, {dead} are dead")
    for block in range(len(model.blocks)):
        sides = [
            " ".join(
                f"{value:.2f}" for name, value in found.items() if name.startswith(f"use_{block}_") and when in name
            )
            for when in ("before", "after")
        ]
        lines.append(
            f"use of the attention heads of block {block}, 1 the mean: {sides[0]}; after their gains: {sides[1]}"
        )
    return lines
