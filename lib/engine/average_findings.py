"""What the scores of several teachers' average foretell: it is what the student learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lib.engine.findings import (
    CHANCE,
    Judged,
    compute_interval,
    compute_row,
    find_constant,
    find_other_range,
    find_weakness,
    find_worse,
    show_interval,
)
from lib.models.teachers import TeacherEnsemble


def judge_average(ensemble: TeacherEnsemble, members: Sequence[Judged]) -> Judged:
    """The average of the members' scores, as the ensemble averages: no model is asked again."""
    logits = [torch.from_numpy(member.scores.logits).to(ensemble.shares.device) for member in members]
    scores = replace(members[0].scores, logits=ensemble.combine(logits).cpu().numpy())
    return Judged(compute_row(f"average of {len(members)} teachers", scores), scores)


def find_average_problems(average: Judged, members: Sequence[Judged], student: Judged) -> list[str]:
    """A sentence for each, as `find_problems` for the members; what is told of a member already is left out."""
    found = find_constant(average)
    if average.row.val_auc < CHANCE:
        shown = show_interval(compute_interval(average.scores))
        found.append(
            f"{average.name} has a validation AUC of {average.row.val_auc:.4f}{shown}, below chance: leave out the "
            "teacher that spoils it, or mend its `classes`"
        )
    else:
        best = max(members, key=lambda member: member.row.val_auc)
        found += find_weakness(average, "name better teachers, or leave the weak ones out")
        found += find_worse(average, student, "name better teachers, or keep `alpha_end` near 1")
        found += find_worse(average, best, "give that one a larger `weight`, or let it teach alone")
    if not any(find_other_range(member, student) for member in members):
        found += find_other_range(average, student)
    return found
