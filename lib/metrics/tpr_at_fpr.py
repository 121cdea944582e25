"""True positive rate where at most a wanted share of reals is called fake.

Conservative: no interpolation, the highest TPR among the thresholds whose FPR is at most the wanted one. Legend: N
samples, K distinct scores, B resamples; scores rise with fakeness; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import check_both_classes, check_rate, check_samples
from lib.metrics.ranked import rank_scores


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
