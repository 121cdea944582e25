"""The width of the student's family that is lighter than the teacher, for a verdict on a student that is not."""

from __future__ import annotations

from lib.models.widths import Lighter, find_lighter_width, is_clearly_less
from lib.report.results import ModelResult, Results


def find_lighter(results: Results) -> Lighter | None:
    """None where there is no such pair, where the student is lighter already, and where no width of its family is."""
    by_role = {model.role: model for model in reversed(results.models)}
    student, teacher = by_role.get("distilled") or by_role.get("before"), by_role.get("teacher")
    if student is None or teacher is None or student.architecture is None or student.image_size is None:
        return None
    own, other = _count(student), _count(teacher)
    if own is None or other is None or all(map(is_clearly_less, own, other)):
        return None
    return find_lighter_width(
        student.architecture, image_size=student.image_size, below_parameters=other[0], below_macs=other[1]
    )


def _count(model: ModelResult) -> tuple[int, int] | None:
    """Parameters and MACs."""
    cost = model.cost
    return None if cost is None or cost.parameters is None or cost.macs is None else (cost.parameters, cost.macs)
