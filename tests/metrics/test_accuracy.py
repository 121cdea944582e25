"""Accuracy at a threshold."""

import math

import pytest
from sharpstudent.metrics.binary import compute_accuracy
from sharpstudent.metrics.checks import MetricError


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0.5), (0.3, 0.75), (0.5, 0.75), (0.51, 0.5), (1.1, 0.5)])
def test_a_case_worked_by_hand(threshold: float, expected: float) -> None:
    # Fakes score .5 and 1, reals .2 and .9; a score at the threshold counts as fake.
    assert compute_accuracy([0.2, 0.9, 0.5, 1.0], [0, 0, 1, 1], threshold=threshold) == expected


def test_the_threshold_is_one_half_unless_said() -> None:
    assert compute_accuracy([0.49, 0.5], [0, 1]) == 1.0


def test_one_class_has_an_accuracy() -> None:
    assert compute_accuracy([0.2, 0.7], [1, 1]) == 0.5


def test_a_score_that_is_not_finite_is_named() -> None:
    with pytest.raises(MetricError, match=r"bob \(nan\)"):
        compute_accuracy([0.1, math.nan], [0, 1], sample_ids=["ann", "bob"])


def test_an_empty_set_and_a_threshold_that_is_not_finite_are_refused() -> None:
    with pytest.raises(MetricError, match="no samples"):
        compute_accuracy([], [])
    with pytest.raises(MetricError, match="threshold must be finite"):
        compute_accuracy([0.1], [0], threshold=math.nan)
