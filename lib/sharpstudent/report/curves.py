"""Curves of any task: a training, with a chart for each kind of column of metrics.csv, and reliability diagrams.

They are part of the run's report, and drawn together as a picture beside the logs while the run trains.

Legend: E epochs, M bins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.naming import make_slug
from sharpstudent.report.chart import (
    Chart,
    Key,
    Palette,
    draw_hollow,
    draw_line,
    draw_reference,
    render_sheet,
    set_unit_square,
    style_axes,
)
from sharpstudent.report.logs import MetricsFile
from sharpstudent.report.results import EvaluatedModel, ReliabilityBins, TrainingResult


def draw_curves(path: Path, metrics: Path, *, best_epoch: int | None, metric: str, title: str) -> None:
    """Draw the charts of a training as one PNG.

    Args:
        path: The path of the PNG.
        metrics: The run's metrics.csv.
        best_epoch: The epoch that was selected, None where there is none.
        metric: The column whose value selects the epoch.
        title: The title above the charts.

    Raises:
        ValueError: No column has a value.
        UserError: The disk refuses.
    """
    training = read_training(metrics, best_epoch=best_epoch, metric=metric)
    charts = [] if training is None else build_training(training, with_constants=True)
    if not charts:
        raise ValueError(f"{metrics} has no values to draw")
    best = "" if best_epoch is None else f": epoch {best_epoch} has the best {metric}"
    write_bytes_atomically(path, render_sheet(charts, f"{title}{best}"))


def read_training(path: Path, *, best_epoch: int | None, metric: str) -> TrainingResult | None:
    """Read the columns of numbers of metrics.csv.

    Args:
        path: The path of the file.
        best_epoch: The epoch that was selected, None where there is none.
        metric: The column whose value selects the epoch.

    Returns:
        The columns, or None where there is no file or no epoch in it.
    """
    rows = MetricsFile(path).read() if path.is_file() else []
    if not rows:
        return None
    names = [name for name in rows[0] if not any(isinstance(row[name], str) for row in rows)]
    columns = {name: tuple(_to_number(row[name]) for row in rows) for name in names}
    return TrainingResult(columns=columns, best_epoch=best_epoch, metric=metric)


def _to_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


Column = tuple[float | None, ...]

_KINDS = (  # title, name of the y axis, which columns, drawn as steps
    ("Validation AUC and AP", "area", r"val_.*(auc|ap)(_|$).*", False),
    ("Training losses", "loss", r"(train_.*loss.*|loss|train_(?!.*(auc|accuracy|eer|norm|agreement)).*)", False),
    ("Weights of the loss terms", "weight", r"(alpha|.+/weight)", True),
    ("Temperature", "temperature", r"(temperature|.+/temperature)", True),
    (
        "Validation rates and losses",
        "rate or loss",
        r"val_.*(eer|accuracy|brier|ece|log_loss|loss|apcer|bpcer).*",
        False,
    ),
    ("Other metrics of validation", "value", r"val_.*", False),
    ("Agreement with the teacher", "share", r".*agreement.*", False),
    ("Learning rate", "learning rate", r"(lr|learning_rate)", False),
    ("Radius of sharpness", "rho", r"rho", True),
    ("Norm of the gradient", "norm", r".*grad_norm.*", False),
)
_WORDS = {
    "val": "validation",
    "train": "training",
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "kd": "distillation",
    "lr": "learning rate",
    "ece": "ECE",
    "tpr": "TPR",
    "fpr": "FPR",
    "ema": "(averaged weights)",
}


def _is_constant(column: Column) -> bool:
    """Whether a column has one value in all of two epochs or more: a chart of it would be a line without content."""
    values = [value for value in column if value is not None]
    return len(values) > 1 and min(values) == max(values)


def describe_constants(training: TrainingResult) -> str:
    """Say which columns `build_training` leaves out; "" where it draws all of them."""
    drawn = {name for chart in build_training(training) for name in chart.columns}
    every = {name for chart in build_training(training, with_constants=True) for name in chart.columns}
    same = [
        f"{name_column(name)} {next(value for value in training.columns[name] if value is not None):.6g}"
        for name in training.columns
        if name in every - drawn
    ]
    return f"The same in every epoch, and not drawn: {'; '.join(same)}." if same else ""


def build_training(training: TrainingResult, *, with_constants: bool = False) -> list[Chart]:
    """Build the charts of the columns that are there; the selected epoch is marked.

    Args:
        training: The columns of a run.
        with_constants: Whether a chart is built where each of its columns has the same value in every epoch.

    Returns:
        The charts.
    """
    filled = {name: column for name, column in training.columns.items() if any(value is not None for value in column)}
    length = max((len(column) for column in filled.values()), default=0)
    epochs = [float(epoch or 0) for epoch in filled.get("epoch") or range(1, length + 1)]
    charts: list[Chart] = []
    taken = {"epoch"}
    for title, unit, pattern, steps in _KINDS:
        chosen = [name for name in filled if name not in taken and re.fullmatch(pattern, name)]
        taken.update(chosen)
        if chosen and epochs and (with_constants or not all(_is_constant(filled[name]) for name in chosen)):
            charts.append(_build(title, unit, {name: filled[name] for name in chosen}, epochs, training, steps))
    return charts


def _build(
    title: str, unit: str, columns: dict[str, Column], epochs: Sequence[float], training: TrainingResult, steps: bool
) -> Chart:
    best = training.best_epoch

    def draw(figure: Any, palette: Palette) -> None:
        """Draw a line for each column, with the selected epoch marked.

        Args:
            figure: The figure of matplotlib to draw on.
            palette: The colours to draw with.
        """
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        if best is not None:
            axes.axvline(best, color=palette.text, alpha=0.5, linewidth=0.9, linestyle=(0, (2, 2)), clip_on=False)
        for number, column in enumerate(columns.values()):
            points = [(e, v) for e, v in zip(epochs, column, strict=True) if v is not None]
            x, y = [e for e, _ in points], [v for _, v in points]
            draw_line(axes, palette, number, x, y, every=max(1, len(x) // 12), steps=steps)
        style_axes(axes, palette, x="epoch", y=unit)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.ticklabel_format(axis="y", useOffset=False)
        spread = [value for column in columns.values() for value in column if value is not None]
        if min(spread) == max(spread) > 0:
            axes.set_ylim(0, 2 * max(spread))
        if unit in ("learning rate", "rho"):
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if unit in ("weight", "share"):
            axes.set_ylim(0, 1.03 * max(1.0, *spread))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)

    last = "; ".join(f"{name_column(name)} {_describe_end(column)}" for name, column in columns.items())
    return Chart(
        name=f"training-{'-'.join(title.lower().split())}",
        title=title,
        alt=f"{title} over {len(epochs)} epochs: {last}.",
        hint="",
        draw=draw,
        columns=("epoch", *columns),
        rows=tuple(zip(epochs, *columns.values(), strict=True)),
        keys=tuple(Key(number, name_column(name)) for number, name in enumerate(columns)),
        height=2.5,
    )


def name_column(column: str) -> str:
    """Name a column in words: `val_log_loss` gives "validation log loss", `hard/weight` "alpha (hard weight)"."""
    words = " ".join(_WORDS.get(part, part) for part in re.split(r"[_/]", column))
    return f"alpha ({words})" if column == "hard/weight" else words


def _describe_end(column: Column) -> str:
    values = [value for value in column if value is not None]
    return f"from {values[0]:.4g} to {values[-1]:.4g}"


SMALL_BIN = 25  # samples; with 25, the 95 % interval of a share reaches up to .2 to either side
HOLLOW = f"Hollow: fewer than {SMALL_BIN} samples, whose share is uncertain by .2 or more."


def find_small(bins: ReliabilityBins) -> NDArray[np.bool_]:
    """Find which of the bins that are not empty have few samples."""
    counts = np.array(bins.counts)
    return counts[counts > 0] < SMALL_BIN


def draw_reliability(axes: Any, palette: Palette, number: int, bins: ReliabilityBins) -> None:
    """Draw the diagram of one series; bins of few samples are hollow, and empty ones are left out.

    Args:
        axes: The axes of matplotlib to draw on.
        palette: The colours to draw with.
        number: The number of the series, from 0.
        bins: The diagram.
    """
    filled, small = np.array(bins.counts) > 0, find_small(bins)
    x, y = (np.array(column, np.float64)[filled] for column in (bins.said, bins.true))
    draw_line(axes, palette, number, x, y, every=np.flatnonzero(~small).tolist())
    draw_hollow(axes, palette, number, x[small], y[small])


def build_reliability(models: Sequence[EvaluatedModel]) -> list[Chart]:
    """Build a chart for each set, of the models that have a diagram of it."""
    parts = dict.fromkeys(part for model in models for part in model.reliability)
    return [_build_reliability(models, part) for part in parts]


def _build_reliability(models: Sequence[EvaluatedModel], part: str) -> Chart:
    drawn = [(number, one, one.reliability[part]) for number, one in enumerate(models) if part in one.reliability]
    calibrated = {"temperature" in (one.calibration or {}) for _, one, _ in drawn}

    def draw(figure: Any, palette: Palette) -> None:
        """Draw the diagram of each model.

        Args:
            figure: The figure of matplotlib to draw on.
            palette: The colours to draw with.
        """
        axes = figure.add_subplot()
        draw_reference(axes, palette, (0, 1), (0, 1))
        for number, _, bins in drawn:
            draw_reliability(axes, palette, number, bins)
        set_unit_square(axes)
        name = "calibrated confidence" if calibrated == {True} else "confidence"
        style_axes(axes, palette, x=name, y="share that is right")

    hints = [
        "On the dashed line, 80 % of predictions with 80 % confidence are right. Below it, confidence is too high."
    ]
    hints += ["Confidence is that after the stored temperature."] if calibrated == {True} else []
    hints += ["It is that after the stored temperature where there is one."] if len(calibrated) > 1 else []
    hints += [HOLLOW] if any(find_small(bins).any() for *_, bins in drawn) else []
    name = part.removeprefix("@")
    return Chart(
        name=f"reliability-{make_slug(name) if name else 'all'}",
        title="Reliability",
        alt=f"Reliability of {', '.join(one.name for _, one, _ in drawn)}{f' on {name}' if name else ''}.",
        hint=" ".join(hints),
        draw=draw,
        columns=("model", "bin_low", "bin_high", "count", "said", "true"),
        rows=tuple(
            (one.name, *row)
            for _, one, bins in drawn
            for row in zip(bins.edges[:-1], bins.edges[1:], bins.counts, bins.said, bins.true, strict=True)
        ),
        keys=tuple(Key(number, one.name) for number, one, _ in drawn),
        height=3.75,
        subject=name,
    )
