"""Average precision against scikit-learn, and precision added up at each rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.metrics.binary import compute_average_precision
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import average_precision_score

FEW_LEVELS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40)


def test_a_case_worked_by_hand() -> None:
    # From the top: fake (precision 1), real, fake (2 / 3), real: (1 + 2 / 3) / 2.
    assert compute_average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx(5 / 6, abs=1e-12)


def test_scores_that_are_all_tied_have_the_share_of_fakes() -> None:
    assert compute_average_precision([0.3] * 8, [1, 1, 0, 0, 0, 0, 0, 0]) == 0.25


@given(FEW_LEVELS)
def test_it_is_scikit_learns_with_ties(samples: list[tuple[int, bool]]) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    assert compute_average_precision(scores, labels) == average_precision_score(labels, scores)


def test_no_value_is_an_error() -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        compute_average_precision([0.1, math.nan], [0, 1])
    with pytest.raises(MetricError, match="all 2 samples have label 0"):
        compute_average_precision([0.1, 0.2], [0, 0])
    with pytest.raises(MetricError, match="no samples"):
        compute_average_precision([], [])
