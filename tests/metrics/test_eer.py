"""Equal error rate: worked by hand, in exact fractions, and by scipy's root of scikit-learn's ROC."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from sharpstudent.metrics.binary import compute_eer
from sharpstudent.metrics.checks import MetricError
from sklearn.metrics import roc_curve

SAMPLES = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40)


def split(samples: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels = np.array([label for _, label in samples], dtype=np.int64)
    labels[:2] = [0, 1]
    return np.array([score for score, _ in samples], dtype=np.float64), labels


def walk(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> Fraction:
    """Along the ROC from (0, 0), threshold by threshold, until FPR is at least FNR; then back along the last step."""
    fakes, reals = scores[labels == 1], scores[labels == 0]
    before = (Fraction(0), Fraction(1))
    for threshold in sorted(set(scores.tolist()), reverse=True):
        fpr = Fraction(int((reals >= threshold).sum()), len(reals))
        fnr = Fraction(int((fakes < threshold).sum()), len(fakes))
        if fpr >= fnr:
            gap_before, gap = before[1] - before[0], fpr - fnr
            return before[0] + (fpr - before[0]) * gap_before / (gap_before + gap)
        before = (fpr, fnr)
    raise AssertionError("the last threshold calls everything fake")


def test_a_case_worked_by_hand() -> None:
    # At .6: one of four reals is called fake, one of four fakes is missed.
    scores = [0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9]
    assert compute_eer(scores, [0, 0, 0, 0, 1, 1, 1, 1]) == 0.25


def test_between_two_points_the_line_decides() -> None:
    # At .5: FPR 0, FNR 1 / 2; at .4, where a fake and a real are tied: FPR 1 / 3, FNR 0. 0 + t / 3 = 1 / 2 - t / 2.
    assert compute_eer([0.1, 0.2, 0.4, 0.4, 0.5], [0, 0, 0, 1, 1]) == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.1, 0.2, 0.8, 0.9], 0.0), ([0.8, 0.9, 0.1, 0.2], 1.0), ([0.5] * 4, 0.5)]
)
def test_perfect_inverted_and_tied_scores(scores: list[float], expected: float) -> None:
    assert compute_eer(scores, [0, 0, 1, 1]) == expected


@given(SAMPLES)
def test_it_is_the_exact_fraction_with_ties(samples: list[tuple[int, bool]]) -> None:
    scores, labels = split(samples)
    assert compute_eer(scores, labels) == pytest.approx(float(walk(scores, labels)), abs=1e-12)


@pytest.mark.parametrize("size", [11, 200, 3000])
def test_it_is_the_root_of_scikit_learns_roc(size: int) -> None:
    generator = np.random.default_rng(size)
    labels = (np.arange(size) % 3 == 0).astype(np.int64)
    scores = np.round(generator.normal(size=size) + labels, 2)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    # By arc length: over the FPR alone a step straight up has no one value.
    along = np.concatenate([[0.0], np.cumsum(np.diff(fpr) + np.diff(tpr))])
    gap = partial(np.interp, xp=along, fp=fpr + tpr - 1)
    crossing: Any = brentq(gap, 0, along[-1], xtol=1e-15)
    assert compute_eer(scores, labels) == pytest.approx(np.interp(crossing, along, fpr), abs=1e-9)


@given(SAMPLES)
def test_only_the_order_of_scores_matters_and_classes_may_change_places(samples: list[tuple[int, bool]]) -> None:
    scores, labels = split(samples)
    expected = compute_eer(scores, labels)
    assert compute_eer(np.exp(scores), labels) == expected
    assert compute_eer(-scores, 1 - labels) == pytest.approx(expected, abs=1e-12)
    assert compute_eer(-scores, labels) == pytest.approx(1 - expected, abs=1e-12)
    assert compute_eer(scores[::-1], labels[::-1]) == expected
    assert compute_eer(np.tile(scores, 3), np.tile(labels, 3)) == pytest.approx(expected, abs=1e-12)


def test_no_value_is_an_error() -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(inf\)"):
        compute_eer([0.1, math.inf], [0, 1])
    with pytest.raises(MetricError, match="all 7 samples have label 1"):
        compute_eer([0.1] * 7, [1] * 7)
    with pytest.raises(MetricError, match="no samples"):
        compute_eer([], [])
