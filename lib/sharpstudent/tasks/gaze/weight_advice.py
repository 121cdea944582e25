"""Reads from the curves of a distillation whether the teacher's weight is too high or too low.

The rules are those of the distillation guide of Gaze-LLE students: where the supervised loss stagnates or spikes, the
weight is too high; where the divergence does not fall, it is too low.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sharpstudent.task import Advice

LEAST_EPOCHS = 4  # of fewer, no trend is read
FALL = 0.01  # share by which a loss falls at least that learns
SPIKE = 1.2  # times the least value so far; a loss that ends above it has spiked
SWEEP = "a sweep: python compare_models.py ablate CONFIG --arms configs/gaze_weights.json"


def read_curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[Advice]:
    """Find a weight of the teacher's term that is too high or too low.

    Args:
        rows: Those of `metrics.csv`; without the columns `train_heatmap` and `train_kd` there is nothing to find.

    Yields:
        One piece of advice for each rule that applies.
    """
    supervised, taught = _take(rows, "train_heatmap"), _take(rows, "train_kd")
    if len(rows) < LEAST_EPOCHS or not supervised or not taught:
        return
    weight = rows[-1].get("kd/weight")
    now = "" if weight is None else f" (now {float(weight):g})"
    best, last = min(supervised), supervised[-1]
    if best > (1 - FALL) * supervised[0] or last > SPIKE * best:
        what = "stagnates" if best > (1 - FALL) * supervised[0] else "spikes"
        yield Advice(
            f"the weight of the teacher is too high: the supervised loss {what}",
            f"train_heatmap is {supervised[0]:.4g} in the first epoch, {best:.4g} at best and {last:.4g} in the last",
            f"a lower weight of the term kd{now}, or one that rises from 0 in the first epoch; {SWEEP}",
        )
    if min(taught[1:]) > (1 - FALL) * taught[0]:
        yield Advice(
            "the weight of the teacher is too low: its divergence does not fall",
            f"train_kd is {taught[0]:.4g} in the first epoch and {taught[-1]:.4g} in the last",
            f"a higher weight of the term kd{now}; {SWEEP}",
        )


def _take(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    """Take a column; [] where an epoch has no finite value of it."""
    found = [row.get(column) for row in rows]
    values = [float(value) for value in found if value is not None]
    return values if len(values) == len(rows) and all(map(math.isfinite, values)) else []
