"""AUC against scikit-learn and the pairs counted one by one; what has no AUC is an error that names the samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scored_tables import compute_auc_by_rank
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import roc_auc_score

FEW_LEVELS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40)
ANY_SCORES = st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=40)


def count_pairs(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    won = [1.0 if f > r else 0.5 if f == r else 0.0 for f in scores[labels == 1] for r in scores[labels == 0]]
    return sum(won) / len(won)


def test_a_case_worked_by_hand() -> None:
    # Pairs (fake, real): .8 > .1, .8 > .4, .4 > .1, .4 = .4: 3.5 of 4.
    assert compute_auc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1]) == 0.875


@pytest.mark.parametrize(("scores", "expected"), [([0.0, 0.1, 0.9, 1.0], 1.0), ([0.9, 1.0, 0.0, 0.1], 0.0)])
def test_perfect_and_inverted_scores(scores: list[float], expected: float) -> None:
    assert compute_auc(scores, [0, 0, 1, 1]) == expected


def test_scores_that_are_all_tied_are_chance() -> None:
    assert compute_auc([0.3] * 6, [0, 1, 0, 1, 1, 1]) == 0.5


@given(st.one_of(FEW_LEVELS, ANY_SCORES))
def test_both_ways_equal_scikit_learn_and_the_counted_pairs_with_ties(samples: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    expected = roc_auc_score(labels, scores)
    assert compute_auc(scores, labels) == expected
    assert compute_auc_by_rank(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert compute_auc_by_rank(scores, labels) == pytest.approx(count_pairs(scores, labels), abs=1e-12)


@pytest.mark.parametrize("size", [2000, 20000])
def test_the_fast_way_equals_scikit_learn_on_large_sets_of_one_class_mostly(size: int) -> None:
    generator = np.random.default_rng(size)
    labels = (generator.random(size) < 0.02).astype(np.int64)
    scores = np.round(generator.normal(size=size) + labels, 2)
    assert compute_auc_by_rank(scores, labels) == pytest.approx(compute_auc(scores, labels), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_precision_of_the_scores_does_not_matter(dtype: type) -> None:
    assert compute_auc(np.array([0.25, 0.5, 0.5, 1.0], dtype=dtype), np.array([0, 0, 1, 1])) == 0.875


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_sample(bad: float) -> None:
    with pytest.raises(MetricError) as caught:
        compute_auc([0.1, bad, 0.8], [0, 1, 1], sample_ids=["ann/1.jpg", "bob/7.jpg", "eve/2.jpg"])
    assert str(caught.value) == f"1 of 3 scores that are not finite: bob/7.jpg ({bad})"


def test_many_such_scores_are_counted_and_the_first_five_named() -> None:
    with pytest.raises(MetricError, match=r"^8 of 8 .*: a0 \(nan\), .*a4 \(nan\) and 3 more$"):
        compute_auc([math.nan] * 8, [0, 1] * 4, sample_ids=[f"a{i}" for i in range(8)])


def test_without_ids_the_positions_are_named() -> None:
    with pytest.raises(MetricError, match=r"sample 2 \(nan\)"):
        compute_auc([0.1, 0.2, math.nan], [0, 1, 1])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    with pytest.raises(MetricError, match=f"all 3 samples have label {label}"):
        compute_auc([0.1, 0.2, 0.3], [label] * 3)


def test_samples_of_one_class_are_named() -> None:
    with pytest.raises(MetricError, match=r"all 7 samples have label 1 \(a0, a1, a2, a3, a4 and 2 more\)"):
        compute_auc([0.1] * 7, [1] * 7, sample_ids=[f"a{i}" for i in range(7)])


def test_an_empty_set_has_no_auc() -> None:
    with pytest.raises(MetricError, match="no samples"):
        compute_auc([], [])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(MetricError, match=r"scores \(3,\), labels \(2,\)"):
        compute_auc([0.1, 0.2, 0.3], [0, 1])
    with pytest.raises(MetricError, match="1 sample ids for 2 samples"):
        compute_auc([0.1, 0.2], [0, 1], sample_ids=["a"])


def test_two_columns_of_scores_are_refused() -> None:
    with pytest.raises(MetricError, match=r"scores \(2, 2\)"):
        compute_auc([[0.9, 0.1], [0.2, 0.8]], [0, 1])


def test_labels_other_than_0_and_1_are_refused_by_name() -> None:
    with pytest.raises(MetricError, match=r"neither 0 nor 1: c \(2\)"):
        compute_auc([0.1, 0.2, 0.3], [0, 1, 2], sample_ids=["a", "b", "c"])


def test_the_error_is_a_value_error() -> None:
    assert issubclass(MetricError, ValueError)
