"""What a checkpoint's own description says of its training and its selection, for reports and exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.engine.task import PICTURE_AUC

TRAINED = ("stage", "run", "seed", "epoch", "task", "input", "selection_metric")


def read_trained(about: Mapping[str, Any]) -> dict[str, Any]:
    """How it was trained."""
    return {name: about[name] for name in TRAINED if name in about}


def read_validation(about: Mapping[str, Any]) -> dict[str, float]:
    """Its figures on the validation data of its run, those of averaged weights with `_ema`."""
    return {
        name: float(value)
        for name, value in about.items()
        if name.startswith("val_") and isinstance(value, int | float) and not isinstance(value, bool)
    }


def read_selection_metric(about: Mapping[str, Any]) -> str:
    """What ranked the epochs of its run; versions that do not say knew one metric only."""
    return str(about.get("selection_metric", PICTURE_AUC))


def read_selection(about: Mapping[str, Any]) -> dict[str, object]:
    """Epoch, value and metric, as an export of the best model says them: of the student or of its average, whichever
    was saved.
    """
    metric = read_selection_metric(about)
    value = about.get(f"{metric}_ema" if about.get("selected") == "ema" else metric)
    return {"epoch": about.get("epoch"), "value": value, "metric": metric}
