"""How well a predicted map points at a place: values of rows, for `make_mean_metric`.

A target that a row does not have is NaN in its coordinates, or 0 all over its map; its value is NaN then, and does not
count. Places are x and y as shares of the map's width and height, 0..1, so that maps of any size compare; a cell stands
for its middle. Legend: N rows, maps of (H, W) cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.calibration import compute_log_softmax
from sharpstudent.metrics.checks import MetricError


def find_peaks(maps: ArrayLike) -> NDArray[np.float64]:
    """The place (N, 2) of the largest value of each map (N, H, W), of equal ones the first, row by row from the top."""
    values = _check_maps(maps)
    height, width = values.shape[1:]
    y, x = np.divmod(values.reshape(len(values), -1).argmax(axis=1), width)
    return np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=1)


def measure_peak_distances(maps: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Distance (N,) from the largest value of each map (N, H, W) to the target point (N, 2), in shares of the map."""
    peaks, targets = find_peaks(maps), np.asarray(points, np.float64)
    if targets.shape != peaks.shape:
        raise MetricError(f"points must be (rows, 2) with one for each of {len(peaks)} maps, got {targets.shape}")
    return np.hypot(*(peaks - targets).T)


def measure_divergences(logits: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    """Kullback-Leibler divergence (N,) of each predicted map from its target, both as distributions over cells [nats].

    logits: (N, H, W), whose softmax over all cells is the prediction; the logarithm of a map that is no distribution
    does as well. targets: (N, H, W), not negative, of any sum.
    """
    predicted, wanted = _check_maps(logits), np.asarray(targets, np.float64)
    if wanted.shape != predicted.shape:
        raise MetricError(
            f"target maps must be of the same shape as the predictions, {predicted.shape}, got {wanted.shape}"
        )
    if bool((wanted < 0.0).any()):
        raise MetricError("target maps must not be negative")
    wanted = wanted.reshape(len(wanted), -1)
    log_predicted = compute_log_softmax(predicted.reshape(len(predicted), -1))
    sums = wanted.sum(axis=1, keepdims=True)
    share = wanted / np.where(sums > 0.0, sums, np.nan)
    filled = share > 0.0  # a cell of 0 adds nothing, whatever is predicted there
    log_share = np.log(np.where(filled, share, 1.0))
    nats = np.where(filled, share, 0.0) * (log_share - np.where(filled, log_predicted, 0.0))
    return np.where(sums[:, 0] > 0.0, nats.sum(axis=1), np.nan)


def _check_maps(maps: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(maps, np.float64)
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise MetricError(f"maps must be (rows, height, width), got {values.shape}")
    bad = np.flatnonzero(np.isnan(values).any(axis=(1, 2)))
    if len(bad):
        raise MetricError(f"{len(bad)} of {len(values)} maps hold NaN, the first of them in row {bad[0]}")
    return values
