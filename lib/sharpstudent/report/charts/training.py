"""Training curves by epoch: losses, validation, agreement, the terms' weights (alpha), temperature, learning rate.

A chart for each kind of column that the run has. Legend: E epochs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sharpstudent.report.chart import Chart, Ink, Key, draw_line, style_axes
from sharpstudent.report.results import TrainingResult

Column = tuple[float | None, ...]

_KINDS = (  # title, name of the y axis, which columns, drawn as steps
    ("Validation AUC and AP", "area", r"val_.*(auc|ap)(_|$).*", False),
    ("Training losses", "loss", r"(train_.*loss.*|loss|train_(?!.*(auc|accuracy|eer|norm|agreement)).*)", False),
    ("Alpha and the other weights", "weight", r"(alpha|.+/weight)", True),
    ("Temperature", "temperature", r"(temperature|.+/temperature)", True),
    ("Validation errors", "rate or loss", r"val_.*(eer|accuracy|brier|ece|log_loss|loss|apcer|bpcer).*", False),
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
    """`val_video_auc` -> "validation video AUC", `hard/weight` -> "alpha (hard weight)"."""
    words = " ".join(_WORDS.get(part, part) for part in re.split(r"[_/]", column))
    return f"alpha ({words})" if column == "hard/weight" else words


def _make_steps(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """A value holds for its whole epoch, from half before it to half after."""
    return [at for e in x for at in (e - 0.5, e + 0.5)], [value for v in y for value in (v, v)]


def _describe_end(column: Column) -> str:
    values = [value for value in column if value is not None]
    return f"from {values[0]:.4g} to {values[-1]:.4g}"
