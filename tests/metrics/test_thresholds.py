"""Thresholds chosen on validation: the best point of the ROC by each rule, and half-way between two scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.metrics.binary import compute_balanced_accuracy, compute_fnr, compute_fpr, compute_tpr_at_fpr
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.curves import OperatingPoint, choose_thresholds

SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)
# From the top: fake 9, fake 7, real 6, fake 4, real 2, real 1.
SCORES, LABELS = [9.0, 7.0, 6.0, 4.0, 2.0, 1.0], [1, 1, 0, 1, 0, 0]


def choose_threshold_at_fpr(scores: Any, labels: Any, *, wanted: float) -> OperatingPoint:
    return choose_thresholds(scores, labels, fprs=[wanted])[f"fpr_{100 * wanted:g}pct"]


def choose_at_third(scores: Any, labels: Any) -> OperatingPoint:
    return choose_threshold_at_fpr(scores, labels, wanted=1 / 3)


def choose_threshold_at_eer(scores: Any, labels: Any) -> OperatingPoint:
    return choose_thresholds(scores, labels, fprs=[])["eer"]


def choose_threshold_by_youden(scores: Any, labels: Any) -> OperatingPoint:
    return choose_thresholds(scores, labels, fprs=[])["youden"]


RULES: list[Callable[..., OperatingPoint]] = [choose_at_third, choose_threshold_at_eer, choose_threshold_by_youden]


def test_cases_worked_by_hand() -> None:
    assert choose_threshold_at_fpr(SCORES, LABELS, wanted=0.3) == OperatingPoint(6.5, 2 / 3, 0.0)
    assert choose_threshold_at_fpr(SCORES, LABELS, wanted=0.4) == OperatingPoint(3.0, 1.0, 1 / 3)
    assert choose_threshold_at_eer(SCORES, LABELS) == OperatingPoint(5.0, 2 / 3, 1 / 3)
    # Both 6.5 and 3 have TPR - FPR of 2 / 3: the one with fewer false alarms.
    assert choose_threshold_by_youden(SCORES, LABELS) == OperatingPoint(6.5, 2 / 3, 0.0)


@pytest.mark.parametrize("rule", RULES)
def test_between_classes_that_are_apart_it_is_in_the_middle(rule: Callable[..., OperatingPoint]) -> None:
    point = rule([-3.0, -1.0, 5.0, 8.0], [0, 0, 1, 1])
    assert point == OperatingPoint(2.0, 1.0, 0.0)


def test_where_no_threshold_finds_a_fake_nothing_is_called_fake() -> None:
    point = choose_threshold_at_fpr([0.9, 0.9, 0.1], [0, 1, 1], wanted=0.5)
    assert (point.tpr, point.fpr) == (0.0, 0.0)
    assert point.threshold > 0.9


def test_neighbouring_floats_have_no_middle_and_the_upper_one_is_taken() -> None:
    low, high = 1.0, math.nextafter(1.0, 2.0)
    assert choose_threshold_by_youden([low, high], [0, 1]).threshold == high


@pytest.mark.parametrize("rule", RULES)
@given(SAMPLES)
def test_a_point_says_what_its_threshold_does_and_only_order_matters(
    rule: Callable[..., OperatingPoint], samples: list[tuple[int, bool]]
) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    point = rule(scores, labels)
    assert point.tpr == pytest.approx(1 - compute_fnr(scores, labels, threshold=point.threshold), abs=1e-12)
    assert point.fpr == compute_fpr(scores, labels, threshold=point.threshold)
    other = rule(np.exp(scores), labels)
    assert (other.tpr, other.fpr) == (point.tpr, point.fpr)
    assert rule(scores[::-1], labels[::-1]) == point


@given(SAMPLES)
def test_each_rule_finds_the_best_of_all_thresholds(samples: list[tuple[int, bool]]) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    thresholds = [*scores, scores.max() + 1]
    youden = choose_threshold_by_youden(scores, labels)
    best = max(compute_balanced_accuracy(scores, labels, threshold=t) for t in thresholds)
    assert (1 + youden.tpr - youden.fpr) / 2 == pytest.approx(best, abs=1e-12)
    eer = choose_threshold_at_eer(scores, labels)
    gaps = [
        abs(compute_fpr(scores, labels, threshold=t) - compute_fnr(scores, labels, threshold=t)) for t in thresholds
    ]
    assert abs(eer.fpr - (1 - eer.tpr)) == pytest.approx(min(gaps), abs=1e-12)
    assert choose_at_third(scores, labels).tpr == compute_tpr_at_fpr(scores, labels, wanted=1 / 3)


@pytest.mark.parametrize("rule", RULES)
def test_no_value_is_an_error(rule: Callable[..., OperatingPoint]) -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        rule([0.1, math.nan], [0, 1])
    with pytest.raises(MetricError, match="all 2 samples have label 1"):
        rule([0.1, 0.2], [1, 1])
    with pytest.raises(MetricError, match="no samples"):
        rule([], [])
