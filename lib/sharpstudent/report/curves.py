"""Training curves of one run: a picture beside its logs while it trains, and charts for its report.

The picture's panels, each only if the rows have it: losses (columns that contain `loss`, and the terms, `train_NAME`),
the validation metrics that readers follow, learning rate (`lr`), and the weight of the hard labels (`alpha`, or
`hard/weight` beside the weight of another term). The report has a chart for each kind of column. Legend: E epochs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpstudent.core.io import atomic_path
from sharpstudent.core.types import Direction
from sharpstudent.report.chart import Chart, Ink, Key, draw_line, style_axes
from sharpstudent.report.logs import MetricsFile
from sharpstudent.report.results import TrainingResult

COLOURS = ("#1565c0", "#ef6c00", "#2e7d32", "#8e24aa", "#6d4c41", "#00838f")


@dataclass(frozen=True)
class ValidationPanel:
    """The panel of validation metrics. pattern: regular expression of its columns; marked: the column whose best epoch
    is marked; direction: which of its values are better.
    """

    title: str
    pattern: str
    marked: str
    direction: Direction = "higher"


def draw_curves(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    validation: ValidationPanel,
    title: str = "training curves",
    selected: int | None = None,
) -> None:
    """Draw a PNG; values that are None or not finite leave a gap.

    Args:
        path: of the PNG.
        rows: of metrics.csv, at least one, else ValueError.
        validation: which validation metrics are drawn.
        title: above the panels.
        selected: the epoch to mark, where it is not that of the best value of the marked column.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("there are no rows to draw")
    panels = _choose_panels(list(rows[0]), validation)
    columns = len(panels) if len(panels) in (1, 3) else 2
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.3 * lines + 0.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    epochs = [float(row["epoch"]) for row in rows]
    for number, (name, keys) in enumerate(panels):
        axes: Any = figure.add_subplot(lines, columns, number + 1)
        series = {key: [_to_float(row.get(key)) for row in rows] for key in keys}
        _draw_panel(axes, name, epochs, series)
        if validation.marked in series:
            _mark_best(axes, epochs, series[validation.marked], selected, validation.direction)
        if len(series) > 1 or validation.marked in series:
            axes.legend(fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _choose_panels(columns: Sequence[str], validation: ValidationPanel) -> list[tuple[str, list[str]]]:
    panels = [
        ("loss", [name for name in columns if _is_loss(name)]),
        (validation.title, [name for name in columns if re.fullmatch(validation.pattern, name)]),
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


def _draw_panel(axes: Any, name: str, epochs: list[float], series: Mapping[str, list[float]]) -> None:
    marker = "o" if len(epochs) <= 40 else None
    stairs = "steps-mid" if name.startswith("alpha") else "default"
    for number, (key, values) in enumerate(series.items()):
        colour, label = COLOURS[number % len(COLOURS)], _to_label(key)
        axes.plot(
            epochs, values, color=colour, marker=marker, markersize=3, linewidth=1.4, drawstyle=stairs, label=label
        )
    if name.startswith("alpha"):
        axes.set_ylim(-0.03, 1.03)
    if name == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        largest = max((value for values in series.values() for value in values if math.isfinite(value)), default=0)
        axes.set_ylim(0, 1.08 * largest or 1)
    _style_panel(axes, name, epochs)


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


def _mark_best(axes: Any, epochs: list[float], values: list[float], selected: int | None, direction: Direction) -> None:
    sign = 1.0 if direction == "higher" else -1.0
    finite = [
        (sign * value, -epoch, value)
        for epoch, value in zip(epochs, values, strict=True)
        if math.isfinite(value) and selected in (None, epoch)
    ]
    if finite:
        _, epoch, value = max(finite)
        word = "best" if selected is None else "selected,"
        axes.plot(
            [-epoch], [value], "*", color="#c62828", markersize=11, label=f"{word} {value:.4f}, epoch {-epoch:.0f}"
        )


def _to_label(key: str) -> str:
    return key.replace("_", " ").replace("/", " ").replace("auc", "AUC")


def _to_float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


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


Column = tuple[float | None, ...]

_KINDS = (  # title, name of the y axis, which columns, drawn as steps
    ("Validation AUC and AP", "area", r"val_.*(auc|ap)(_|$).*", False),
    ("Training losses", "loss", r"(train_.*loss.*|loss|train_(?!.*(auc|accuracy|eer|norm|agreement)).*)", False),
    ("Alpha and the other weights", "weight", r"(alpha|.+/weight)", True),
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


def build_training(training: TrainingResult) -> list[Chart]:
    """The charts of the columns that are there, with the epoch that was selected marked."""
    filled = {name: column for name, column in training.columns.items() if any(value is not None for value in column)}
    epochs = _read_epochs(filled)
    charts: list[Chart] = []
    taken = {"epoch"}
    for title, unit, pattern, steps in _KINDS:
        chosen = [name for name in filled if name not in taken and re.fullmatch(pattern, name)]
        taken.update(chosen)
        if chosen and epochs:
            charts.append(_build(title, unit, {name: filled[name] for name in chosen}, epochs, training, steps))
    return charts


def _read_epochs(columns: dict[str, Column]) -> list[float]:
    """(E,): the column `epoch`, else 1, 2, ..."""
    length = max((len(column) for column in columns.values()), default=0)
    given = columns.get("epoch", ())
    return [given[i] if i < len(given) and given[i] is not None else i + 1.0 for i in range(length)]  # type: ignore[misc]


def _build(
    title: str, unit: str, columns: dict[str, Column], epochs: Sequence[float], training: TrainingResult, steps: bool
) -> Chart:
    best = training.best_epoch

    def draw(figure: Any, ink: Ink) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        if best is not None:
            axes.axvline(best, color=ink.text, alpha=0.5, linewidth=0.9, linestyle=(0, (2, 2)), clip_on=False)
        for number, column in enumerate(columns.values()):
            points = [(e, v) for e, v in zip(epochs, column, strict=False) if v is not None]
            x, y = [e for e, _ in points], [v for _, v in points]
            every = max(1, len(x) // 12)
            if steps and len(x) > 1:
                x, y = _make_steps(x, y)
                every = max(2, 2 * (len(x) // 24))
            draw_line(axes, ink, number, x, y, every=every)
        style_axes(axes, ink, x="epoch", y=unit)
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
        rows=tuple(
            (epoch, *(column[i] if i < len(column) else None for column in columns.values()))
            for i, epoch in enumerate(epochs)
        ),
        keys=tuple(Key(number, name_column(name)) for number, name in enumerate(columns)),
        height=2.5,
    )


def name_column(column: str) -> str:
    """`val_log_loss` -> "validation log loss", `hard/weight` -> "alpha (hard weight)"."""
    words = " ".join(_WORDS.get(part, part) for part in re.split(r"[_/]", column))
    return f"alpha ({words})" if column == "hard/weight" else words


def _make_steps(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """A value holds for its whole epoch, from half before it to half after."""
    return [at for e in x for at in (e - 0.5, e + 0.5)], [value for v in y for value in (v, v)]


def _describe_end(column: Column) -> str:
    values = [value for value in column if value is not None]
    return f"from {values[0]:.4g} to {values[-1]:.4g}"
