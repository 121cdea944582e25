"""DeLong's test of two AUCs on the same samples (DeLong, DeLong & Clarke-Pearson 1988), by midranks (Sun & Xu 2014).

It takes samples for independent: right for one score a group, too sure for many samples of one group. There
`sharpstudent.metrics.bootstrap` draws whole groups. Legend: m positives, n negatives, N = m + n samples; labels: the
negatives 0, the positives 1.
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
    """value_a, value_b: the AUCs; difference: value_a - value_b, with its standard error; z: their quotient; p_value:
    two-sided, of no difference.
    """

    value_a: float
    value_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float


def compute_delong_test(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> DeLongTest:
    """Of two models' scores (N,) each, labels (N,). Two models that rank all pairs alike do not differ: p-value 1.

    Raises MetricError as `compute_auc` does, for fewer than two positives or negatives, and where the AUCs differ but
    their difference has no variance (as of a perfect model and one that says the same of all).
    """
    array_a, label_array = check_samples(scores_a, labels, sample_ids=sample_ids)
    array_b, _ = check_samples(scores_b, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    positives, negatives = int(label_array.sum()), int((1 - label_array).sum())
    if min(positives, negatives) < 2:
        raise MetricError(f"DeLong's test needs two positives and two negatives, got {positives} and {negatives}")
    of_a, of_b = find_structural_components(array_a, label_array), find_structural_components(array_b, label_array)
    # The variance of a difference of means: of each positive's and of each negative's own difference.
    variance = sum(float(np.var(a - b, ddof=1)) / len(a) for a, b in zip(of_a, of_b, strict=True))
    value_a, value_b = float(of_a[0].mean()), float(of_b[0].mean())
    return _build_test(value_a, value_b, math.sqrt(variance))


def find_structural_components(
    scores: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """V10 (m,): the share of negatives that each positive beats, ties one half; V01 (n,): the share of positives that
    beat each negative. The mean of either is the AUC.

    A midrank among all less the midrank among one's own class is the number of the other class below, ties one half
    (Sun & Xu 2014).
    """
    # Imported here, as in `compute_auc`.
    from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    def rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return cast(NDArray[np.float64], rankdata(values))

    is_positive = labels == 1
    among_all, positives, negatives = rank(scores), scores[is_positive], scores[~is_positive]
    beaten = (among_all[is_positive] - rank(positives)) / len(negatives)
    lost_to = 1.0 - (among_all[~is_positive] - rank(negatives)) / len(positives)
    return beaten, lost_to


def _build_test(value_a: float, value_b: float, standard_error: float) -> DeLongTest:
    difference = value_a - value_b
    if standard_error > 0.0:
        z = difference / standard_error
        return DeLongTest(value_a, value_b, difference, standard_error, z, math.erfc(abs(z) / math.sqrt(2.0)))
    if difference == 0.0:
        return DeLongTest(value_a, value_b, 0.0, 0.0, 0.0, 1.0)
    raise MetricError(
        f"DeLong's test has no answer: AUCs of {value_a:.4f} and {value_b:.4f} whose difference has no variance (as of "
        "a perfect model and one that says the same of all)"
    )
