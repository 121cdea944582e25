"""All charts of a report, in groups: the curves of each level and part, robustness, training.

The curves show the scores of several models on the samples of one level and one part of the data: ROC, precision-recall
and DET curves, a reliability diagram, and histograms of both classes.

Legend: K severities of a corruption, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.naming import make_slug, make_unique, printable, shorten, shorten_names
from sharpstudent.metrics.curves import find_deviates
from sharpstudent.report.chart import (
    SMALL_LETTERS,
    Chart,
    ChartGroup,
    Key,
    Palette,
    draw_line,
    draw_reference,
    set_unit_square,
    style_axes,
)
from sharpstudent.report.curves import HOLLOW, build_training, describe_constants, draw_reliability, find_small
from sharpstudent.report.page import make_chart_names_unique
from sharpstudent.report.results import ReliabilityBins
from sharpstudent.report.text import DASH, Unit, format_value
from sharpstudent.tasks.deepfake.evaluation.set_metrics import name_metric
from sharpstudent.tasks.deepfake.report.results import Drawing, ModelResult, Results, ScoreHistogram
from sharpstudent.tasks.deepfake.report.words import (
    describe_level,
    describe_part,
    find_least,
    list_corruptions,
    name_corruption,
    name_severities,
)

ROW_HEIGHT = 0.95  # inches of one model's histogram
MARKERS_APART = 0.22  # of the chart's diagonal
LEAST_RATE = 5e-4  # DET axes begin no further down
DET_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)

Drawn = Sequence[tuple[int, str, Drawing]]  # number of the series, name of the model, its drawing
Points = tuple[NDArray[np.float64], NDArray[np.float64]]  # x (P,) and y (P,)


@dataclass(frozen=True)
class ReportCharts:
    """All charts of a report; no two have the same name.

    Attributes:
        curves: A group for each level and source, frames first.
        robustness: A chart for each corruption; the group may be empty.
        training: The training curves; the group may be empty.
    """

    curves: tuple[ChartGroup, ...]
    robustness: ChartGroup
    training: ChartGroup

    def list_all(self) -> list[Chart]:
        """List every chart once."""
        return [chart for group in (*self.curves, self.robustness, self.training) for chart in group.charts]


def build_charts(results: Results) -> ReportCharts:
    """Build the charts of everything that the results hold."""
    places = _list_places(results.models)
    stems = make_unique(f"{make_slug(level)}-{make_slug(part) if part else 'all'}" for level, part in places)
    training = [] if results.training is None else build_training(results.training)
    constants = "" if results.training is None else describe_constants(results.training)
    return ReportCharts(
        curves=tuple(_build_group(results.models, *place, stem) for place, stem in zip(places, stems, strict=True)),
        robustness=ChartGroup("Robustness", tuple(build_robustness(results.models))),
        training=ChartGroup("Training", make_chart_names_unique(training), constants),
    )


def _list_places(models: Sequence[ModelResult]) -> list[tuple[str, str]]:
    """List the levels and parts that have drawings, frames before videos: each of several sources, else all data."""
    met = list(dict.fromkeys((drawing.level, drawing.part) for model in models for drawing in model.drawings))
    by_source = [place for place in met if place[1]]
    return sorted(by_source or met, key=lambda place: place[0] != "frame")


def _build_group(models: Sequence[ModelResult], level: str, part: str, stem: str) -> ChartGroup:
    drawn: Drawn = [
        (number, model.name, drawing)
        for number, model in enumerate(models)
        for drawing in model.drawings
        if (drawing.level, drawing.part) == (level, part)
    ]
    place = f"{describe_level(level)}, {describe_part(part)}"
    charts: list[Chart] = []
    is_calibrated = {name: one.reliability_calibrated is not None for _, name, one in drawn}
    for kind in CURVES.values():
        found: dict[str, float | None] = {}
        for model in models:
            after = "_calibrated" if kind.name == "reliability" and is_calibrated.get(model.name) else ""
            name = name_metric(level, f"{kind.metric}{after}", part)
            if name in model.figures:
                found[model.name] = model.figures[name].value
        values = {model: format_value(value, kind.unit) for model, value in found.items() if value is not None}
        charts.append(build_curve(kind, drawn, values, place=place, stem=stem))
    return ChartGroup(place, (*charts, build_histograms(drawn, place=place, stem=stem)))


@dataclass(frozen=True)
class CurveKind:
    """A kind of curve.

    Attributes:
        name: The kind's name in files and in the results.
        title: The title of the chart.
        metric: The metric whose value is shown beside each model.
        unit: How that value is formatted.
        x: Name of the x axis.
        y: Name of the y axis.
        hint: How to read the chart.
        columns: The columns of its CSV, after the model's name.
        has_reference: Whether the diagonal is drawn.
    """

    name: str
    title: str
    metric: str
    unit: Unit
    x: str
    y: str
    hint: str
    columns: tuple[str, ...]
    has_reference: bool = True


CURVES = {
    "roc": CurveKind(
        "roc",
        "ROC",
        "auc",
        "share",
        "reals called fake (FPR)",
        "fakes found (TPR)",
        "Up and to the left is better; the dashed diagonal is guessing.",
        ("threshold", "fpr", "tpr"),
    ),
    "pr": CurveKind(
        "pr",
        "Precision and recall",
        "ap",
        "share",
        "fakes found (recall)",
        "right when it says fake (precision)",
        "Up and to the right is better. It depends on how many samples are fake.",
        ("threshold", "recall", "precision"),
        has_reference=False,
    ),
    "det": CurveKind(
        "det",
        "DET",
        "eer",
        "percent",
        "reals called fake [%]",
        "fakes missed [%]",
        "Down and to the left is better; errors are the same on the dashed line (EER). Axes of normal deviates.",
        ("threshold", "fpr", "fnr"),
    ),
    "reliability": CurveKind(
        "reliability",
        "Reliability",
        "ece",
        "share",
        "probability of fake",
        "observed share of fakes",
        "On the dashed line, 80 % fake is true of 80 % of samples. Below it, too much is called fake.",
        ("calibrated", "bin_low", "bin_high", "count", "said", "true"),
    ),
}


def build_curve(kind: CurveKind, models: Drawn, values: Mapping[str, str], *, place: str, stem: str) -> Chart:
    """Build a chart with a curve for each model.

    Args:
        kind: The kind of curve, one of `CURVES`.
        models: The drawings of each model, at least one.
        values: The number that is shown beside each model, by the model's name.
        place: The samples in words, such as `frames of all data`.
        stem: The end of the file's name, which differs for each place.

    Returns:
        The chart.
    """
    find_points, set_scale, ends = (
        _scale_det(models) if kind.name == "det" else (partial(_read_points, kind.name), set_unit_square, (0, 1))
    )
    is_reliability = kind.name == "reliability"
    hint = kind.hint
    if is_reliability and any(find_small(_read_bins(drawing)).any() for _, _, drawing in models):
        hint = f"{hint} {HOLLOW}"

    def draw(figure: Any, palette: Palette) -> None:
        """Draw the curve of each model.

        Args:
            figure: The figure of matplotlib to draw on.
            palette: The colours to draw with.
        """
        axes = figure.add_subplot()
        if kind.has_reference:
            draw_reference(axes, palette, ends, ends)
        for number, _, drawing in models:
            x, y = find_points(drawing)
            if is_reliability:
                draw_reliability(axes, palette, number, _read_bins(drawing))
            else:
                draw_line(axes, palette, number, x, y, every=(0.05 * number, MARKERS_APART))
        set_scale(axes)
        style_axes(axes, palette, x=_name_probability(models) if is_reliability else kind.x, y=kind.y)

    numbers, short = ", ".join(f"{name} {values[name]}" for _, name, _ in models if name in values), kind.metric.upper()
    return Chart(
        name=f"{kind.name}-{stem}",
        title=kind.title,
        alt=f"{kind.title} curves, {place}. {short}: {numbers or 'not known'}.",
        hint=hint,
        draw=draw,
        columns=("model", *kind.columns),
        rows=_list_rows(models, lambda drawing: _read_columns(kind.name, drawing)),
        keys=tuple(
            Key(number, name, f"{short} {values[name]}" if name in values else "") for number, name, _ in models
        ),
        height=3.75,
        subject=place,
    )


def _read_bins(drawing: Drawing) -> ReliabilityBins:
    return drawing.reliability_calibrated or drawing.reliability


def _name_probability(models: Drawn) -> str:
    """Name the axis of the probabilities: those after the stored temperature, where there is one."""
    calibrated = {drawing.reliability_calibrated is not None for _, _, drawing in models}
    if len(calibrated) > 1:
        return "probability of fake, calibrated where stored"
    return f"{'calibrated ' if calibrated == {True} else ''}probability of fake"


def _read_histogram(drawing: Drawing) -> ScoreHistogram:
    return drawing.histogram_calibrated or drawing.histogram


def _read_columns(kind: str, drawing: Drawing) -> Sequence[Sequence[Any]]:
    if kind == "reliability":
        bins = _read_bins(drawing)
        calibrated = [int(drawing.reliability_calibrated is not None)] * len(bins.counts)
        return calibrated, bins.edges[:-1], bins.edges[1:], bins.counts, bins.said, bins.true
    points = getattr(drawing, kind)
    return points.thresholds, points.x, points.y


def _list_rows(models: Drawn, read: Callable[[Drawing], Sequence[Sequence[Any]]]) -> tuple[tuple[Any, ...], ...]:
    """List the rows of a CSV: the model's name, then the values of its columns."""
    return tuple((name, *row) for _, name, drawing in models for row in zip(*read(drawing), strict=True))


def _read_points(kind: str, drawing: Drawing) -> Points:
    """Read the points of a curve; a reliability diagram has one for each bin that is not empty."""
    *_, x, y = (np.array(column, np.float64) for column in _read_columns(kind, drawing))
    filled = ~np.isnan(x) & ~np.isnan(y)
    return x[filled], y[filled]


def _scale_det(models: Drawn) -> tuple[Callable[[Drawing], Points], Callable[[Any], None], tuple[float, float]]:
    """Scale a DET chart by normal deviates (Martin et al. 1997).

    Returns a function that gives the curve of a drawing, one that sets the axes, and the lower and upper end of both.
    """
    curves = {id(drawing): _find_deviates(drawing) for _, _, drawing in models}
    low = min(float(min(x.min(), y.min())) for x, y in curves.values())
    low = max(low, float(find_deviates(np.array([LEAST_RATE]), 10**9)[0])) - 0.05
    worst = max(float(np.maximum(x, y).min()) for x, y in curves.values())  # about the EER
    high = float(find_deviates(np.array([0.6 if worst < -0.4 else 0.95]), 10**9)[0])

    def set_scale(axes: Any) -> None:
        deviates = find_deviates(np.array(DET_TICKS), 10**9)
        shown = [(d, f"{100 * rate:g}") for d, rate in zip(deviates, DET_TICKS, strict=True) if low <= d <= high]
        ticks = {"ticks": [d for d, _ in shown], "labels": [name for _, name in shown]}
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xticks(**ticks)
        axes.set_yticks(**ticks)

    return lambda drawing: _cut(*curves[id(drawing)], low, high), set_scale, (low, high)


def _find_deviates(drawing: Drawing) -> Points:
    """Convert error rates to normal deviates; rates of 0 and 1 count as half a sample."""
    reals, fakes = max(1, sum(drawing.histogram.real)), max(1, sum(drawing.histogram.fake))
    return find_deviates(np.array(drawing.det.x), reals), find_deviates(np.array(drawing.det.y), fakes)


def _cut(x: NDArray[np.float64], y: NDArray[np.float64], low: float, high: float) -> Points:
    """Clip a curve, x rising and y falling, to low..high; it ends where it crosses these limits."""
    x, y = np.maximum(x, low), np.maximum(y, low)
    places = np.arange(len(x))
    first, last = np.interp(-high, -y, places), np.interp(high, x, places)
    between = places[(places > first) & (places < last)]
    kept = np.unique([first, *between, last]) if first <= last else np.empty(0)
    return np.interp(kept, places, x), np.interp(kept, places, y)


def build_histograms(models: Drawn, *, place: str, stem: str) -> Chart:
    """Build a chart with a row a model: reals as an area, fakes as a line, each as shares of its class.

    Args:
        models: The drawings of each model, at least one.
        place: The samples in words, such as `frames of all data`.
        stem: The end of the file's name, which differs for each place.

    Returns:
        The chart.
    """
    short = shorten_names([name for _, name, _ in models], 30)

    def draw(figure: Any, palette: Palette) -> None:
        """Draw the histograms of each model.

        Args:
            figure: The figure of matplotlib to draw on.
            palette: The colours to draw with.
        """
        rows = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (_, name, drawing) in zip(rows, models, strict=True):
            counted = _read_histogram(drawing)
            real, fake = (np.array(counts) / max(1, sum(counts)) for counts in (counted.real, counted.fake))
            axes.stairs(real, counted.edges, fill=True, color=palette.first, alpha=0.45, linewidth=0, clip_on=False)
            axes.stairs(fake, counted.edges, color=palette.second, linewidth=1.6, clip_on=False)
            style_axes(axes, palette, x=_name_probability(models) if axes is rows[-1] else "", y="")
            axes.set(xlim=(0, 1), ylim=(0, max(1e-9, float(max(real.max(), fake.max()))) * 1.05), yticks=[])
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
            axes.spines["left"].set_visible(False)
            axes.set_title(short[name], fontsize=SMALL_LETTERS, color=palette.text, loc="left", pad=3)

    counts = ", ".join(
        f"{name} {sum(found.real[-1:])} of {sum(found.real)} reals in the highest bin"
        for _, name, drawing in models
        for found in [_read_histogram(drawing)]
    )
    return Chart(
        name=f"scores-{stem}",
        title="Scores",
        alt=f"Histograms of the probability of fake, {place}: {counts}.",
        hint="Reals belong left, fakes right; where they overlap the model cannot tell. Shares of each class.",
        draw=draw,
        columns=("model", "bin_low", "bin_high", "real", "fake"),
        rows=_list_rows(
            models,
            lambda one: (
                *(_read_histogram(one).edges[:-1], _read_histogram(one).edges[1:]),
                *(_read_histogram(one).real, _read_histogram(one).fake),
            ),
        ),
        keys=(Key(0, "real", shape="area"), Key(0, "fake", shape="outline")),
        height=max(2.2, 0.45 + ROW_HEIGHT * len(models)),
        subject=place,
    )


def build_robustness(models: Sequence[ModelResult]) -> list[Chart]:
    """Build one chart for each corruption that any model was tested with."""
    names = list_corruptions(models)
    points = [point.auc for model in models for curve in model.robustness for point in curve.points]
    low = find_least(value for auc in points for value in (auc.value, auc.low))
    stems = make_unique(make_slug(name) for name in names)
    return [_build_robustness(models, name, stem, low) for name, stem in zip(names, stems, strict=True)]


def _build_robustness(models: Sequence[ModelResult], name: str, stem: str, low: float) -> Chart:
    curves = [(n, model.name, c) for n, model in enumerate(models) for c in model.robustness if c.name == name]
    longest = max((curve for _, _, curve in curves), key=lambda curve: len(curve.points))
    ticks = name_severities(longest)

    def draw(figure: Any, palette: Palette) -> None:
        """Draw the AUC of each model by severity, with intervals.

        Args:
            figure: The figure of matplotlib to draw on.
            palette: The colours to draw with.
        """
        axes = figure.add_subplot()
        draw_reference(axes, palette, [0, max(1, len(ticks) - 1)], [0.5, 0.5])
        for number, _, curve in curves:
            known = [(at, p.auc) for at, p in enumerate(curve.points) if p.auc.value is not None]
            aside = 0.045 * (number - (len(curves) - 1) / 2)  # so that intervals stand beside each other
            places = [at + aside for at, _ in known]
            ends = np.array([(auc.low, auc.high) for _, auc in known], np.float64).reshape(-1, 2)  # NaN: not drawn
            colour = palette.series[number % 8]
            axes.vlines(places, ends[:, 0], ends[:, 1], color=colour, alpha=0.6, linewidth=1.2, clip_on=False)
            draw_line(axes, palette, number, places, [auc.value for _, auc in known])
        axes.set_xticks(range(len(ticks)), [shorten(printable(tick), 12) for tick in ticks])
        axes.set(xlim=(-0.2, max(1, len(ticks) - 1) + 0.2), ylim=(low, 1.0))
        axes.set_yticks([low + 0.1 * step for step in range(round((1 - low) * 10) + 1)])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1g}".removeprefix("0") or "0")
        style_axes(axes, palette, x=shorten(printable(longest.unit), 40), y="frame AUC")
        if sum(map(len, ticks)) > 34:
            axes.tick_params(axis="x", labelrotation=25)

    title = name_corruption(name)
    areas = {model: DASH if curve.area is None else format_value(curve.area, "share") for _, model, curve in curves}
    return Chart(
        name=f"robustness-{stem}",
        title=title,
        alt=f"Frame AUC under {title}. Area: {', '.join(f'{model} {area}' for model, area in areas.items())}.",
        hint="",
        draw=draw,
        columns=("model", "strength", "label", "auc", "low", "high", "area"),
        rows=tuple(
            (model, p.strength, p.label, p.auc.value, p.auc.low, p.auc.high, curve.area)
            for _, model, curve in curves
            for p in curve.points
        ),
        keys=tuple(Key(number, model, f"area {areas[model]}") for number, model, _ in curves),
        height=2.5,
        subject="frame AUC",
    )
