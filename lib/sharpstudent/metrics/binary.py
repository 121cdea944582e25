"""Metrics of scores that separate two classes.

The ROC in whole numbers: how many fakes and reals score at or above each threshold.

Legend: N samples, K distinct scores; scores rise with fakeness; labels real 0, fake 1.

Accuracy at a threshold. Legend: N samples; scores rise with fakeness; labels real 0, fake 1.

Area under the ROC curve: the share of (fake, real) pairs in which the fake scores higher, ties counting one half.

Legend: N samples; scores rise with fakeness; labels real 0, fake 1.

Average precision of fakes: the area under precision over recall as a staircase, never interpolated.

It depends on the share of fakes: a model that guesses has that share. Legend: N samples; scores rise with fakeness;
labels real 0, fake 1.

Equal error rate: the rate at which as many reals are called fake as fakes are called real.

The ROC is taken as the line from each of its points straight to the next, one point for each distinct score and (0, 0)
where nothing is called fake; the EER is the false positive rate where that line meets FPR = 1 - TPR. It is not the EER
of the ROC's convex hull, which is never larger. Legend: N samples, K distinct scores, B resamples; scores rise with
fakeness; labels real 0, fake 1.

Error rates as ISO/IEC 30107-3 names them, with a fake as the attack and a real face as the bona fide presentation.

APCER: share of the attacks of one kind that are called real, score < threshold. The standard reports each kind of
attack by itself and the worst of them: a mean would hide a kind that always passes. BPCER: share of the reals that are
called fake, score >= threshold. Legend: N samples; labels real 0, fake 1.

True positive rate where at most a wanted share of reals is called fake.

Conservative: no interpolation, the highest TPR among the thresholds whose FPR is at most the wanted one. Legend: N
samples, K distinct scores, B resamples; scores rise with fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.checks import (
    MetricError,
    check_both_classes,
    check_class_occurs,
    check_rate,
    check_samples,
    check_threshold,
    number_names,
)


@dataclass(frozen=True)
class Ranked:
    """order: int64 (N,), the samples from the highest score down. thresholds: float64 (K,), the distinct scores, the
    highest first. fakes, reals: int64 (K + 1,), how many score at or above thresholds[k - 1]; 0 at k = 0, where nothing
    is called fake, and all of them at k = K.
    """

    order: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    fakes: NDArray[np.int64]
    reals: NDArray[np.int64]


def rank_scores(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> Ranked:
    """Of checked scores (N,) and labels (N,)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of the samples that are tied
    fakes = np.concatenate([[0], np.cumsum(labels[order])[last]])
    return Ranked(order, ranked[last], fakes, np.concatenate([[0], last + 1]) - fakes)


def find_corners(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which points of a ROC (K + 1,) are enough to draw it: not those on the way straight up (fakes alone) or straight
    to the right (reals alone), however often each sample is counted.
    """
    up, right = np.diff(fakes) > 0, np.diff(reals) > 0
    goes_on = (up[1:] == up[:-1]) & (right[1:] == right[:-1]) & (up[1:] != right[1:])
    return np.flatnonzero(np.concatenate([[True], ~goes_on, [True]]))


def compute_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Share of samples on the right side: fake where score >= threshold. One class is enough; see `check_samples`."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return int(np.count_nonzero(right)) / len(right)


def compute_balanced_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5, sample_ids: Sequence[str] | None = None
) -> float:
    """Mean of the share of fakes and the share of reals on the right side: 0.5 for a model that says one thing of all.

    Raises MetricError as `compute_auc` does.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    right = (score_array >= threshold) == (label_array == 1)
    return float(0.5 * (right[label_array == 1].mean() + right[label_array == 0].mean()))


__all__ = ["MetricError", "compute_auc", "compute_auc_by_rank"]


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
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    # Twice the pairs won: an integer, so the result is exact but for the last division.
    twice_won = np.searchsorted(reals, fakes, side="left").sum() + np.searchsorted(reals, fakes, side="right").sum()
    return float(twice_won / (2 * len(fakes) * len(reals)))


def compute_average_precision(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> float:
    """Sum over thresholds of (recall - the recall before) * precision, by scikit-learn. scores and labels (N,).

    Raises MetricError as `compute_auc` does.
    """
    # Imported here, as in metrics/binary.py.
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
    return float(find_eer(ranked.fakes[np.newaxis], ranked.reals[np.newaxis])[0])


def find_eer(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> NDArray[np.float64]:
    """EER (B,) of B ROCs in whole numbers: fakes, reals (B, K + 1) as in `Ranked`, both classes present in each."""
    return np.array([_find_crossing(*roc) for roc in zip(fakes, reals, strict=True)])


def _find_crossing(fakes: NDArray[np.int64], reals: NDArray[np.int64]) -> float:
    all_fakes, all_reals = int(fakes[-1]), int(reals[-1])

    def ahead(place: int) -> int:
        """(FPR - FNR) * fakes * reals: whole, never falling, below 0 at the first point and above 0 at the last."""
        return int(reals[place]) * all_fakes + int(fakes[place]) * all_reals - all_fakes * all_reals

    after = bisect_left(range(len(fakes)), 0, key=ahead)
    share = ahead(after - 1) / (ahead(after - 1) - ahead(after))
    return (int(reals[after - 1]) + share * int(reals[after] - reals[after - 1])) / all_reals


def compute_apcer(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float, sample_ids: Sequence[str] | None = None
) -> float:
    """Over all fakes of scores (N,), as if of one kind. Raises MetricError as `check_samples`, and without a fake."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_class_occurs(label_array, 1, sample_ids=sample_ids)
    return float((score_array[label_array == 1] < threshold).mean())


def compute_bpcer(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float, sample_ids: Sequence[str] | None = None
) -> float:
    """Over all reals of scores (N,). Raises MetricError as `check_samples` does, and without a real."""
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_class_occurs(label_array, 0, sample_ids=sample_ids)
    return float((score_array[label_array == 0] >= threshold).mean())


def compute_apcer_by_kind(
    scores: ArrayLike,
    labels: ArrayLike,
    kinds: Sequence[str],
    *,
    threshold: float,
    sample_ids: Sequence[str] | None = None,
) -> dict[str, float]:
    """APCER of each kind of fake, in the order of their names; its largest value is the set's APCER.

    kinds: the N samples' manipulations; those of reals are not read. Raises MetricError as `compute_apcer` does.
    """
    check_threshold(threshold)
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_class_occurs(label_array, 1, sample_ids=sample_ids)
    if len(kinds) != len(label_array):
        raise MetricError(f"{len(kinds)} kinds of fake for {len(label_array)} samples")
    is_fake = label_array == 1
    names, kind_of = number_names([kind for kind, fake in zip(kinds, is_fake.tolist(), strict=True) if fake])
    apcers = find_apcers(score_array[is_fake] < threshold, kind_of)
    return dict(zip(names, apcers.tolist(), strict=True))


def find_apcers(missed: NDArray[np.bool_], kind_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """APCER of each kind (n,) from whether each fake was called real (F,) and its kind, 0..n-1 (F,), all occurring."""
    return np.bincount(kind_of, missed) / np.bincount(kind_of)


@dataclass(frozen=True)
class TprAtFpr:
    """tpr: share of fakes found; fpr: share of reals called fake there, at most `wanted`; reals: how many there are."""

    tpr: float
    fpr: float
    wanted: float
    reals: int

    @property
    def is_resolved(self) -> bool:
        """Whether there are 1 / wanted reals, so that the wanted FPR allows one of them to be called fake."""
        return 1 / self.reals <= self.wanted

    @property
    def note(self) -> str | None:
        """What to say beside the figure; None where there are reals enough."""
        if self.is_resolved:
            return None
        return (
            f"TPR at {self.wanted:.4g} FPR stands at the limit of resolution: {self.reals} reals, where "
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
    place = int(find_place_at_fpr(ranked.reals[np.newaxis], wanted)[0, 0])
    reals = int(ranked.reals[-1])
    return TprAtFpr(
        tpr=float(ranked.fakes[place] / ranked.fakes[-1]),
        fpr=float(ranked.reals[place] / reals),
        wanted=wanted,
        reals=reals,
    )


def find_place_at_fpr(reals: NDArray[np.int64], wanted: float) -> NDArray[np.int64]:
    """The last point (B, 1) of each of B ROCs whose FPR is at most `wanted`; reals (B, K + 1) as in `Ranked`."""
    # Divided as a reader would: 29 of 100 reals are 0.29, though 0.29 * 100 is less than 29 in floating point.
    all_reals = reals[:, -1:]
    allowed = np.floor(wanted * all_reals) + 1.0
    for _ in range(2):
        allowed -= allowed / all_reals > wanted
    places = np.zeros((len(reals), 1), np.int64)
    for place, row, most in zip(places, reals, allowed[:, 0], strict=True):
        place[0] = np.searchsorted(row, most, side="right") - 1
    return places


def find_tpr_at_fpr(fakes: NDArray[np.int64], reals: NDArray[np.int64], wanted: float) -> NDArray[np.float64]:
    """TPR (B,) of B ROCs in whole numbers: fakes, reals (B, K + 1) as in `Ranked`."""
    place = find_place_at_fpr(reals, wanted)
    return (np.take_along_axis(fakes, place, axis=1) / fakes[:, -1:])[:, 0]
