"""TPR at a wanted FPR: never more false alarms than wanted, and said where there are too few reals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.metrics.binary import compute_tpr_at_fpr
from sharpstudent.metrics.checks import MetricError

SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)


def test_a_case_worked_by_hand() -> None:
    # From the top: fake, real, fake, fake, real, fake; 2 reals.
    scores, labels = [6, 5, 4, 3, 2, 1], [1, 0, 1, 1, 0, 1]
    assert compute_tpr_at_fpr(scores, labels, wanted=0.49).tpr == 0.25
    half = compute_tpr_at_fpr(scores, labels, wanted=0.5)
    assert (half.tpr, half.fpr, half.reals) == (0.75, 0.5, 2)


def test_a_fake_that_is_tied_with_a_real_too_many_is_not_found() -> None:
    assert compute_tpr_at_fpr([3, 2, 2, 1], [1, 1, 0, 0], wanted=0.4).tpr == 0.5


@pytest.mark.parametrize("reals", [1, 7, 29, 49, 100, 343, 1000])
def test_a_share_that_is_met_exactly_is_allowed_however_it_is_rounded(reals: int) -> None:
    labels = np.array([0] * reals + [1] * reals)
    scores = np.concatenate([np.arange(reals), np.arange(reals)]).astype(np.float64)
    for alarms in range(1, reals):
        found = compute_tpr_at_fpr(scores, labels, wanted=alarms / reals)
        assert found.tpr == found.fpr == alarms / reals


@given(SAMPLES, st.floats(0.001, 0.999))
def test_no_threshold_with_as_few_alarms_finds_more(samples: list[tuple[int, bool]], wanted: float) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    fakes, reals = scores[labels == 1], scores[labels == 0]
    rates = [((fakes >= t).mean(), (reals >= t).mean()) for t in (*scores, np.inf)]
    found = compute_tpr_at_fpr(scores, labels, wanted=wanted)
    assert found.tpr == max(tpr for tpr, fpr in rates if fpr <= wanted)
    assert found.fpr <= wanted
    assert compute_tpr_at_fpr(np.exp(scores), labels, wanted=wanted) == found


@pytest.mark.parametrize(("reals", "resolved"), [(99, False), (100, True)])
def test_fewer_reals_than_one_over_the_rate_are_told(reals: int, resolved: bool) -> None:
    labels = [0] * reals + [1, 1]
    found = compute_tpr_at_fpr([*range(reals), 5.5, 1000.0], labels, wanted=0.01)
    assert found.is_resolved is resolved
    assert (found.note is None) is resolved
    if found.note is not None:
        assert "99 reals, where 100 are needed" in found.note
        assert (found.tpr, found.fpr) == (0.5, 0.0)


def test_a_thousand_reals_are_enough_for_a_tenth_of_a_percent() -> None:
    labels = [0] * 1000 + [1]
    assert compute_tpr_at_fpr([*range(1000), 998.5], labels, wanted=0.001).tpr == 1.0


def test_no_value_is_an_error() -> None:
    with pytest.raises(MetricError, match="between 0 and 1, got 0"):
        compute_tpr_at_fpr([0.1, 0.2], [0, 1], wanted=0.0)
    with pytest.raises(MetricError, match=r"bob \(nan\)"):
        compute_tpr_at_fpr([0.1, math.nan], [0, 1], wanted=0.01, sample_ids=["ann", "bob"])
    with pytest.raises(MetricError, match="one class only"):
        compute_tpr_at_fpr([0.1, 0.2], [0, 0], wanted=0.01)
    with pytest.raises(MetricError, match="no samples"):
        compute_tpr_at_fpr([], [], wanted=0.01)
