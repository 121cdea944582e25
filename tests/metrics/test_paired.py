"""Paired tests of two models: bootstrap over people, compared with DeLong's covariance of all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import norm
from scored_tables import compute_auc_by_rank, find_difference, make_table, read_score
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import compute_paired
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.intervals import MARGIN, Estimate, Sampling, find_evenness
from sharpstudent.metrics.metric import make_mean_metric


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
    assert found.p_value < 1e-4
    assert found.low > 0.0


def draw_means(seed: int, *, gain: float = 0.0, people: int = 30) -> tuple[Table, Table]:
    """Two models' hits, one row a person: a paired t-test is then the exact counterpart."""
    generator = np.random.default_rng(seed)
    hits = generator.random((2, people)) < np.array([[0.7 + gain], [0.7]])
    same = make_table(np.zeros(people), [0] * people, draw_names(people, people))
    return tuple({**same, "score": one.astype(float)} for one in hits)  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(6))
def test_interval_and_p_values_of_a_mean_are_those_of_students_paired_test(seed: int) -> None:
    a, b = draw_means(seed)
    found = compute_paired(make_mean_metric(read_score), a, b, rounds=20_000)
    oracle = stats.ttest_rel(a["score"], b["score"])
    assert (found.low, found.high) == pytest.approx(oracle.confidence_interval(0.95), abs=0.01)
    assert found.p_value == pytest.approx(oracle.pvalue, abs=0.02)
    worse = [stats.ttest_rel(sign * a["score"] + MARGIN, sign * b["score"], alternative="greater") for sign in (1, -1)]
    assert found.worse_p == pytest.approx([one.pvalue for one in worse], abs=0.02)


def test_where_lower_is_better_the_test_of_non_inferiority_turns() -> None:
    a, b = draw_means(0, gain=0.29)
    higher, lower = (compute_paired(make_mean_metric(read_score, way), a, b).worse_p for way in ("higher", "lower"))
    assert higher is not None
    assert higher == lower[::-1]
    assert higher[0] < 0.025 < higher[1]


def test_a_difference_that_no_draw_changes_is_as_sure_as_the_number_of_people_makes_it() -> None:
    a, b = draw_means(0, people=20)
    a, b = {**a, "score": np.ones(20)}, {**b, "score": np.zeros(20)}
    found = compute_paired(make_mean_metric(read_score), a, b)
    assert (found.low, found.high) == pytest.approx((1 - 2 * (1 - 0.05 ** (1 / 20)), 1.0))
    assert found.p_value == pytest.approx(2 * 0.5**20)  # half of all people, at least, would have to be otherwise


def test_people_of_separate_classes_count_as_two_samples() -> None:
    assert Sampling((42, 42), 42).freedom == 41
    assert Sampling((10, 10), 20).freedom == pytest.approx(18)
    few = Sampling((100, 5), 105)
    welch = (1 / 100 + 1 / 5) ** 2 / (1 / 100**2 / 99 + 1 / 5**2 / 4)
    assert few.freedom == pytest.approx(welch)
    assert (few.groups, few.is_enough) == (5, False)
    assert Sampling((10,), 10).is_enough


def test_seeds_widen_the_interval_by_their_spread_and_their_number_counts() -> None:
    generator = np.random.default_rng(0)
    labels, names = np.tile([0, 1], 400), draw_names(800, 100)
    noise = generator.normal(size=800)

    def find(*shifts: float) -> Estimate:
        scores = [labels * (1.5 + shift) + noise for shift in shifts]
        return find_difference(compute_auc_by_rank, scores, noise + labels, labels, names, rounds=500)

    same, two, three = find(0, 0, 0), find(-0.5, 0.5), find(-0.5, 0, 0.5)
    assert same.low > 0
    assert two.low < 0 < two.high  # two seeds that far apart: one degree of freedom
    assert same.high - same.low < three.high - three.low < two.high - two.low
    with pytest.raises(MetricError, match="models have 2 and 3 seeds"):
        find_difference(compute_auc_by_rank, [noise] * 2, [noise] * 3, labels, names)


def test_bad_scores_are_named_and_one_person_leaves_no_interval() -> None:
    with pytest.raises(MetricError, match=r"sample 000001 \(nan\)"):
        find_difference(compute_auc_by_rank, [0.1, math.nan], [0.1, 0.2], [0, 1], ["a", "b"])
    alone = find_difference(compute_auc_by_rank, [0.1, 0.3], [0.3, 0.2], [0, 1], ["a", "a"])
    assert (alone.value, alone.low, alone.p_value) == (1.0, None, None)
    assert alone.note == "no interval: fewer than two groups"


@pytest.mark.parametrize(("differing", "freedom"), [(1, 2 / (0.7727 / 0.9375**2 - 1 / 16)), (2, 6.22), (16, math.inf)])
def test_the_degrees_of_freedom_fall_with_the_number_of_people_who_make_a_difference(
    differing: int, freedom: float
) -> None:
    effects = np.where(np.arange(16) < differing, 1.0, 0.0)
    without_one = (effects.sum() - effects) / 15
    assert find_evenness(without_one) == pytest.approx(freedom, rel=0.01)


def test_a_difference_that_one_of_sixteen_people_makes_has_a_wide_interval_and_one_of_all_people_does_not() -> None:
    metric = make_mean_metric(lambda table: table["right"], bounds=(0.0, 1.0))
    names = np.arange(16).astype(str)

    def compare(wins: int, losses: int) -> Estimate:
        first = np.where(np.arange(16) < wins, 1.0, 0.0)
        second = np.where(np.arange(16) >= 16 - losses, 1.0, 0.0)
        sides = [
            {"id": names, "group": names, "right": side, "score": side + seed}
            for seed, side in enumerate((first, second))
        ]
        return compute_paired(metric, *sides, rounds=500)

    one = compare(1, 0)
    assert one.high is not None
    assert one.high > 0.2  # Student's t of 15 degrees of freedom ends at .19
    even = compare(8, 7)
    assert even.high is not None
    assert even.high - even.value == pytest.approx(stats.t.ppf(0.975, 15) * np.sqrt(15 / 16 / 15), rel=0.1)
