"""APCER and BPCER as ISO/IEC 30107-3 defines them, and balanced accuracy, which is their mean turned round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sharpstudent.metrics.binary import compute_apcer, compute_apcer_by_kind, compute_balanced_accuracy, compute_bpcer
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import balanced_accuracy_score

# A score at the threshold counts as fake. Swaps .5 and .9, masks .2 and .4 and .7; reals .1, .3, .5.
SCORES, LABELS = [0.5, 0.9, 0.2, 0.4, 0.7, 0.1, 0.3, 0.5], [1, 1, 1, 1, 1, 0, 0, 0]
KINDS = ["swap", "swap", "mask", "mask", "mask", "", "swap", ""]


def test_a_case_worked_by_hand() -> None:
    assert compute_apcer(SCORES, LABELS, threshold=0.5) == 2 / 5
    assert compute_bpcer(SCORES, LABELS, threshold=0.5) == 1 / 3
    assert compute_apcer_by_kind(SCORES, LABELS, KINDS, threshold=0.5) == {"mask": 2 / 3, "swap": 0.0}


def test_a_kind_that_always_passes_is_seen_however_many_others_there_are() -> None:
    scores, labels = [1.0] * 99 + [0.0], [1] * 100
    assert compute_apcer(scores, labels, threshold=0.5) == 0.01
    assert max(compute_apcer_by_kind(scores, labels, ["a"] * 99 + ["b"], threshold=0.5).values()) == 1.0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.71, 2.0])
def test_balanced_accuracy_is_scikit_learns_and_the_mean_of_what_both_leave(threshold: float) -> None:
    found = compute_balanced_accuracy(SCORES, LABELS, threshold=threshold)
    assert found == pytest.approx(balanced_accuracy_score(LABELS, np.array(SCORES) >= threshold), abs=1e-12)
    errors = [compute(SCORES, LABELS, threshold=threshold) for compute in (compute_apcer, compute_bpcer)]
    assert found == pytest.approx(1 - sum(errors) / 2, abs=1e-12)


def test_each_error_needs_its_own_class_only() -> None:
    assert compute_apcer([0.1, 0.9], [1, 1], threshold=0.5) == 0.5
    assert compute_bpcer([0.1, 0.9], [0, 0], threshold=0.5) == 0.5
    with pytest.raises(MetricError, match=r"none of the 2 samples has label 1 \(ann, bob\)"):
        compute_apcer([0.1, 0.9], [0, 0], threshold=0.5, sample_ids=["ann", "bob"])
    with pytest.raises(MetricError, match="none of the 2 samples has label 0"):
        compute_bpcer([0.1, 0.9], [1, 1], threshold=0.5)
    with pytest.raises(MetricError, match="one class only"):
        compute_balanced_accuracy([0.1, 0.9], [1, 1])


def test_bad_scores_thresholds_and_lengths_are_refused() -> None:
    for compute in (compute_apcer, compute_bpcer, compute_balanced_accuracy):
        with pytest.raises(MetricError, match=r"bob \(nan\)"):
            compute([0.1, math.nan], [0, 1], threshold=0.5, sample_ids=["ann", "bob"])
        with pytest.raises(MetricError, match="threshold must be finite"):
            compute([0.1, 0.2], [0, 1], threshold=math.inf)
        with pytest.raises(MetricError, match="no samples"):
            compute([], [], threshold=0.5)
    with pytest.raises(MetricError, match="1 kinds of fake for 2 samples"):
        compute_apcer_by_kind([0.1, 0.2], [0, 1], ["swap"], threshold=0.5)
