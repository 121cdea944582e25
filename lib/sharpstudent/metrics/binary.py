"""Metrics of scores that separate two classes: the negatives, label 0, and the positives, label 1.

A higher score means class 1: a sample is called positive where its score is at the threshold or above. The metrics are
plain functions of scores (N,) and labels (N,); `metrics.binary_draws` computes them on many resamples at once.

A ROC is stored as counts: how many positives and negatives score at or above each threshold. It has a point for each
distinct score, and (0, 0), where nothing is called positive; between points it is a straight line. The equal error rate
(EER) is the false positive rate where this line meets FPR = 1 - TPR. The EER of the ROC's convex hull, which some
authors report, is never larger. The TPR at a wanted FPR is not interpolated: it is the highest one among the thresholds
whose FPR is at most the wanted one. Average precision is the area under the staircase of precision over recall; for a
model that guesses, it is the share of positives.

Legend: N samples, K distinct scores, B resamples.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.checks import (
    check_both_classes,
    check_class_occurs,
    check_rate,
    check_samples,
    check_threshold,
    check_two_classes,
)


@dataclass(frozen=True)
class Ranked:
    """A ROC, stored as counts of samples.

    Attributes:
        order: int64 (N,), the samples from the highest score down.
        thresholds: float64 (K,), the distinct scores, the highest first.
        positives: int64 (K + 1,), how many positives score at or above thresholds[k - 1]: 0 at k = 0, where nothing is
            called positive, and all of them at k = K.
        negatives: int64 (K + 1,), the same for negatives.
    """

    order: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


def rank_scores(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> Ranked:
    """Sort the samples and count both classes at each threshold.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 and 1.

    Returns:
        The ROC of the samples.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(
        np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1
    )  # the last of the samples with the same score
    positives = np.concatenate([[0], np.cumsum(labels[order])[last]])
    return Ranked(order, ranked[last], positives, np.concatenate([[0], last + 1]) - positives)


def find_corners(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the points that are enough to draw a ROC, also of resamples that count each sample differently.

    Points in the middle of a vertical part (positives only) or a horizontal part (negatives only) are left out.

    Args:
        positives: (K + 1,), as in `Ranked`.
        negatives: (K + 1,), as in `Ranked`.

    Returns:
        The places of the points that are kept, the first and the last among them.
    """
    up, right = np.diff(positives) > 0, np.diff(negatives) > 0
    goes_on = (up[1:] == up[:-1]) & (right[1:] == right[:-1]) & (up[1:] != right[1:])
    return np.flatnonzero(np.concatenate([[True], ~goes_on, [True]]))


def compute_accuracy(scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> float:
    """Compute the share of samples on the right side of the threshold; the samples may all be of one class.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1.
        threshold: A sample is called positive from here on.

    Returns:
        The share, 0 to 1.

    Raises:
        MetricError: As `check_samples`, and for a threshold that is not finite.
    """
    called, classes = _call_positive(scores, labels, threshold)
    return int(np.count_nonzero(called == classes)) / len(classes)


def compute_balanced_accuracy(scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> float:
    """Compute the mean of the accuracies of positives and of negatives.

    A model that gives the same score to all samples has 0.5.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.
        threshold: A sample is called positive from here on.

    Returns:
        The mean of both shares, 0 to 1.

    Raises:
        MetricError: As `compute_auc`, and for a threshold that is not finite.
    """
    called, classes = _call_positive(scores, labels, threshold)
    check_both_classes(classes)
    right = called == classes
    return float(0.5 * (right[classes == 1].mean() + right[classes == 0].mean()))


def compute_fnr(scores: ArrayLike, labels: ArrayLike, *, threshold: float) -> float:
    """Compute the false negative rate: the share of the positives below the threshold.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1; 1 must occur.
        threshold: A sample is called positive from here on.

    Returns:
        The rate, 0 to 1.

    Raises:
        MetricError: As `check_samples`, without a positive, and for a threshold that is not finite.
    """
    called, classes = _call_positive(scores, labels, threshold)
    check_class_occurs(classes, 1)
    return float((~called[classes == 1]).mean())


def compute_fpr(scores: ArrayLike, labels: ArrayLike, *, threshold: float) -> float:
    """Compute the false positive rate: the share of the negatives at the threshold or above.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1; 0 must occur.
        threshold: A sample is called positive from here on.

    Returns:
        The rate, 0 to 1.

    Raises:
        MetricError: As `check_samples`, without a negative, and for a threshold that is not finite.
    """
    called, classes = _call_positive(scores, labels, threshold)
    check_class_occurs(classes, 0)
    return float(called[classes == 0].mean())


def _call_positive(
    scores: ArrayLike, labels: ArrayLike, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether each sample is called positive (N,), and its label (N,)."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels)
    return score_array >= threshold, label_array


def compute_auc(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> float:
    """Compute the area under the ROC curve, by scikit-learn.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.
        sample_ids: N names for error messages.

    Returns:
        The area, 0 to 1; 0.5 is chance.

    Raises:
        MetricError: For scores that are not finite, one class only, no samples or lengths that differ; names samples.
            An undefined AUC is never given as 0.5.
    """
    # Imported here, because it takes 0.8 s that only evaluations need; scikit-learn ships no types.
    from sklearn.metrics import roc_auc_score  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    score_array, label_array = check_two_classes(scores, labels, sample_ids=sample_ids)
    return float(cast(float, roc_auc_score(label_array, score_array)))


def compute_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Compute the average precision, by scikit-learn: sum over thresholds of (gain of recall) * precision.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.

    Returns:
        The average precision, 0 to 1.

    Raises:
        MetricError: As `compute_auc`.
    """
    # Imported here, as in `compute_auc`.
    from sklearn.metrics import (  # pyright: ignore[reportMissingTypeStubs]
        average_precision_score,  # pyright: ignore[reportUnknownVariableType]
    )

    score_array, label_array = check_two_classes(scores, labels)
    return float(cast(float, average_precision_score(label_array, score_array)))


def compute_eer(scores: ArrayLike, labels: ArrayLike) -> float:
    """Compute the equal error rate, where false positive and false negative rate meet.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.

    Returns:
        The rate, 0 to 1; 0.5 for a model that guesses.

    Raises:
        MetricError: As `compute_auc`.
    """
    ranked = rank_scores(*check_two_classes(scores, labels))
    return float(find_eer(ranked.positives[np.newaxis], ranked.negatives[np.newaxis])[0])


def find_eer(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.float64]:
    """Find the equal error rates of B ROCs.

    Args:
        positives: (B, K + 1), as in `Ranked`, present in each ROC.
        negatives: (B, K + 1), as in `Ranked`, present in each ROC.

    Returns:
        The rates (B,).
    """
    return np.array([_find_crossing(*roc) for roc in zip(positives, negatives, strict=True)])


def _find_crossing(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    all_positives, all_negatives = int(positives[-1]), int(negatives[-1])

    def ahead(place: int) -> int:
        """Compute (FPR - FNR) * positives * negatives at a point: an integer that rises from below 0 to above 0."""
        of_negatives, of_positives = int(negatives[place]) * all_positives, int(positives[place]) * all_negatives
        return of_negatives + of_positives - all_positives * all_negatives

    after = bisect_left(range(len(positives)), 0, key=ahead)
    share = ahead(after - 1) / (ahead(after - 1) - ahead(after))
    return (int(negatives[after - 1]) + share * int(negatives[after] - negatives[after - 1])) / all_negatives


def compute_tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, *, wanted: float) -> float:
    """Compute the share of positives found at a threshold whose false positive rate is at most the wanted one.

    Args:
        scores: (N,).
        labels: (N,), 0 and 1, both of which occur.
        wanted: The highest FPR that is allowed, above 0 and below 1.

    Returns:
        The true positive rate, 0 to 1.

    Raises:
        MetricError: As `compute_auc`, and for a wanted FPR outside (0, 1).
    """
    check_rate(wanted)
    ranked = rank_scores(*check_two_classes(scores, labels))
    return float(find_tpr_at_fpr(ranked.positives[np.newaxis], ranked.negatives[np.newaxis], wanted)[0])


def describe_resolution(wanted: float, negatives: int, *, called: str = "negatives") -> str | None:
    """Warn of too few negatives for a TPR at a wanted FPR: with fewer than 1 / wanted, no false alarm is allowed.

    Args:
        wanted: The FPR, above 0 and below 1.
        negatives: How many there are.
        called: The word for negatives in the text.

    Returns:
        A sentence to show with the value; None where there are enough negatives.
    """
    if 1 / negatives <= wanted:
        return None
    return (
        f"TPR at {wanted:.4g} FPR stands at the limit of resolution: {negatives} {called}, where {1 / wanted:.0f} are "
        f"needed for one to be {wanted:.4g} of them. It is the TPR at no false alarm"
    )


def find_place_at_fpr(negatives: NDArray[np.int64], wanted: float) -> NDArray[np.int64]:
    """Find the last point of each of B ROCs whose FPR is at most the wanted one.

    Args:
        negatives: (B, K + 1), as in `Ranked`.
        wanted: The FPR, above 0 and below 1.

    Returns:
        The place of the point in each ROC (B, 1).
    """
    # Compare quotients: 29 of 100 negatives are 0.29, though 0.29 * 100 is less than 29 in floating point.
    all_negatives = negatives[:, -1:]
    allowed = np.floor(wanted * all_negatives) + 1.0
    for _ in range(2):
        allowed -= allowed / all_negatives > wanted
    rows = zip(negatives, allowed[:, 0], strict=True)
    return np.array([[np.searchsorted(row, most, side="right") - 1] for row, most in rows], np.int64)


def find_tpr_at_fpr(positives: NDArray[np.int64], negatives: NDArray[np.int64], wanted: float) -> NDArray[np.float64]:
    """Find the TPR of B ROCs at a wanted FPR.

    Args:
        positives: (B, K + 1), as in `Ranked`.
        negatives: (B, K + 1), as in `Ranked`.
        wanted: The FPR, above 0 and below 1.

    Returns:
        The true positive rates (B,).
    """
    place = find_place_at_fpr(negatives, wanted)
    return (np.take_along_axis(positives, place, axis=1) / positives[:, -1:])[:, 0]


def to_logits(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn log-odds (N,) of class 1 into logits (N, 2) of both classes."""
    return np.stack([np.zeros_like(margins), margins], axis=1)
