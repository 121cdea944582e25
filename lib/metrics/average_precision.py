"""Average precision of fakes: the area under precision over recall as a staircase, never interpolated.

It depends on the share of fakes: a model that guesses has that share. Legend: N samples; scores rise with fakeness;
labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from numpy.typing import ArrayLike

from lib.metrics.checks import check_both_classes, check_samples


def compute_average_precision(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> float:
    """Sum over thresholds of (recall - the recall before) * precision, by scikit-learn. scores and labels (N,).

    Raises MetricError as `compute_auc` does.
    """
    # Imported here, as in lib/metrics/auc.py.
    from sklearn.metrics import (  # pyright: ignore[reportMissingTypeStubs]
        average_precision_score,  # pyright: ignore[reportUnknownVariableType]
    )

    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return float(cast(float, average_precision_score(label_array, score_array)))
