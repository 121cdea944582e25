"""What the scores of several models look like, on the samples of one level and one part of the set: ROC,
precision-recall and DET curves, whether probabilities are kept (reliability), and how the classes lie apart.

Legend: P points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.metrics.curves import find_deviates
from sharpstudent.report.chart import (
    SMALL_LETTERS,
    Chart,
    Ink,
    Key,
    draw_line,
    draw_reference,
    set_unit_square,
    style_axes,
)
from sharpstudent.report.text import shorten_names
from sharpstudent.tasks.deepfake.report.results import CurvePoints, Drawing

ROW_HEIGHT = 0.95  # inches of one model's histogram
MARKERS_APART = 0.22  # of the chart's diagonal
LEAST_RATE = 5e-4  # DET axes begin no further down
DET_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)

Drawn = Sequence[tuple[int, str, Drawing]]  # number of the series, name of the model, its drawing
Values = Mapping[str, str]  # name of a model -> the figure said beside it


def build_roc(models: Drawn, values: Values, *, place: str, stem: str) -> Chart:
    """place: `frames of all data`; stem: what tells this chart's file from those of other places."""

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        draw_reference(axes, ink, [0, 1], [0, 1])
        for number, _, drawing in models:
            draw_line(axes, ink, number, drawing.roc.x, drawing.roc.y, every=(0.05 * number, MARKERS_APART))
        set_unit_square(axes)
        style_axes(axes, ink, x="reals called fake (FPR)", y="fakes found (TPR)")

    hint = "Up and to the left is better; the dashed diagonal is guessing."
    return _build("ROC", "AUC", "roc", draw, hint, models, values, place, stem)


def build_pr(models: Drawn, values: Values, *, place: str, stem: str) -> Chart:
    """As `build_roc`, of precision and recall."""

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        for number, _, drawing in models:
            draw_line(axes, ink, number, drawing.pr.x, drawing.pr.y, every=(0.05 * number, MARKERS_APART))
        set_unit_square(axes)
        style_axes(axes, ink, x="fakes found (recall)", y="right when it says fake (precision)")

    hint = "Up and to the right is better. It depends on how many samples are fake."
    return _build("Precision and recall", "AP", "pr", draw, hint, models, values, place, stem)


def build_det(models: Drawn, values: Values, *, place: str, stem: str) -> Chart:
    """As `build_roc`, on axes of normal deviates (Martin et al. 1997)."""
    curves = [(number, *_find_deviates(drawing)) for number, _, drawing in models]
    low = min(float(min(x.min(), y.min())) for _, x, y in curves)
    low = max(low, float(find_deviates(np.array([LEAST_RATE]), 10**9)[0])) - 0.05
    worst = max(float(np.maximum(x, y).min()) for _, x, y in curves)  # about the EER
    high = float(find_deviates(np.array([0.6 if worst < -0.4 else 0.95]), 10**9)[0])

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        draw_reference(axes, ink, [low, high], [low, high])
        for number, x, y in curves:
            draw_line(axes, ink, number, *_cut(x, y, low, high), every=(0.05 * number, MARKERS_APART))
        deviates = find_deviates(np.array(DET_TICKS), 10**9)
        shown = [(d, f"{100 * rate:g}") for d, rate in zip(deviates, DET_TICKS, strict=True) if low <= d <= high]
        for set_limits, set_ticks in ((axes.set_xlim, axes.set_xticks), (axes.set_ylim, axes.set_yticks)):
            set_limits(low, high)
            set_ticks([d for d, _ in shown], [name for _, name in shown])
        axes.set_aspect("equal")
        style_axes(axes, ink, x="reals called fake [%]", y="fakes missed [%]")

    hint = "Down and to the left is better; errors are the same on the dashed line (EER). Axes of normal deviates."
    return _build("DET", "EER", "det", draw, hint, models, values, place, stem)


def _find_deviates(drawing: Drawing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P,) and (P,); rates of 0 and 1 as half a sample, which the histogram counts."""
    reals, fakes = max(1, sum(drawing.histogram.real)), max(1, sum(drawing.histogram.fake))
    return find_deviates(np.array(drawing.det.x), reals), find_deviates(np.array(drawing.det.y), fakes)


def _cut(
    x: NDArray[np.float64], y: NDArray[np.float64], low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of a curve, x rising and y falling, that lies in low..high of both; its ends where it crosses them."""
    x, y = np.maximum(x, low), np.maximum(y, low)
    inside = np.flatnonzero((x <= high) & (y <= high))
    if len(inside) == 0:
        return np.empty(0), np.empty(0)
    first, last = int(inside[0]), int(inside[-1])
    points = [(float(a), float(b)) for a, b in zip(x[first : last + 1], y[first : last + 1], strict=True)]
    if first > 0:
        share = (high - y[first]) / (y[first - 1] - y[first])
        points.insert(0, (float(x[first] + share * (x[first - 1] - x[first])), high))
    if last + 1 < len(x):
        share = (high - x[last]) / (x[last + 1] - x[last])
        points.append((high, float(y[last] + share * (y[last + 1] - y[last]))))
    return np.array([a for a, _ in points]), np.array([b for _, b in points])


def _build(
    title: str,
    figure: str,
    kind: str,
    draw: Callable[[Any, Ink], None],
    hint: str,
    models: Drawn,
    values: Values,
    place: str,
    stem: str,
) -> Chart:
    said = ", ".join(f"{name} {values[name]}" for _, name, _ in models if name in values)
    curves: list[tuple[str, CurvePoints]] = [(name, getattr(drawing, kind)) for _, name, drawing in models]
    _, example = curves[0]
    return Chart(
        name=f"{kind}-{stem}",
        title=title,
        alt=f"{title} curves, {place}. {figure}: {said or 'not known'}.",
        hint=hint,
        draw=draw,
        columns=("model", "threshold", example.x_name, example.y_name),
        rows=tuple(
            (name, threshold, x, y)
            for name, points in curves
            for threshold, x, y in zip(points.thresholds, points.x, points.y, strict=True)
        ),
        keys=tuple(
            Key(number, name, f"{figure} {values[name]}" if name in values else "") for number, name, _ in models
        ),
        height=3.75,
        subject=place,
    )


def build_reliability(models: Drawn, values: Values, *, place: str, stem: str) -> Chart:
    """Of the probability of fake: what was said against what was true, a point a bin that is not empty."""

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        draw_reference(axes, ink, [0, 1], [0, 1])
        for number, _, drawing in models:
            bins = drawing.reliability
            filled = [(s, t) for s, t in zip(bins.said, bins.true, strict=True) if s is not None and t is not None]
            draw_line(axes, ink, number, [s for s, _ in filled], [t for _, t in filled])
        set_unit_square(axes)
        style_axes(axes, ink, x="said: probability of fake", y="true: share that is fake")

    said = ", ".join(f"{name} {values[name]}" for _, name, _ in models if name in values)
    return Chart(
        name=f"reliability-{stem}",
        title="Reliability",
        alt=f"Reliability diagram, {place}. Expected calibration error: {said or 'not known'}.",
        hint="On the dashed line, 80 % fake is true of 80 % of samples. Below it, too much is called fake.",
        draw=draw,
        columns=("model", "bin_low", "bin_high", "count", "said", "true"),
        rows=tuple(
            (name, *row)
            for _, name, drawing in models
            for row in zip(
                drawing.reliability.edges[:-1],
                drawing.reliability.edges[1:],
                drawing.reliability.counts,
                drawing.reliability.said,
                drawing.reliability.true,
                strict=True,
            )
        ),
        keys=tuple(Key(number, name, f"ECE {values[name]}" if name in values else "") for number, name, _ in models),
        height=3.75,
        subject=place,
    )


def build_histograms(models: Drawn, *, place: str, stem: str) -> Chart:
    """A row a model: reals as an area, fakes as a line, each as shares of its class."""
    short = shorten_names([name for _, name, _ in models], 30)

    def draw(figure: Any, ink: Ink) -> None:
        rows = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        for place_in_figure, (axes, (_, name, drawing)) in enumerate(zip(rows, models, strict=True)):
            edges = np.array(drawing.histogram.edges)
            real, fake = (_to_shares(counts) for counts in (drawing.histogram.real, drawing.histogram.fake))
            axes.stairs(real, edges, fill=True, color=ink.first, alpha=0.45, linewidth=0, clip_on=False)
            axes.stairs(fake, edges, color=ink.second, linewidth=1.6, clip_on=False)
            is_last = place_in_figure == len(models) - 1
            style_axes(axes, ink, x="probability of fake" if is_last else "", y="")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, max(1e-9, float(max(real.max(), fake.max()))) * 1.05)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_title(short[name], fontsize=SMALL_LETTERS, color=ink.text, loc="left", pad=3)

    counts = ", ".join(
        f"{name} {sum(drawing.histogram.real[-1:])} of {sum(drawing.histogram.real)} reals in the highest bin"
        for _, name, drawing in models
    )
    return Chart(
        name=f"scores-{stem}",
        title="Scores",
        alt=f"Histograms of the probability of fake, {place}: {counts}.",
        hint="Reals belong left, fakes right; where they overlap the model cannot tell. Shares of each class.",
        draw=draw,
        columns=("model", "bin_low", "bin_high", "real", "fake"),
        rows=tuple(
            (name, *row)
            for _, name, drawing in models
            for row in zip(
                drawing.histogram.edges[:-1],
                drawing.histogram.edges[1:],
                drawing.histogram.real,
                drawing.histogram.fake,
                strict=True,
            )
        ),
        keys=(Key(0, "real", shape="area"), Key(0, "fake", shape="outline")),
        height=max(2.2, 0.45 + ROW_HEIGHT * len(models)),
        subject=place,
    )


def _to_shares(counts: tuple[int, ...]) -> Any:
    return np.array(counts) / max(1, sum(counts))
