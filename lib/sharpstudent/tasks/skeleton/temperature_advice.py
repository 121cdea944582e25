"""Advice about a run beyond that of every task. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpstudent.task import Advice

UNDERFIT = 0.7  # accuracy on validation below which softer targets are worth a try
SOFT = 6.0  # the temperature that is advised
LEAST_EPOCHS = 4  # of a run that is judged


def advise_temperature(rows: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """Advise a temperature of 6 for a distilled student that underfits.

    Args:
        rows: Those of the run's `metrics.csv`, one an epoch.

    Returns:
        The advice; nothing for a run without a teacher, and one whose targets are as soft already.
    """
    values = [float(row["val_accuracy"]) for row in rows if row.get("val_accuracy") not in (None, "")]
    warmth = [float(row["kd/temperature"]) for row in rows if row.get("kd/temperature") not in (None, "")]
    if not warmth or max(warmth) >= SOFT or len(values) < LEAST_EPOCHS or max(values) >= UNDERFIT:
        return []
    return [
        Advice(
            "underfit: the student may need softer targets",
            f"best val_accuracy {max(values):.3f} at temperature {warmth[-1]:g}",
            "softer targets tell more of the other classes: --set temperature=6.0",
        )
    ]
