"""Rows that are unlike the reference: distances against scipy, thresholds, and features of shared inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import FEATURES, Batch
from sharpstudent.deploy.familiar import LEAST_ROWS, FeatureStatistics, fit_familiar
from sklearn.covariance import LedoitWolf

STATISTICS = FeatureStatistics(("body",))


def make_rows(count: int, seed: int) -> np.ndarray:
    """Correlated ordinary rows (N, 6)."""
    mixing = np.random.default_rng(0).normal(size=(6, 6))
    return np.random.default_rng(seed).normal(size=(count, 6)) @ mixing


def make_groups(count: int) -> list[str]:
    return [f"p{number % 20}" for number in range(count)]


def test_a_distance_is_that_of_mahalanobis_with_the_covariance_of_ledoit_and_wolf() -> None:
    rows = make_rows(200, 1)
    familiar = fit_familiar(STATISTICS, rows, make_groups(200))
    assert familiar is not None
    scaled = (rows - rows.mean(0)) / rows.std(0)
    precision = LedoitWolf(assume_centered=True).fit(scaled).precision_
    expected = [mahalanobis(row, np.zeros(6), precision) for row in scaled]
    np.testing.assert_allclose(familiar.compute_distances(rows), expected, rtol=1e-4)


def test_ordinary_rows_rarely_and_shifted_rows_mostly_exceed_the_threshold() -> None:
    familiar = fit_familiar(STATISTICS, make_rows(400, 1), make_groups(400))
    assert familiar is not None
    others = make_rows(2000, 2)
    assert 0.0 < (familiar.compute_distances(others) > familiar.threshold).mean() < 0.03
    shifted = others + 6.0 * others.std(0)
    assert (familiar.compute_distances(shifted) > familiar.threshold).mean() > 0.95


def test_too_few_rows_or_groups_make_no_reference() -> None:
    assert fit_familiar(STATISTICS, make_rows(LEAST_ROWS - 1, 1), make_groups(LEAST_ROWS - 1)) is None
    assert fit_familiar(STATISTICS, make_rows(200, 1), ["p1"] * 200) is None


def make_shared_batch() -> Batch:
    """Five rows that read two pictures."""
    index = torch.tensor([0, 1, 1, 0, 1])
    rows = {"id": list("abcde")}
    return Batch({"image": torch.rand(2, 3, 8, 8), "which": index}, rows=rows, shared={"image": "which"})


def test_each_row_has_the_statistics_of_the_picture_that_it_reads() -> None:
    features = torch.rand(2, 4, 3, 3)
    found = STATISTICS.measure({f"{FEATURES}body": features}, make_shared_batch())
    assert found.shape == (5, 8)
    for row, picture in enumerate([0, 1, 1, 0, 1]):
        flat = features[picture].flatten(1).numpy()
        np.testing.assert_allclose(found[row], np.concatenate([flat.mean(1), flat.std(1)]), rtol=1e-5)


def test_features_of_neither_rows_nor_shared_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="layer body: gives 3 feature maps for 5 rows"):
        STATISTICS.measure({f"{FEATURES}body": torch.rand(3, 4, 3, 3)}, make_shared_batch())
