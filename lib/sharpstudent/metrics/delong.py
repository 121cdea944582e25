"""DeLong's test of two AUCs on the same samples (DeLong, DeLong & Clarke-Pearson 1988), by midranks (Sun & Xu 2014).

It takes samples for independent: right for one score a person, too sure for many frames of one video. There
`sharpstudent.metrics.bootstrap` draws whole people. Legend: m fakes, n reals, N = m + n samples; labels real 0, fake 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.checks import MetricError, check_both_classes, check_samples


@dataclass(frozen=True)
class DeLongTest:
    """difference: auc_a - auc_b, with its standard error; z: their quotient; p_value: two-sided, of no difference."""

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float


def compute_delong_test(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> DeLongTest:
    """Of two models' scores (N,) each, labels (N,). Two models that rank all pairs alike do not differ: p-value 1.

    Raises MetricError as `compute_auc` does, for fewer than two fakes or reals, and where the AUCs differ but their
    difference has no variance (as of a perfect model and one that says the same of all).
    """
    array_a, label_array = check_samples(scores_a, labels, sample_ids=sample_ids)
    array_b, _ = check_samples(scores_b, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    fakes, reals = int(label_array.sum()), int((1 - label_array).sum())
    if min(fakes, reals) < 2:
        raise MetricError(f"DeLong's test needs two fakes and two reals, got {fakes} and {reals}")
    of_a, of_b = find_structural_components(array_a, label_array), find_structural_components(array_b, label_array)
    # The variance of a difference of means: of each fake's and of each real's own difference.
    variance = sum(float(np.var(a - b, ddof=1)) / len(a) for a, b in zip(of_a, of_b, strict=True))
    auc_a, auc_b = float(of_a[0].mean()), float(of_b[0].mean())
    return _build_test(auc_a, auc_b, math.sqrt(variance))


def find_structural_components(
    scores: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """V10 (m,): the share of reals that each fake beats, ties one half; V01 (n,): the share of fakes that beat each
    real. The mean of either is the AUC.

    A midrank among all less the midrank among one's own class is the number of the other class below, ties one half
    (Sun & Xu 2014).
    """
    # Imported here, as in metrics/binary.py.
    from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    def rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return cast(NDArray[np.float64], rankdata(values))

    is_fake = labels == 1
    among_all, fakes, reals = rank(scores), scores[is_fake], scores[~is_fake]
    beaten = (among_all[is_fake] - rank(fakes)) / len(reals)
    lost_to = 1.0 - (among_all[~is_fake] - rank(reals)) / len(fakes)
    return beaten, lost_to


def _build_test(auc_a: float, auc_b: float, standard_error: float) -> DeLongTest:
    difference = auc_a - auc_b
    if standard_error > 0.0:
        z = difference / standard_error
        return DeLongTest(auc_a, auc_b, difference, standard_error, z, math.erfc(abs(z) / math.sqrt(2.0)))
    if difference == 0.0:
        return DeLongTest(auc_a, auc_b, 0.0, 0.0, 0.0, 1.0)
    raise MetricError(
        f"DeLong's test has no answer: AUCs of {auc_a:.4f} and {auc_b:.4f} whose difference has no variance (as of a "
        "perfect model and one that says the same of all)"
    )
