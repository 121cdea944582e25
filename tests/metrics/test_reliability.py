"""The reliability diagram is scikit-learn's calibration curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sharpstudent.metrics.calibration import compute_ece, compute_reliability, compute_reliability_of_positive
from sharpstudent.metrics.checks import MetricError
from sklearn.calibration import calibration_curve


def to_logits(margins: list[float]) -> np.ndarray:
    return np.array([[0.0, margin] for margin in margins])


def test_a_case_worked_by_hand() -> None:
    logits = to_logits([math.log(p / (1 - p)) for p in (0.1, 0.15, 0.7, 0.9)])
    found = compute_reliability_of_positive(logits, [0, 1, 1, 1], bins=4)
    assert found.edges.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert found.counts.tolist() == [2, 0, 1, 1]
    np.testing.assert_allclose(found.predicted, [0.125, math.nan, 0.7, 0.9])
    np.testing.assert_allclose(found.observed, [0.5, math.nan, 1.0, 1.0])


def test_of_class_1_it_is_scikit_learns_curve() -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 3, 500)
    labels = (generator.random(500) < 0.5).astype(np.int64)
    found = compute_reliability_of_positive(to_logits(margins.tolist()), labels, bins=10)
    true, said = calibration_curve(labels, 1 / (1 + np.exp(-margins)), n_bins=10)
    np.testing.assert_allclose(found.observed[found.counts > 0], true, atol=1e-12)
    np.testing.assert_allclose(found.predicted[found.counts > 0], said, atol=1e-12)


def test_swapped_classes_turn_the_diagram_round() -> None:
    generator = np.random.default_rng(1)
    margins, labels = generator.normal(0, 2, 300), generator.integers(0, 2, 300)
    found = compute_reliability_of_positive(to_logits(margins.tolist()), labels, bins=5)
    turned = compute_reliability_of_positive(to_logits((-margins).tolist()), 1 - labels, bins=5)
    np.testing.assert_allclose(turned.predicted[::-1], 1 - found.predicted, atol=1e-12)
    np.testing.assert_allclose(turned.observed[::-1], 1 - found.observed, atol=1e-12)


def test_bad_logits_and_no_bins_are_refused() -> None:
    with pytest.raises(MetricError, match=r"sample 1 \(nan\)"):
        compute_reliability_of_positive([[0.0, 0.1], [0.0, math.nan]], [0, 1])
    with pytest.raises(MetricError, match="no samples"):
        compute_reliability_of_positive(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match="bins must be >= 1"):
        compute_reliability_of_positive(np.zeros((1, 2)), [0], bins=0)


def test_the_diagram_of_the_predicted_class_has_the_ece_as_its_mean_distance_from_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 4)) * 2, rng.integers(0, 4, 300)
    found = compute_reliability(logits, labels)
    filled = found.counts > 0
    gaps = np.abs(found.predicted[filled] - found.observed[filled])
    assert (gaps * found.counts[filled]).sum() / 300 == pytest.approx(compute_ece(logits, labels), abs=1e-12)
