"""Which teachers are refused before stage 2: those that are worse than its student by more than a margin."""

from __future__ import annotations

import pytest
from sharpstudent.core.types import Direction
from sharpstudent.train.preflight.model_checks import find_weak_teachers


@pytest.mark.parametrize(
    ("direction", "student", "teacher", "margin", "is_refused"),
    [
        ("higher", 0.80, 0.90, 0.0, False),
        ("higher", 0.80, 0.80, 0.0, False),
        ("higher", 0.80, 0.79, 0.0, True),
        ("higher", 0.80, 0.79, 0.02, False),
        ("higher", 0.80, 0.75, 0.02, True),
        ("lower", 0.20, 0.10, 0.0, False),
        ("lower", 0.20, 0.21, 0.0, True),
        ("lower", 0.20, 0.21, 0.02, False),
        ("lower", 0.20, 0.25, 0.02, True),
    ],
)
def test_a_teacher_is_refused_where_it_is_worse_by_more_than_the_margin(
    direction: Direction, student: float, teacher: float, margin: float, is_refused: bool
) -> None:
    found = find_weak_teachers("val_metric", direction, student, [("teacher t", teacher)], margin)
    assert bool(found) == is_refused
    if found:
        assert found[0].where == "teacher t"
        assert f"{student:.4f}" in str(found[0].expected)
        assert f"or {direction}" in str(found[0].expected)
        assert found[0].got == f"{teacher:.4f}"
        assert "--allow weak-teacher" in str(found[0].remedy)


def test_every_weak_teacher_is_reported_and_no_other() -> None:
    teachers = [("one", 0.5), ("two", 0.9), ("three", 0.6)]
    assert [p.where for p in find_weak_teachers("val_auc", "higher", 0.8, teachers, 0.1)] == ["one", "three"]
