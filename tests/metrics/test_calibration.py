"""Calibration against scikit-learn, sums taken one by one, and a fine grid of temperatures."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sharpstudent.metrics.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    compare_with_drawn_labels,
    compute_brier,
    compute_ece,
    compute_log_loss,
    fit_temperature,
)
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import brier_score_loss, log_loss

# Not further: scikit-learn clips probabilities that are rounded to 0.
SAMPLES = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 1)), min_size=1, max_size=40)
ALL = [compute_ece, compute_log_loss, compute_brier, fit_temperature]


def split(samples: list[tuple[float, float, int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    table = np.array(samples, dtype=np.float64)
    return table[:, :2], table[:, 2].astype(np.int64)


def draw(seed: int, *, samples: int = 400, classes: int = 2, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with exactly the probabilities that logits / scale say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (samples, classes))
    labels = np.array([rng.choice(classes, p=softmax(row)) for row in logits])
    return logits * scale, labels


def with_probability(*chances: float) -> NDArray[np.float64]:
    """Logits whose probability of class 1 is each of these."""
    return np.array([[0.0, math.log(p / (1 - p))] for p in chances])


def add_up_ece(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The formula of Guo et al., bin by bin."""
    confidence, right = softmax(logits, axis=1).max(1), logits.argmax(1) == labels
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize(("samples", "caught"), [(40, 0.5), (336, 0.99), (1600, 0.99)])
def test_a_calibrated_model_passes_in_95_of_100_sets_of_any_size_and_a_temperature_of_3_does_not(
    samples: int, caught: float
) -> None:
    sets, found = 150, {1.0: 0, 3.0: 0, 1 / 3: 0}
    for seed in range(sets):
        for scale in found:
            generator = np.random.default_rng(seed)
            margins = generator.normal(0, 2, samples)
            labels = (generator.random(samples) < 1 / (1 + np.exp(-margins))).astype(np.int64)
            logits = np.stack([np.zeros(samples), margins * scale], axis=1)
            found[scale] += compare_with_drawn_labels(logits, labels, draws=200).p_value < 0.05
    noise = 3 * math.sqrt(0.05 * 0.95 / sets)
    assert found[1.0] / sets <= 0.05 + noise
    assert found[3.0] / sets >= caught
    assert found[1 / 3] / sets >= caught / 3  # too low a confidence shows late in the sums of few samples


def test_the_expected_error_is_the_mean_of_many_drawn_sets_whether_bins_are_large_or_small() -> None:
    for samples in (60, 20_000):
        logits, labels = draw(0, samples=samples, classes=3)
        found = compare_with_drawn_labels(logits, labels, draws=400)
        generator, chances = np.random.default_rng(1), softmax(logits, axis=1)
        one = [(chances.cumsum(axis=1) < generator.random((samples, 1))).sum(axis=1).clip(0, 2) for _ in range(60)]
        drawn = [compute_ece(logits, labels) for labels in one]
        assert found.ece == compute_ece(logits, labels)
        assert found.expected == pytest.approx(np.mean(drawn), rel=0.1)


def test_an_error_of_calibration_worked_by_hand() -> None:
    # Bins of a tenth. Two at .65, one right: gap .15. Two at .95, both right: gap .05. Halves of each.
    logits = with_probability(0.65, 0.65, 0.95, 0.05)
    assert compute_ece(logits, [1, 0, 1, 0], bins=10) == pytest.approx(0.10)


def test_gaps_of_opposite_sign_cancel_within_a_bin_and_never_between_two() -> None:
    logits = with_probability(0.6, 0.9)  # wrong at .6, right at .9
    assert compute_ece(logits, [0, 1], bins=1) == pytest.approx(0.25)
    assert compute_ece(logits, [0, 1], bins=10) == pytest.approx(0.35)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_error_of_calibration_is_the_sum_over_bins(classes: int, bins: int) -> None:
    logits, labels = draw(bins, classes=classes, scale=2.0)
    assert compute_ece(logits, labels, bins=bins) == pytest.approx(add_up_ece(logits, labels, bins), abs=1e-12)


def test_there_are_fifteen_bins_unless_said() -> None:
    logits, labels = draw(3)
    assert compute_ece(logits, labels) == compute_ece(logits, labels, bins=15) != compute_ece(logits, labels, bins=14)


def test_a_probability_on_the_edge_of_two_bins_belongs_to_the_lower() -> None:
    # .5 exactly, of two bins: with .4 and .6 beside it, a right .5 and a wrong .9 must not share one.
    logits = np.concatenate([[[0.0, 0.0]], with_probability(0.9)])
    assert compute_ece(logits, [0, 0], bins=2) == pytest.approx(0.5 * 0.5 + 0.5 * 0.9)


def test_a_model_that_is_sure_has_no_error_when_right_and_all_of_it_when_wrong() -> None:
    sure = np.array([[1e6, -1e6], [-1e6, 1e6]])
    assert compute_ece(sure, [0, 1]) == compute_brier(sure, [0, 1]) == compute_log_loss(sure, [0, 1]) == 0.0
    assert compute_ece(sure, [1, 0]) == compute_brier(sure, [1, 0]) == 1.0
    assert compute_log_loss(sure, [1, 0]) == 2e6  # not clipped to what a rounded probability could say


@given(SAMPLES)
def test_log_loss_and_brier_score_equal_scikit_learns(samples: list[tuple[float, float, int]]) -> None:
    logits, labels = split(samples)
    probabilities = softmax(logits, axis=1)
    assert compute_log_loss(logits, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=[0, 1]), rel=1e-9, abs=1e-12
    )
    expected = brier_score_loss(labels, probabilities[:, 1], labels=[0, 1], pos_label=1)
    assert compute_brier(logits, labels) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_three_classes_too() -> None:
    logits, labels = draw(5, classes=3)
    probabilities = softmax(logits, axis=1)
    assert compute_log_loss(logits, labels) == pytest.approx(log_loss(labels, probabilities))
    assert compute_brier(logits, labels) == pytest.approx(
        brier_score_loss(labels, probabilities, scale_by_half=True, labels=[0, 1, 2])
    )


def test_a_log_loss_of_counts_is_that_of_rows_written_out() -> None:
    logits, labels = draw(7, classes=4)
    counts = np.random.default_rng(7).integers(0, 4, len(labels))
    drawn = np.repeat(logits, counts, axis=0), np.repeat(labels, counts)
    assert compute_log_loss(logits, labels, counts) == compute_log_loss(*drawn)
    assert compute_log_loss(logits, labels, np.ones(len(labels), np.int64)) == compute_log_loss(logits, labels)
    assert math.isnan(compute_log_loss(logits, labels, np.zeros(len(labels), np.int64)))


@pytest.mark.parametrize("compute", ALL)
def test_adding_the_same_to_all_logits_of_a_sample_changes_nothing(compute: Callable[..., float]) -> None:
    logits, labels = draw(6, scale=3.0)
    assert compute(logits + 1000.0, labels) == pytest.approx(compute(logits, labels), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0, 100.0])
def test_no_temperature_of_a_fine_grid_has_a_smaller_log_loss(classes: int, scale: float) -> None:
    logits, labels = draw(1, classes=classes, scale=scale)
    found = fit_temperature(logits, labels)
    grid = np.geomspace(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE, 2001)
    losses = [-log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean() for t in grid]
    best = int(np.argmin(losses))
    assert grid[best - 1] < found < grid[best + 1]
    assert compute_log_loss(logits / found, labels) <= min(losses) + 1e-12


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 10.0))
def test_of_one_margin_the_temperature_is_the_closed_form(right: int, wrong: int, margin: float) -> None:
    # All samples say +margin for their class, a share r of them rightly: margin / T must be the log odds of r.
    labels = [1] * (right + wrong) + [0] * wrong
    logits = np.array([[0.0, margin]] * (right + wrong) + [[0.0, margin]] * wrong)
    odds = Fraction(right + wrong, wrong)
    assert fit_temperature(logits, labels) == pytest.approx(margin / math.log(odds), rel=1e-6)


def test_a_hundred_times_the_logits_need_a_hundred_times_the_temperature() -> None:
    logits, labels = draw(2)
    assert fit_temperature(100 * logits, labels) == pytest.approx(100 * fit_temperature(logits, labels), rel=1e-6)


@pytest.mark.parametrize("margin", [1e-3, 1.0, 1e9])
def test_a_model_that_is_always_right_gets_the_lowest_temperature(margin: float) -> None:
    logits = np.array([[margin, 0.0], [0.0, 2 * margin]])
    assert fit_temperature(logits, [0, 1]) == LOWEST_TEMPERATURE


@pytest.mark.parametrize("margin", [1e-3, 1.0, 1e9])
def test_a_model_that_is_always_wrong_gets_the_highest_temperature(margin: float) -> None:
    logits = np.array([[margin, 0.0], [0.0, 2 * margin]])
    assert fit_temperature(logits, [1, 0]) == HIGHEST_TEMPERATURE


def test_logits_that_say_nothing_need_no_temperature() -> None:
    assert fit_temperature([[2.0, 2.0], [5.0, 5.0]], [0, 1]) == 1.0


@pytest.mark.parametrize("compute", ALL)
def test_a_logit_that_is_not_finite_is_an_error(compute: Callable[..., float]) -> None:
    with pytest.raises(MetricError) as caught:
        compute([[0.0, 1.0], [0.0, math.inf]], [0, 1])
    assert str(caught.value) == "1 of 2 samples with logits that are not finite: sample 1 (inf)"


@pytest.mark.parametrize("compute", ALL)
def test_no_samples_wrong_shapes_and_foreign_labels_are_refused(compute: Callable[..., float]) -> None:
    with pytest.raises(MetricError, match="no samples"):
        compute(np.zeros((0, 2)), [])
    with pytest.raises(MetricError, match=r"logits \(2,\), labels \(2,\)"):
        compute([0.1, 0.2], [0, 1])
    with pytest.raises(MetricError, match=r"logits \(2, 1\)"):
        compute([[0.1], [0.2]], [0, 1])
    with pytest.raises(MetricError, match=r"logits \(2, 2\), labels \(3,\)"):
        compute(np.zeros((2, 2)), [0, 1, 1])
    with pytest.raises(MetricError, match=r"labels outside 0..1: sample 1 \(2\)"):
        compute(np.zeros((2, 2)), [0, 2])


def test_a_number_of_bins_below_one_is_a_defect_of_ours() -> None:
    with pytest.raises(ValueError, match="bins must be >= 1"):
        compute_ece(np.zeros((2, 2)), [0, 1], bins=0)
