"""Metrics of several classes against scikit-learn, and distances between predicted maps and their targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy
from sharpstudent.metrics import calibration
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.heatmap import find_peaks, measure_divergences, measure_peak_distances
from sharpstudent.metrics.metric import make_mean_metric
from sharpstudent.metrics.multiclass import (
    compute_accuracy,
    compute_balanced_accuracy,
    compute_ece,
    compute_log_loss,
    compute_macro_f1,
    compute_top_k,
)
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score

ALL = (
    compute_accuracy,
    compute_top_k,
    compute_balanced_accuracy,
    compute_macro_f1,
    compute_log_loss,
    compute_ece,
)


def draw(seed: int, *, size: int = 200, classes: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=size)
    return generator.normal(size=(size, classes)) + 1.5 * np.eye(classes)[labels], labels


def write_out(
    logits: NDArray[np.float64], labels: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.repeat(logits, counts, axis=0), np.repeat(labels, counts)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("seed", range(5))
def test_they_are_scikit_learns_on_rows_written_out(seed: int) -> None:
    logits, labels = draw(seed)
    counts = np.random.default_rng(seed).integers(0, 4, len(labels))
    drawn, classes = write_out(logits, labels, counts)
    chosen = drawn.argmax(axis=1)
    shares = np.exp(drawn) / np.exp(drawn).sum(axis=1, keepdims=True)
    assert compute_accuracy(logits, labels, counts) == (chosen == classes).mean()
    assert compute_top_k(logits, labels, counts, k=2) == pytest.approx(
        top_k_accuracy_score(classes, drawn, k=2, labels=range(5))
    )
    assert compute_balanced_accuracy(logits, labels, counts) == pytest.approx(balanced_accuracy_score(classes, chosen))
    assert compute_macro_f1(logits, labels, counts) == pytest.approx(f1_score(classes, chosen, average="macro"))
    assert compute_log_loss(logits, labels, counts) == pytest.approx(log_loss(classes, shares, labels=range(5)))
    assert compute_ece(logits, labels, counts) == calibration.compute_ece(drawn, classes)


def test_of_rows_that_count_once_each_they_are_the_plain_functions_to_the_last_bit() -> None:
    for seed in range(20):
        logits, labels = draw(seed, size=777)
        ones = np.ones(777, np.int64)
        assert compute_log_loss(logits, labels, ones) == calibration.compute_log_loss(logits, labels)
        assert compute_ece(logits, labels, ones) == calibration.compute_ece(logits, labels)


def test_a_class_that_was_neither_drawn_nor_predicted_is_left_out() -> None:
    logits, labels = np.eye(4)[[0, 1, 1, 3]], np.array([0, 1, 0, 2])
    counts = np.array([1, 1, 1, 0])
    assert compute_balanced_accuracy(logits, labels, counts) == pytest.approx((1 / 2 + 1) / 2)
    assert compute_macro_f1(logits, labels, counts) == pytest.approx((2 / 3 + 2 / 3) / 2)
    # With the last row, class 3 is predicted and class 2 is missed: both have an F1 of 0.
    assert compute_macro_f1(logits, labels, np.ones(4, np.int64)) == pytest.approx((2 / 3 + 2 / 3) / 4)


def test_of_equal_logits_the_first_class_is_chosen_by_accuracy_and_top_1_alike() -> None:
    logits, labels, ones = np.zeros((3, 3)), np.array([0, 1, 2]), np.ones(3, np.int64)
    assert compute_accuracy(logits, labels, ones) == pytest.approx(1 / 3)
    for k, expected in ((1, 1 / 3), (2, 2 / 3), (3, 1.0), (9, 1.0)):
        assert compute_top_k(logits, labels, ones, k=k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="k must be >= 1"):
        compute_top_k(logits, labels, ones, k=0)


@pytest.mark.parametrize("compute", ALL)
def test_no_drawn_row_has_no_value_and_bad_rows_are_named(compute: object) -> None:
    logits, labels = draw(0, size=4)
    assert math.isnan(compute(logits, labels, np.zeros(4, np.int64)))  # type: ignore[operator]
    logits[2, 1] = math.inf
    with pytest.raises(MetricError, match=r"not finite: sample 2 \(inf\)"):
        compute(logits, labels, np.ones(4, np.int64))  # type: ignore[operator]
    with pytest.raises(MetricError, match=r"labels outside 0\.\.4: sample 1 \(5\)"):
        compute(np.zeros((2, 5)), [0, 5], np.ones(2, np.int64))  # type: ignore[operator]


def test_a_peak_is_the_middle_of_its_cell_and_its_distance_a_share_of_the_map() -> None:
    maps = np.zeros((3, 4, 8))
    maps[0, 1, 6], maps[1, 3, 0] = 5.0, 1.0
    assert find_peaks(maps).tolist() == [[6.5 / 8, 1.5 / 4], [0.5 / 8, 3.5 / 4], [0.5 / 8, 0.5 / 4]]
    points = np.array([[6.5 / 8, 1.5 / 4], [0.5 / 8, 0.5], [math.nan, math.nan]])
    np.testing.assert_allclose(measure_peak_distances(maps, points), [0.0, 0.375, math.nan])


def test_a_divergence_is_that_of_the_distributions_over_cells() -> None:
    generator = np.random.default_rng(0)
    predicted, targets = generator.random((5, 3, 4)), generator.random((5, 3, 4)) * 7
    targets[1, 0] = 0.0
    expected = entropy(targets.reshape(5, -1), predicted.reshape(5, -1), axis=1)
    np.testing.assert_allclose(measure_divergences(np.log(predicted), targets), expected, atol=1e-12)
    np.testing.assert_allclose(measure_divergences(np.log(predicted), predicted * 3), np.zeros(5), atol=1e-12)
    targets[2] = 0.0
    assert np.isnan(measure_divergences(np.log(predicted), targets)).tolist() == [False, False, True, False, False]


def test_a_cell_that_is_ruled_out_though_the_target_is_there_costs_infinitely_much() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]))
    assert measure_divergences(logits, [[[1.0, 1.0]], [[0.0, 1.0]]]).tolist() == [math.inf, 0.0]


def test_rows_without_a_target_do_not_count_in_the_mean() -> None:
    maps = np.zeros((2, 2, 2))
    table = {"id": np.array(["a", "b"]), "point": np.array([[0.25, 0.75], [math.nan, math.nan]])}
    metric = make_mean_metric(lambda one: measure_peak_distances(maps, one["point"]), "lower", perfect=0.0)
    assert metric.value(table) == 0.5


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MetricError, match=r"maps must be \(rows, height, width\), got \(2, 2\)"):
        find_peaks(np.zeros((2, 2)))
    with pytest.raises(MetricError, match="1 of 2 maps hold NaN, the first of them in row 1"):
        find_peaks(np.array([[[0.0]], [[math.nan]]]))
    with pytest.raises(MetricError, match="points must be"):
        measure_peak_distances(np.zeros((2, 2, 2)), [0.1, 0.2])
    with pytest.raises(MetricError, match="must be of the same shape"):
        measure_divergences(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))
    with pytest.raises(MetricError, match="not be negative"):
        measure_divergences(np.zeros((1, 1, 2)), [[[-1.0, 2.0]]])
