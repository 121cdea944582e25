"""A run's metrics.csv as part of its results."""

from __future__ import annotations

import math
from pathlib import Path

from sharpstudent.report.logs import MetricsFile
from sharpstudent.report.results import TrainingResult


def read_training(path: Path, *, best_epoch: int | None, metric: str) -> TrainingResult | None:
    """metrics.csv, its columns of numbers; None where there is no such file, or no epoch in it."""
    rows = MetricsFile(path).read() if path.is_file() else []
    if not rows:
        return None
    names = [name for name in rows[0] if not any(isinstance(row[name], str) for row in rows)]
    columns = {name: tuple(_to_number(row[name]) for row in rows) for name in names}
    return TrainingResult(columns=columns, best_epoch=best_epoch, metric=metric)


def _to_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
