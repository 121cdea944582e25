"""Metrics of scores that separate two classes: the negatives, label 0, and the positives, label 1.

Scores rise with class 1: a sample is called positive where its score is at the threshold or above. The metrics are
plain functions of scores (N,) and labels (N,); `metrics.binary_draws` has the same on many resamples at once.

The ROC is kept in whole numbers: how many positives and negatives score at or above each threshold. The equal error
rate takes it as the line from each of its points straight to the next, one point for each distinct score and (0, 0)
where nothing is called positive, and is the false positive rate where that line meets FPR = 1 - TPR; it is not the EER
of the ROC's convex hull, which is never larger. The TPR at a wanted FPR is conservative: never interpolated, the
highest among the thresholds whose FPR is at most the wanted one. Average precision is the area under precision over
recall as a staircase; a model that guesses has the share of positives.

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
)


@dataclass(frozen=True)
class Ranked:
    """The ROC in whole numbers.

    order: int64 (N,), the samples from the highest score down. thresholds: float64 (K,), the distinct scores, the
    highest first. positives, negatives: int64 (K + 1,), how many score at or above thresholds[k - 1]; 0 at k = 0,
    where nothing is called positive, and all of them at k = K.
    """

    order: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


def rank_scores(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> Ranked:
    """Of checked scores (N,) and labels (N,)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of the samples that are tied
    positives = np.concatenate([[0], np.cumsum(labels[order])[last]])
    return Ranked(order, ranked[last], positives, np.concatenate([[0], last + 1]) - positives)


def find_corners(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which points of a ROC (K + 1,) are enough to draw it, however often each sample is counted: not those on the way
    straight up (positives alone) or straight to the right (negatives alone).
    """
    up, right = np.diff(positives) > 0, np.diff(negatives) > 0
    goes_on = (up[1:] == up[:-1]) & (right[1:] == right[:-1]) & (up[1:] != right[1:])
    return np.flatnonzero(np.concatenate([[True], ~goes_on, [True]]))


def compute_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Share of samples on the right side of the threshold. One class is enough; see `check_samples`."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return int(np.count_nonzero(right)) / len(right)


def compute_balanced_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Mean of the shares of positives and of negatives on the right side: 0.5 for a model that says one thing of all.

    Raises MetricError as `compute_auc` does.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return float(0.5 * (right[label_array == 1].mean() + right[label_array == 0].mean()))


def compute_auc(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> float:
    """AUC of scores (N,) and labels (N,), by scikit-learn.

    Raises MetricError, naming the samples, for scores that are not finite, one class only, no samples or lengths that
    differ: an AUC that does not exist is never 0.5.
    """
    # Imported here, so that what scores nothing starts 0.8 s sooner; scikit-learn ships no types.
    from sklearn.metrics import roc_auc_score  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return float(cast(float, roc_auc_score(label_array, score_array)))


def compute_auc_by_rank(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The same number, about ten times as fast and unchecked, for resampling: Mann-Whitney U over its largest value."""
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    # Twice the pairs won: an integer, so the result is exact but for the last division.
    twice_won = (
        np.searchsorted(negatives, positives, side="left").sum()
        + np.searchsorted(negatives, positives, side="right").sum()
    )
    return float(twice_won / (2 * len(positives) * len(negatives)))


def compute_average_precision(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> float:
    """Sum over thresholds of (recall - the recall before) * precision, by scikit-learn. scores and labels (N,).

    Raises MetricError as `compute_auc` does.
    """
    # Imported here, as in `compute_auc`.
    from sklearn.metrics import (  # pyright: ignore[reportMissingTypeStubs]
        average_precision_score,  # pyright: ignore[reportUnknownVariableType]
    )

    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return float(cast(float, average_precision_score(label_array, score_array)))


def compute_eer(scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None) -> float:
    """EER of scores (N,) and labels (N,), 0..1; 0.5 for a model that guesses. Raises MetricError as `compute_auc`."""
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    ranked = rank_scores(score_array, label_array)
    return float(find_eer(ranked.positives[np.newaxis], ranked.negatives[np.newaxis])[0])


def find_eer(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.float64]:
    """EER (B,) of B ROCs in whole numbers: positives, negatives (B, K + 1) as in `Ranked`, both present in each."""
    return np.array([_find_crossing(*roc) for roc in zip(positives, negatives, strict=True)])


def _find_crossing(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    all_positives, all_negatives = int(positives[-1]), int(negatives[-1])

    def ahead(place: int) -> int:
        """(FPR - FNR) * positives * negatives: whole, never falling, below 0 at first and above 0 at last."""
        return (
            int(negatives[place]) * all_positives
            + int(positives[place]) * all_negatives
            - all_positives * all_negatives
        )

    after = bisect_left(range(len(positives)), 0, key=ahead)
    share = ahead(after - 1) / (ahead(after - 1) - ahead(after))
    return (int(negatives[after - 1]) + share * int(negatives[after] - negatives[after - 1])) / all_negatives


def compute_fnr(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float, sample_ids: Sequence[str] | None = None
) -> float:
    """False negative rate: the share of the positives of scores (N,) below the threshold.

    Raises MetricError as `check_samples` does, and without a positive.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_class_occurs(label_array, 1, sample_ids=sample_ids)
    return float((score_array[label_array == 1] < threshold).mean())


def compute_fpr(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float, sample_ids: Sequence[str] | None = None
) -> float:
    """False positive rate: the share of the negatives of scores (N,) at the threshold or above.

    Raises MetricError as `check_samples` does, and without a negative.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_class_occurs(label_array, 0, sample_ids=sample_ids)
    return float((score_array[label_array == 0] >= threshold).mean())


@dataclass(frozen=True)
class TprAtFpr:
    """What is found at the wanted FPR.

    tpr: share of positives found; fpr: share of negatives called positive there, at most `wanted`; negatives: how many
    there are.
    """

    tpr: float
    fpr: float
    wanted: float
    negatives: int

    @property
    def is_resolved(self) -> bool:
        """Whether there are 1 / wanted negatives, so that the wanted FPR allows one of them to be called positive."""
        return 1 / self.negatives <= self.wanted

    def describe_limit(self, negatives: str = "negatives") -> str | None:
        """What to say beside the value; None where there are negatives enough. negatives: what readers call them."""
        if self.is_resolved:
            return None
        return (
            f"TPR at {self.wanted:.4g} FPR stands at the limit of resolution: {self.negatives} {negatives}, where "
            f"{1 / self.wanted:.0f} are needed for one to be {self.wanted:.4g} of them; it is the TPR at no false alarm"
        )


def compute_tpr_at_fpr(
    scores: ArrayLike, labels: ArrayLike, *, wanted: float, sample_ids: Sequence[str] | None = None
) -> TprAtFpr:
    """Of scores (N,) and labels (N,); wanted: the FPR, 0 < wanted < 1.

    Raises MetricError as `compute_auc` does, and for a wanted FPR that is no share.
    """
    check_rate(wanted)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    ranked = rank_scores(score_array, label_array)
    place = int(find_place_at_fpr(ranked.negatives[np.newaxis], wanted)[0, 0])
    negatives = int(ranked.negatives[-1])
    return TprAtFpr(
        tpr=float(ranked.positives[place] / ranked.positives[-1]),
        fpr=float(ranked.negatives[place] / negatives),
        wanted=wanted,
        negatives=negatives,
    )


def find_place_at_fpr(negatives: NDArray[np.int64], wanted: float) -> NDArray[np.int64]:
    """The last point (B, 1) of each of B ROCs whose FPR is at most `wanted`; negatives (B, K + 1) as in `Ranked`."""
    # Divided as a reader would: 29 of 100 negatives are 0.29, though 0.29 * 100 is less than 29 in floating point.
    all_negatives = negatives[:, -1:]
    allowed = np.floor(wanted * all_negatives) + 1.0
    for _ in range(2):
        allowed -= allowed / all_negatives > wanted
    places = np.zeros((len(negatives), 1), np.int64)
    for place, row, most in zip(places, negatives, allowed[:, 0], strict=True):
        place[0] = np.searchsorted(row, most, side="right") - 1
    return places


def find_tpr_at_fpr(positives: NDArray[np.int64], negatives: NDArray[np.int64], wanted: float) -> NDArray[np.float64]:
    """TPR (B,) of B ROCs in whole numbers: positives, negatives (B, K + 1) as in `Ranked`."""
    place = find_place_at_fpr(negatives, wanted)
    return (np.take_along_axis(positives, place, axis=1) / positives[:, -1:])[:, 0]


def to_logits(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (N, 2) of the two classes with these log-odds of the second one."""
    return np.stack([np.zeros_like(margins), margins], axis=1)
