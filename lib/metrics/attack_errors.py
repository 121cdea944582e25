"""Error rates as ISO/IEC 30107-3 names them, with a fake as the attack and a real face as the bona fide presentation.

APCER: share of the attacks of one kind that are called real, score < threshold. The standard reports each kind of
attack by itself and the worst of them: a mean would hide a kind that always passes. BPCER: share of the reals that are
called fake, score >= threshold. Legend: N samples; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.checks import MetricError, check_class_occurs, check_samples, check_threshold
from lib.metrics.names import number_names


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
