"""Paired tests of two models: bootstrap over people, compared with DeLong's covariance of all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from scored_tables import compute_auc_by_rank, find_difference
from sharpstudent.metrics.bootstrap import find_p_value
from sharpstudent.metrics.checks import MetricError


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


def test_of_independent_samples_bootstrap_and_delong_agree() -> None:
    a, b, labels = draw(3, size=600, gain=0.1)
    names = [str(i) for i in range(600)]
    found = find_difference(compute_auc_by_rank, a, b, labels, names, rounds=2000, seed=0)
    difference, variance = compute_by_pairs(a, b, labels)
    width = found.high - found.low
    assert width == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.1)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(difference) / math.sqrt(variance)), abs=0.02)


def test_many_frames_of_few_people_make_delong_too_sure_and_the_bootstrap_not() -> None:
    a, b, labels = draw(0, size=40)
    a, b, labels = (np.repeat(column, 25) for column in (a, b, labels))
    names = [str(i) for i in np.repeat(np.arange(40), 25)]
    found = find_difference(compute_auc_by_rank, a, b, labels, names, rounds=500, seed=0)
    _, variance = compute_by_pairs(a, b, labels)
    assert found.high - found.low > 3 * 2 * 1.96 * math.sqrt(variance)


def test_p_values_worked_by_hand() -> None:
    assert find_p_value(np.array([0.1] * 99)) == pytest.approx(2 / 100)  # never 0
    assert find_p_value(np.array([0.1] * 95 + [-0.1] * 4)) == pytest.approx(2 * 5 / 100)
    assert find_p_value(np.array([-0.1] * 95 + [0.1] * 4)) == pytest.approx(2 * 5 / 100)
    assert find_p_value(np.zeros(9)) == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_a_p_value_below_the_level_and_an_interval_without_zero_say_the_same(seed: int) -> None:
    a, b, labels = draw(seed, gain=0.1)
    found = find_difference(compute_auc_by_rank, a, b, labels, draw_names(120), rounds=999, seed=0)
    has_zero = found.low <= 0.0 <= found.high
    assert has_zero == (found.p_value > 0.05) or abs(found.p_value - 0.05) < 0.005


def test_a_model_does_not_differ_from_itself_and_a_clearly_better_one_does() -> None:
    a, b, labels = draw(0, gain=2.0)
    assert find_difference(compute_auc_by_rank, a, 2 * a, labels, draw_names(120), rounds=99, seed=0).p_value == 1.0
    found = find_difference(compute_auc_by_rank, a, b, labels, draw_names(120), rounds=999, seed=0)
    assert found.p_value == pytest.approx(2 / 1000)
    assert found.low > 0.0


def test_bad_scores_are_named_and_one_person_leaves_no_interval() -> None:
    with pytest.raises(MetricError, match=r"sample 000001 \(nan\)"):
        find_difference(compute_auc_by_rank, [0.1, math.nan], [0.1, 0.2], [0, 1], ["a", "b"])
    alone = find_difference(compute_auc_by_rank, [0.1, 0.3], [0.3, 0.2], [0, 1], ["a", "a"])
    assert (alone.value, alone.low, alone.p_value) == (1.0, None, None)
    assert alone.note == "no interval: fewer than two groups"
