"""Tables of scores for tests of intervals, and intervals of plain functions of scores and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sharpstudent.core.types import Table
from sharpstudent.metrics.binary import compute_average_precision, compute_eer
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import Metric, make_binary_metric, repeat_rows
from sharpstudent.tasks.deepfake.report.results import Counts

Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], float]


def read_score(table: Table) -> NDArray[np.float64]:
    return table["score"]


def compute_auc_by_rank(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mann-Whitney U over its largest value."""
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    twice_won = sum(np.searchsorted(negatives, positives, side=side).sum() for side in ("left", "right"))
    return float(twice_won / (2 * len(positives) * len(negatives)))


AUC = make_binary_metric("auc_by_rank", read_score)
KINDS = {compute_average_precision: "average_precision", compute_eer: "eer"}


def make_table(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str]) -> Table:
    scores = np.asarray(scores, np.float64)
    names = np.array([f"sample {i:06d}" for i in range(len(scores))])
    return {"id": names, "group": np.array(groups), "label": np.asarray(labels), "score": scores}


def make_metric(statistic: Statistic) -> Metric:
    """With its fast form where it has one; any other is called on the rows written out as often as they were drawn."""
    if statistic is compute_auc_by_rank:
        return AUC
    if statistic in KINDS:
        return make_binary_metric(KINDS[statistic], read_score)  # type: ignore[arg-type]

    def compute(table: Table, counts: Counts) -> float:
        drawn = repeat_rows(table, counts)
        return statistic(drawn["score"], drawn["label"])

    return Metric(compute, strata="label", bounds=(0.0, 1.0))


def make_tables(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str]) -> Table | list[Table]:
    """Of scores (N,) of one model, or (S, N) of one at several seeds."""
    rows = np.asarray(scores, np.float64)
    return make_table(rows, labels, groups) if rows.ndim == 1 else [make_table(row, labels, groups) for row in rows]


def find_interval(
    statistic: Statistic, scores: ArrayLike, labels: ArrayLike, groups: Sequence[str], **arguments: Any
) -> Estimate:
    return compute_interval(
        make_metric(statistic), make_tables(scores, labels, groups), **{"rounds": 2000, **arguments}
    )


def find_difference(
    statistic: Statistic, a: ArrayLike, b: ArrayLike, labels: ArrayLike, groups: Sequence[str], **arguments: Any
) -> Estimate:
    of_a, of_b = (make_tables(scores, labels, groups) for scores in (a, b))
    return compute_paired(make_metric(statistic), of_a, of_b, **arguments)
