"""Metrics of C classes, of rows that were drawn more than once or not at all.

Each takes logits (N, C), labels (N,) of 0..C-1 and counts (N,), how often each row was drawn, and is to the last bit
the metric of the rows written out so often; NaN where no row was drawn. All raise MetricError where `check_logits`
does. Legend: N rows, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.calibration import BINS, compute_log_softmax, find_bins, find_confidence
from sharpstudent.metrics.checks import check_logits
from sharpstudent.metrics.metric import Counts


def compute_accuracy(logits: ArrayLike, labels: ArrayLike, counts: Counts) -> float:
    """Share of the rows whose label has the largest logit, of equal ones the first."""
    values, classes = check_logits(logits, labels)
    return _average((values.argmax(axis=1) == classes).astype(np.float64), counts)


def compute_top_k(logits: ArrayLike, labels: ArrayLike, counts: Counts, *, k: int = 5) -> float:
    """Share of the rows whose label is among the k largest logits, of equal ones the first: accuracy for k of 1."""
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    values, classes = check_logits(logits, labels)
    own = values[np.arange(len(classes)), classes, np.newaxis]
    size: int = values.shape[1]
    is_before = np.arange(size) < classes[:, np.newaxis]
    ahead = np.count_nonzero((values > own) | ((values == own) & is_before), axis=1)
    return _average(np.less(ahead, k).astype(np.float64), counts)


def compute_balanced_accuracy(logits: ArrayLike, labels: ArrayLike, counts: Counts) -> float:
    """Mean of the accuracies of each class that was drawn."""
    confusion = count_confusion(logits, labels, counts)
    rows = confusion.sum(axis=1)
    drawn = rows > 0
    return float((np.diag(confusion)[drawn] / rows[drawn]).mean()) if bool(drawn.any()) else float("nan")


def compute_macro_f1(logits: ArrayLike, labels: ArrayLike, counts: Counts) -> float:
    """Mean of the F1 scores, 2 TP / (2 TP + FP + FN), of each class that was drawn or predicted."""
    confusion = count_confusion(logits, labels, counts)
    rows_and_predictions = confusion.sum(axis=1) + confusion.sum(axis=0)
    some = rows_and_predictions > 0
    return float((2 * np.diag(confusion)[some] / rows_and_predictions[some]).mean()) if some.any() else float("nan")


def compute_log_loss(logits: ArrayLike, labels: ArrayLike, counts: Counts) -> float:
    """Mean of minus the logarithm of the label's probability [nats]."""
    values, classes = check_logits(logits, labels)
    # `0.0 -`: a sure and right model has 0, not -0.
    return 0.0 - _average(compute_log_softmax(values)[np.arange(len(classes)), classes], counts)


def compute_ece(logits: ArrayLike, labels: ArrayLike, counts: Counts, *, bins: int = BINS) -> float:
    """Expected calibration error, as `calibration.compute_ece`."""
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    confidence, right = find_confidence(*check_logits(logits, labels))
    drawn = np.repeat(np.arange(len(confidence)), counts)
    if not drawn.size:
        return float("nan")
    gaps = np.bincount(find_bins(confidence, bins)[drawn], (right - confidence)[drawn], minlength=bins)
    return float(np.abs(gaps).sum() / len(drawn))


def count_confusion(logits: ArrayLike, labels: ArrayLike, counts: Counts) -> NDArray[np.int64]:
    """How often each class, by rows, was drawn and predicted as each class, by columns: (C, C)."""
    values, classes = check_logits(logits, labels)
    size: int = values.shape[1]
    cells = np.bincount(classes * size + values.argmax(axis=1), counts, minlength=size * size)
    return cells.astype(np.int64).reshape(size, size)


def _average(values: NDArray[np.float64], counts: Counts) -> float:
    drawn = np.repeat(values, counts)
    return float(drawn.mean()) if drawn.size else float("nan")
