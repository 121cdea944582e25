"""Rates at a threshold: accuracy, false negatives and positives; and the TPR at a wanted FPR, which never has more
false alarms than wanted and says where there are too few negatives.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.metrics.binary import (
    compute_accuracy,
    compute_balanced_accuracy,
    compute_fnr,
    compute_fpr,
    compute_tpr_at_fpr,
    describe_resolution,
)
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import balanced_accuracy_score

SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)
# A score at the threshold counts as positive. Positives .5, .9, .2, .4, .7; negatives .1, .3, .5.
SCORES, LABELS = [0.5, 0.9, 0.2, 0.4, 0.7, 0.1, 0.3, 0.5], [1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0.5), (0.3, 0.75), (0.5, 0.75), (0.51, 0.5), (1.1, 0.5)])
def test_accuracies_worked_by_hand(threshold: float, expected: float) -> None:
    # Fakes score .5 and 1, reals .2 and .9; a score at the threshold counts as fake.
    assert compute_accuracy([0.2, 0.9, 0.5, 1.0], [0, 0, 1, 1], threshold=threshold) == expected


def test_the_threshold_is_one_half_unless_said() -> None:
    assert compute_accuracy([0.49, 0.5], [0, 1]) == 1.0


def test_one_class_has_an_accuracy() -> None:
    assert compute_accuracy([0.2, 0.7], [1, 1]) == 0.5


def test_accuracy_refuses_a_score_that_is_not_finite() -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        compute_accuracy([0.1, math.nan], [0, 1])


def test_an_empty_set_and_a_threshold_that_is_not_finite_are_refused() -> None:
    with pytest.raises(MetricError, match="no samples"):
        compute_accuracy([], [])
    with pytest.raises(MetricError, match="threshold must be finite"):
        compute_accuracy([0.1], [0], threshold=math.nan)


def test_error_rates_worked_by_hand() -> None:
    assert compute_fnr(SCORES, LABELS, threshold=0.5) == 2 / 5
    assert compute_fpr(SCORES, LABELS, threshold=0.5) == 1 / 3


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.71, 2.0])
def test_balanced_accuracy_is_scikit_learns_and_the_mean_of_what_both_leave(threshold: float) -> None:
    found = compute_balanced_accuracy(SCORES, LABELS, threshold=threshold)
    assert found == pytest.approx(balanced_accuracy_score(LABELS, np.array(SCORES) >= threshold), abs=1e-12)
    errors = [compute(SCORES, LABELS, threshold=threshold) for compute in (compute_fnr, compute_fpr)]
    assert found == pytest.approx(1 - sum(errors) / 2, abs=1e-12)


def test_each_error_needs_its_own_class_only() -> None:
    assert compute_fnr([0.1, 0.9], [1, 1], threshold=0.5) == 0.5
    assert compute_fpr([0.1, 0.9], [0, 0], threshold=0.5) == 0.5
    with pytest.raises(MetricError, match="none of the 2 samples has label 1"):
        compute_fnr([0.1, 0.9], [0, 0], threshold=0.5)
    with pytest.raises(MetricError, match="none of the 2 samples has label 0"):
        compute_fpr([0.1, 0.9], [1, 1], threshold=0.5)
    with pytest.raises(MetricError, match="one class only"):
        compute_balanced_accuracy([0.1, 0.9], [1, 1])


def test_bad_scores_and_thresholds_are_refused() -> None:
    for compute in (compute_fnr, compute_fpr, compute_balanced_accuracy):
        with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
            compute([0.1, math.nan], [0, 1], threshold=0.5)
        with pytest.raises(MetricError, match="threshold must be finite"):
            compute([0.1, 0.2], [0, 1], threshold=math.inf)
        with pytest.raises(MetricError, match="no samples"):
            compute([], [], threshold=0.5)


def test_a_tpr_worked_by_hand() -> None:
    # From the top: fake, real, fake, fake, real, fake; 2 reals.
    scores, labels = [6, 5, 4, 3, 2, 1], [1, 0, 1, 1, 0, 1]
    assert compute_tpr_at_fpr(scores, labels, wanted=0.49) == 0.25
    assert compute_tpr_at_fpr(scores, labels, wanted=0.5) == 0.75


def test_a_fake_that_is_tied_with_a_real_too_many_is_not_found() -> None:
    assert compute_tpr_at_fpr([3, 2, 2, 1], [1, 1, 0, 0], wanted=0.4) == 0.5


@pytest.mark.parametrize("reals", [1, 7, 29, 49, 100, 343, 1000])
def test_a_share_that_is_met_exactly_is_allowed_however_it_is_rounded(reals: int) -> None:
    labels = np.array([0] * reals + [1] * reals)
    scores = np.concatenate([np.arange(reals), np.arange(reals)]).astype(np.float64)
    for alarms in range(1, reals):
        assert compute_tpr_at_fpr(scores, labels, wanted=alarms / reals) == alarms / reals


@given(SAMPLES, st.floats(0.001, 0.999))
def test_no_threshold_with_as_few_alarms_finds_more(samples: list[tuple[int, bool]], wanted: float) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    fakes, reals = scores[labels == 1], scores[labels == 0]
    rates = [((fakes >= t).mean(), (reals >= t).mean()) for t in (*scores, np.inf)]
    found = compute_tpr_at_fpr(scores, labels, wanted=wanted)
    assert found == max(tpr for tpr, fpr in rates if fpr <= wanted)
    assert compute_tpr_at_fpr(np.exp(scores), labels, wanted=wanted) == found


@pytest.mark.parametrize(("reals", "resolved"), [(99, False), (100, True)])
def test_fewer_reals_than_one_over_the_rate_are_reported(reals: int, resolved: bool) -> None:
    note = describe_resolution(0.01, reals)
    assert (note is None) is resolved
    if not resolved:
        assert "99 negatives, where 100 are needed" in str(note)
        assert "99 quiet days, where 100" in str(describe_resolution(0.01, reals, called="quiet days"))
        assert compute_tpr_at_fpr([*range(reals), 5.5, 1000.0], [0] * reals + [1, 1], wanted=0.01) == 0.5


def test_a_thousand_reals_are_enough_for_a_tenth_of_a_percent() -> None:
    labels = [0] * 1000 + [1]
    assert compute_tpr_at_fpr([*range(1000), 998.5], labels, wanted=0.001) == 1.0


def test_a_tpr_without_value_is_an_error() -> None:
    with pytest.raises(MetricError, match="between 0 and 1, got 0"):
        compute_tpr_at_fpr([0.1, 0.2], [0, 1], wanted=0.0)
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        compute_tpr_at_fpr([0.1, math.nan], [0, 1], wanted=0.01)
    with pytest.raises(MetricError, match="one class only"):
        compute_tpr_at_fpr([0.1, 0.2], [0, 0], wanted=0.01)
    with pytest.raises(MetricError, match="no samples"):
        compute_tpr_at_fpr([], [], wanted=0.01)
