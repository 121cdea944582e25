"""Training curves of one run as one figure, from the rows of its metrics file.

Panels, each only if the rows have it: losses (columns that contain `loss`, and the terms, `train_NAME`), validation AUC
(columns that end in `auc`; on `val_auc` its best epoch is marked, or the one that another metric selected), learning
rate (`lr`), and the weight of the hard labels (`alpha`, or `hard/weight` beside the weight of another term).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.io import atomic_path

COLOURS = ("#1565c0", "#ef6c00", "#2e7d32", "#8e24aa", "#6d4c41", "#00838f")


def draw_curves(
    path: Path, rows: Sequence[Mapping[str, Any]], *, title: str = "training curves", selected: int | None = None
) -> None:
    """Draw a PNG; values that are None or not finite leave a gap. selected: the epoch to mark, where it is not that of
    the highest `val_auc`. ValueError when there are no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("there are no rows to draw")
    panels = _choose_panels(list(rows[0]))
    columns = len(panels) if len(panels) in (1, 3) else 2
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.3 * lines + 0.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    epochs = [float(row["epoch"]) for row in rows]
    for number, (name, keys) in enumerate(panels):
        axes: Any = figure.add_subplot(lines, columns, number + 1)
        _draw_panel(axes, name, epochs, {key: [_to_float(row.get(key)) for row in rows] for key in keys}, selected)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _choose_panels(columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    panels = [
        ("loss", [name for name in columns if _is_loss(name)]),
        ("validation AUC", [name for name in columns if name.endswith(("auc", "auc_ema"))]),
        ("agreement with the teacher", [name for name in columns if name == "train_agreement"]),
        ("learning rate", [name for name in columns if name in ("lr", "learning_rate")]),
        ("alpha (weight of the hard labels)", _find_alpha(columns)),
    ]
    return [(title, keys) for title, keys in panels if keys]


def _is_loss(column: str) -> bool:
    measures = ("auc", "accuracy", "eer", "norm", "agreement")
    return "loss" in column or (column.startswith("train_") and not column.endswith(measures))


def _find_alpha(columns: Sequence[str]) -> list[str]:
    weights = [name for name in columns if name.endswith("/weight")]
    return [name for name in columns if name == "alpha" or (name == "hard/weight" and len(weights) > 1)]


def _draw_panel(
    axes: Any, name: str, epochs: list[float], series: Mapping[str, list[float]], selected: int | None
) -> None:
    marker = "o" if len(epochs) <= 40 else None
    stairs = "steps-mid" if name.startswith("alpha") else "default"
    for number, (key, values) in enumerate(series.items()):
        colour, label = COLOURS[number % len(COLOURS)], _to_label(key)
        axes.plot(
            epochs, values, color=colour, marker=marker, markersize=3, linewidth=1.4, drawstyle=stairs, label=label
        )
    if "val_auc" in series:
        _mark_best(axes, epochs, series["val_auc"], selected)
    if name.startswith("alpha"):
        axes.set_ylim(-0.03, 1.03)
    if name == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        largest = max((value for values in series.values() for value in values if math.isfinite(value)), default=0)
        axes.set_ylim(0, 1.08 * largest or 1)
    _style_panel(axes, name, epochs)
    if len(series) > 1 or "val_auc" in series:
        axes.legend(fontsize=8, frameon=False)


def _style_panel(axes: Any, name: str, epochs: list[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, fontsize=10)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark_best(axes: Any, epochs: list[float], values: list[float], selected: int | None) -> None:
    finite = [
        (value, -epoch)
        for epoch, value in zip(epochs, values, strict=True)
        if math.isfinite(value) and selected in (None, epoch)
    ]
    if finite:
        value, epoch = max(finite)
        word = "best" if selected is None else "selected,"
        axes.plot(
            [-epoch], [value], "*", color="#c62828", markersize=11, label=f"{word} {value:.4f}, epoch {-epoch:.0f}"
        )


def _to_label(key: str) -> str:
    return key.replace("_", " ").replace("/", " ").replace("auc", "AUC")


def _to_float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
