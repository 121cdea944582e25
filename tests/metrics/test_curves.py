"""Points of ROC, PR and DET: scikit-learn's, and thinned without being moved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.curves import (
    MOST_POINTS,
    TOLERANCE,
    Curve,
    compute_det,
    compute_pr,
    compute_roc,
    find_deviates,
    find_distances,
    thin_curve,
)
from sklearn.metrics import auc, det_curve, precision_recall_curve, roc_curve

SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30)
ALL: list[Callable[..., Curve]] = [compute_roc, compute_pr, compute_det]


def draw(size: int, *, seed: int = 0, shift: float = 1.5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(size) % 2).astype(np.int64)
    return generator.normal(size=size) + shift * labels, labels


def measure_move(all_points: NDArray[Any], kept: NDArray[np.int64]) -> float:
    """The largest distance of any point from the straight line between the kept ones before and after it."""
    parts = [find_distances(all_points[i : j + 1]) for i, j in pairwise(kept.tolist()) if j - i > 1]
    return max((float(part.max()) for part in parts), default=0.0)


@given(SAMPLES)
@settings(max_examples=50)
def test_the_roc_has_scikit_learns_corners_and_area(samples: list[tuple[int, bool]]) -> None:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    scores = np.array([score for score, _ in samples], dtype=np.float64)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    every = set(zip(fpr.tolist(), tpr.tolist(), thresholds.tolist(), strict=True))
    found = compute_roc(scores, labels)
    assert set(zip(found.x.tolist(), found.y.tolist(), found.thresholds.tolist(), strict=True)) <= every
    assert auc(found.x, found.y) == pytest.approx(compute_auc(scores, labels), abs=1e-9)
    assert (found.x[0], found.y[0], found.x[-1], found.y[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_small_curves_are_scikit_learns_point_for_point() -> None:
    # Nothing lies on the way straight up or to the right here, so nothing can be left out.
    scores, labels = np.array([5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0]), np.array([1, 0, 1, 0, 1, 0, 0])
    recall_first = precision_recall_curve(labels, scores)
    found = compute_pr(scores, labels)
    np.testing.assert_allclose(found.y, recall_first[0][::-1], atol=1e-12)
    np.testing.assert_allclose(found.x, recall_first[1][::-1], atol=1e-12)
    assert found.thresholds.tolist() == [math.inf, 5.0, 4.0, 3.0]
    fpr, fnr, _ = det_curve(labels, scores, drop_intermediate=False)
    det = compute_det(scores, labels)
    np.testing.assert_allclose((det.x, det.y), (fpr[::-1], fnr[::-1]), atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("compute", ALL)
def test_of_many_samples_at_most_two_thousand_points_are_kept_and_none_lies_off(
    compute: Callable[..., Curve], shift: float
) -> None:
    scores, labels = draw(60_000, shift=shift)
    found = compute(scores, labels)
    assert len(found.x) <= MOST_POINTS
    if compute is compute_pr:
        precision, recall, thresholds = precision_recall_curve(labels, scores)
        x, y = recall[::-1], precision[::-1]
        thresholds = np.append(np.inf, thresholds[::-1])
    else:
        x, y, thresholds = roc_curve(labels, scores, drop_intermediate=False)
        y = 1 - y if compute is compute_det else y
    places = np.searchsorted(-thresholds, -found.thresholds)
    end = places[-1] + 1  # scikit-learn's PR goes on where recall is 1
    assert measure_move(np.stack([x, y], axis=1)[:end], places) <= TOLERANCE
    if compute is compute_det:
        deviates = np.stack([find_deviates(x, 30_000), find_deviates(y, 30_000)], axis=1)
        assert measure_move(deviates, places) <= 2.5 * TOLERANCE


def test_the_thinned_roc_has_the_area_of_the_whole() -> None:
    scores, labels = draw(100_000)
    found = compute_roc(scores, labels)
    assert auc(found.x, found.y) == pytest.approx(compute_auc(scores, labels), abs=TOLERANCE)


def test_the_ends_of_det_axes_keep_their_detail() -> None:
    scores, labels = draw(100_000)
    found = compute_det(scores, labels)
    assert ((found.x > 0) & (found.x < 1e-3)).sum() > 20


def test_a_staircase_of_many_steps_fits_its_proven_number_of_points() -> None:
    # 1,000 steps up and to the right, each corner as far off the diagonal as a curve of so many can have it.
    steps = np.repeat(np.arange(1001) / 1000, 2)
    kept = thin_curve([(steps[1:], steps[:-1])])
    assert len(kept) <= MOST_POINTS
    assert measure_move(np.stack([steps[1:], steps[:-1]], axis=1), kept) <= TOLERANCE


def test_a_curve_that_rises_and_falls_without_end_is_moved_further() -> None:
    x = np.linspace(0, 1, 4_001)
    y: NDArray[Any] = (np.arange(4_001) % 2) * 5e-3
    kept = thin_curve([(x, y)])
    assert len(kept) <= MOST_POINTS
    assert TOLERANCE < measure_move(np.stack([x, y], axis=1), kept) <= 1e-2


def test_a_straight_line_needs_two_points_and_a_closed_way_its_far_end() -> None:
    line = np.linspace(0, 1, 50)
    assert thin_curve([(line, 2 * line)]).tolist() == [0, 49]
    assert thin_curve([(np.array([0.0, 1.0, 0.0]), np.zeros(3))]).tolist() == [0, 1, 2]
    assert thin_curve([(np.zeros(3), np.zeros(3))]).tolist() == [0, 2]


def test_two_hundred_thousand_samples_take_seconds_at_most() -> None:
    scores, labels = draw(200_000)
    start = time.process_time()
    for compute in ALL:
        compute(scores, labels)
    assert time.process_time() - start < 10.0  # about 0.5 s


@pytest.mark.parametrize("compute", ALL)
def test_no_curve_is_an_error(compute: Callable[..., Curve]) -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        compute([0.1, math.nan], [0, 1])
    with pytest.raises(MetricError, match="all 2 samples have label 1"):
        compute([0.1, 0.2], [1, 1])
    with pytest.raises(MetricError, match="no samples"):
        compute([], [])
