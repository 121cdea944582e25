"""Paired tests of two models: bootstrap over people, and DeLong's against a covariance of all pairs."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from scored_tables import find_difference
from sharpstudent.metrics.binary import compute_auc, compute_auc_by_rank
from sharpstudent.metrics.bootstrap import find_p_value
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.delong import compute_delong_test, find_structural_components

SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=4, max_size=24)


def draw(seed: int, *, size: int = 120, gain: float = 0.0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Two models' scores that share most of their noise, and labels."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(size) % 2).astype(np.int64)
    common = generator.normal(size=size) + labels
    return common + gain * labels + 0.3 * generator.normal(size=size), common, labels


def draw_names(size: int, people: int = 30) -> list[str]:
    return [f"person {i % people:02d}" for i in range(size)]


def compute_by_pairs(a: NDArray[np.float64], b: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The difference of AUCs and its variance by the definition: every fake against every real (DeLong et al. 1988)."""

    def compare(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        fakes, reals = scores[labels == 1, np.newaxis], scores[np.newaxis, labels == 0]
        return (fakes > reals) + 0.5 * (fakes == reals)

    kernel_a, kernel_b = compare(a), compare(b)
    by_fake = np.cov(kernel_a.mean(axis=1), kernel_b.mean(axis=1))
    by_real = np.cov(kernel_a.mean(axis=0), kernel_b.mean(axis=0))
    covariance = by_fake / kernel_a.shape[0] + by_real / kernel_a.shape[1]
    contrast = np.array([1.0, -1.0])
    return float(kernel_a.mean() - kernel_b.mean()), float(contrast @ covariance @ contrast)


@given(SAMPLES)
def test_delong_is_the_covariance_of_all_pairs_with_ties(samples: list[tuple[int, int, bool]]) -> None:
    table = np.array(samples, dtype=np.int64)
    table[:4, 2] = [0, 1, 0, 1]
    a, b, labels = table[:, 0].astype(np.float64), table[:, 1].astype(np.float64), table[:, 2]
    difference, variance = compute_by_pairs(a, b, labels)
    if variance < 1e-12:
        return
    found = compute_delong_test(a, b, labels)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.z == pytest.approx(difference / math.sqrt(variance), rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.z)), abs=1e-12)
    assert found.value_a == pytest.approx(compute_auc(a, labels), abs=1e-12)
    assert found.value_b == pytest.approx(compute_auc(b, labels), abs=1e-12)


def test_structural_components_worked_by_hand() -> None:
    # Fakes 3 and 1, reals 1 and 2: 3 beats both, 1 ties with one of two.
    beaten, lost_to = find_structural_components(np.array([3.0, 1.0, 1.0, 2.0]), np.array([1, 1, 0, 0]))
    assert beaten.tolist() == [1.0, 0.25]
    assert lost_to.tolist() == [0.75, 0.5]


def test_delong_changes_sign_with_the_models_and_not_with_order_or_monotone_scores() -> None:
    a, b, labels = draw(0)
    found, turned = compute_delong_test(a, b, labels), compute_delong_test(b, a, labels)
    assert (turned.difference, turned.z, turned.p_value) == pytest.approx(
        (-found.difference, -found.z, found.p_value), abs=1e-12
    )
    order = np.random.default_rng(1).permutation(len(labels))
    again = compute_delong_test(np.exp(a[order]), 3 * b[order] - 7, labels[order])
    assert (again.difference, again.z) == pytest.approx((found.difference, found.z), abs=1e-9)
    swapped = compute_delong_test(-a, -b, 1 - labels)
    assert (swapped.difference, swapped.z) == pytest.approx((found.difference, found.z), abs=1e-9)


def test_models_that_rank_alike_do_not_differ() -> None:
    a, _, labels = draw(0)
    found = compute_delong_test(a, np.exp(a), labels)
    assert (found.difference, found.z, found.p_value) == (0.0, 0.0, 1.0)


def test_a_difference_without_variance_has_no_test() -> None:
    with pytest.raises(MetricError, match=r"AUCs of 1\.0000 and 0\.0000 whose difference has no variance"):
        compute_delong_test([0.1, 0.2, 0.8, 0.9], [0.8, 0.9, 0.1, 0.2], [0, 0, 1, 1])


def test_delong_needs_two_of_each_class_and_finite_scores() -> None:
    with pytest.raises(MetricError, match="two positives and two negatives, got 1 and 3"):
        compute_delong_test([0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.2, 0.3], [0, 0, 0, 1])
    with pytest.raises(MetricError, match=r"label 0 \(a, b\)"):
        compute_delong_test([0.1, 0.2], [0.1, 0.2], [0, 0], sample_ids=["a", "b"])
    with pytest.raises(MetricError, match=r"b \(nan\)"):
        compute_delong_test([0.1, 0.2], [0.1, math.nan], [0, 1], sample_ids=["a", "b"])
    with pytest.raises(MetricError, match="no samples"):
        compute_delong_test([], [], [])


def test_delong_of_a_hundred_thousand_samples_takes_no_pairs() -> None:
    a, b, labels = draw(0, size=100_000)
    start = time.process_time()
    compute_delong_test(a, b, labels)
    assert time.process_time() - start < 5.0  # about 0.1 s; 2.5e9 pairs would take minutes


def test_of_independent_samples_bootstrap_and_delong_agree() -> None:
    a, b, labels = draw(3, size=600, gain=0.1)
    names = [str(i) for i in range(600)]
    found = find_difference(compute_auc_by_rank, a, b, labels, names, rounds=2000, seed=0)
    delong = compute_delong_test(a, b, labels)
    width = found.difference.high - found.difference.low
    assert width == pytest.approx(2 * 1.96 * delong.standard_error, rel=0.1)
    assert found.p_value == pytest.approx(delong.p_value, abs=0.02)


def test_many_frames_of_few_people_make_delong_too_sure_and_the_bootstrap_not() -> None:
    a, b, labels = draw(0, size=40)
    a, b, labels = (np.repeat(column, 25) for column in (a, b, labels))
    names = [str(i) for i in np.repeat(np.arange(40), 25)]
    found = find_difference(compute_auc_by_rank, a, b, labels, names, rounds=500, seed=0)
    delong = compute_delong_test(a, b, labels)
    assert found.difference.high - found.difference.low > 3 * 2 * 1.96 * delong.standard_error


def test_p_values_worked_by_hand() -> None:
    assert find_p_value(np.array([0.1] * 99)) == pytest.approx(2 / 100)  # never 0
    assert find_p_value(np.array([0.1] * 95 + [-0.1] * 4)) == pytest.approx(2 * 5 / 100)
    assert find_p_value(np.array([-0.1] * 95 + [0.1] * 4)) == pytest.approx(2 * 5 / 100)
    assert find_p_value(np.zeros(9)) == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_a_p_value_below_the_level_and_an_interval_without_zero_say_the_same(seed: int) -> None:
    a, b, labels = draw(seed, gain=0.1)
    found = find_difference(compute_auc_by_rank, a, b, labels, draw_names(120), rounds=999, seed=0)
    has_zero = found.difference.low <= 0.0 <= found.difference.high
    assert has_zero == (found.p_value > 0.05) or abs(found.p_value - 0.05) < 0.005


def test_a_model_does_not_differ_from_itself_and_a_clearly_better_one_does() -> None:
    a, b, labels = draw(0, gain=2.0)
    assert find_difference(compute_auc_by_rank, a, 2 * a, labels, draw_names(120), rounds=99, seed=0).p_value == 1.0
    found = find_difference(compute_auc_by_rank, a, b, labels, draw_names(120), rounds=999, seed=0)
    assert found.p_value == pytest.approx(2 / 1000)
    assert found.difference.low > 0.0


def test_bad_scores_are_named_and_one_person_leaves_no_interval() -> None:
    with pytest.raises(MetricError, match=r"sample 000001 \(nan\)"):
        find_difference(compute_auc_by_rank, [0.1, math.nan], [0.1, 0.2], [0, 1], ["a", "b"])
    alone = find_difference(compute_auc_by_rank, [0.1, 0.3], [0.3, 0.2], [0, 1], ["a", "a"])
    assert (alone.difference.value, alone.difference.low, alone.p_value) == (1.0, None, None)
    assert alone.difference.note == "no interval: fewer than two groups"
