"""All charts of a report, in groups: the curves of each level and part, robustness, training.

Legend: K strengths of a disturbance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpstudent.report.chart import Chart, ChartGroup, Ink, Key, draw_line, draw_reference, style_axes
from sharpstudent.report.curves import build_training
from sharpstudent.report.page import name_apart
from sharpstudent.report.text import DASH, Unit, format_value, make_slug, make_unique, shorten, show
from sharpstudent.tasks.deepfake.evaluation.figures import name_figure
from sharpstudent.tasks.deepfake.report.results import DisturbanceCurve, ModelResult, Results
from sharpstudent.tasks.deepfake.report.score_charts import (
    Drawn,
    build_det,
    build_histograms,
    build_pr,
    build_reliability,
    build_roc,
)
from sharpstudent.tasks.deepfake.report.words import describe_level, describe_part


@dataclass(frozen=True)
class ReportCharts:
    """curves: frames of all data first; robustness and training may have no charts. Names of charts are unique."""

    curves: tuple[ChartGroup, ...]
    robustness: ChartGroup
    training: ChartGroup

    def list_all(self) -> list[Chart]:
        """Every chart once."""
        return [chart for group in (*self.curves, self.robustness, self.training) for chart in group.charts]


def build_charts(results: Results) -> ReportCharts:
    """The charts of everything that the results hold."""
    places = _list_places(results.models)
    stems = make_unique(_make_stem(level, part) for level, part in places)
    training = [] if results.training is None else build_training(results.training)
    return ReportCharts(
        curves=tuple(
            _build_curves(results.models, level, part, stem) for (level, part), stem in zip(places, stems, strict=True)
        ),
        robustness=ChartGroup("Robustness", tuple(build_robustness(results.models))),
        training=ChartGroup("Training", name_apart(training)),
    )


def _list_places(models: Sequence[ModelResult]) -> list[tuple[str, str]]:
    """Levels and parts that have drawings: all data before its parts, frames before videos."""
    met = list(dict.fromkeys((drawing.level, drawing.part) for model in models for drawing in model.drawings))
    return sorted(met, key=lambda place: (place[1] != "", place[0] != "frame"))


def _make_stem(level: str, part: str) -> str:
    return f"{make_slug(level)}-{make_slug(part) if part else 'all'}"


def _build_curves(models: Sequence[ModelResult], level: str, part: str, stem: str) -> ChartGroup:
    drawn: Drawn = [
        (number, model.name, drawing)
        for number, model in enumerate(models)
        for drawing in model.drawings
        if (drawing.level, drawing.part) == (level, part)
    ]
    place = f"{describe_level(level)}, {describe_part(part)}"

    def find(figure: str, unit: Unit) -> dict[str, str]:
        name = name_figure(level, figure, part)
        found = {model.name: model.figures[name].value for model in models if name in model.figures}
        return {model: format_value(value, unit) for model, value in found.items() if value is not None}

    charts = (
        build_roc(drawn, find("auc", "share"), place=place, stem=stem),
        build_pr(drawn, find("ap", "share"), place=place, stem=stem),
        build_det(drawn, find("eer", "percent"), place=place, stem=stem),
        build_reliability(drawn, find("ece", "share"), place=place, stem=stem),
        build_histograms(drawn, place=place, stem=stem),
    )
    return ChartGroup(place, charts)


Curves = Sequence[tuple[int, str, DisturbanceCurve]]  # number of the series, name of the model, its curve


def build_robustness(models: Sequence[ModelResult]) -> list[Chart]:
    """One chart for each disturbance that any model was put through, in the order in which they are met."""
    names = list(dict.fromkeys(curve.name for model in models for curve in model.robustness))
    values = [v for model in models for curve in model.robustness for p in curve.points for v in _list_values(p)]
    low, high = _find_range(values)
    stems = make_unique(make_slug(name) for name in names)
    return [_build(name, stem, _find(models, name), low, high) for name, stem in zip(names, stems, strict=True)]


def _list_values(point: Any) -> list[float]:
    return [value for value in (point.auc.value, point.auc.low) if value is not None]


def _find_range(values: Sequence[float]) -> tuple[float, float]:
    """From the tenth below the lowest value, guessing at most, to one."""
    return min(0.5, math.floor(10 * min(values)) / 10) if values else 0.5, 1.0


def _find(models: Sequence[ModelResult], name: str) -> Curves:
    return [
        (number, model.name, curve)
        for number, model in enumerate(models)
        for curve in model.robustness
        if curve.name == name
    ]


def _build(name: str, stem: str, curves: Curves, low: float, high: float) -> Chart:
    longest = max((curve for _, _, curve in curves), key=lambda curve: len(curve.points))
    ticks = name_strengths(longest)

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        draw_reference(axes, ink, [0, max(1, len(ticks) - 1)], [0.5, 0.5])
        for number, _, curve in curves:
            drawn = [(at, p.auc) for at, p in enumerate(curve.points) if p.auc.value is not None]
            ranges = [(at, auc.low, auc.high) for at, auc in drawn if auc.low is not None and auc.high is not None]
            aside = 0.045 * (number - (len(curves) - 1) / 2)  # so that intervals stand beside each other
            axes.vlines(
                [place + aside for place, _, _ in ranges],
                [bottom for _, bottom, _ in ranges],
                [top for _, _, top in ranges],
                color=ink.series[number % 8],
                alpha=0.6,
                linewidth=1.2,
                clip_on=False,
            )
            draw_line(axes, ink, number, [place + aside for place, _ in drawn], [auc.value for _, auc in drawn])
        axes.set_xticks(range(len(ticks)), [shorten(show(tick), 12) for tick in ticks])
        axes.set_xlim(-0.2, max(1, len(ticks) - 1) + 0.2)
        axes.set_ylim(low, high)
        axes.set_yticks([low + 0.1 * step for step in range(round((high - low) * 10) + 1)])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1g}".removeprefix("0") or "0")
        style_axes(axes, ink, x=shorten(show(longest.unit), 40), y="frame AUC")
        if sum(map(len, ticks)) > 34:
            axes.tick_params(axis="x", labelrotation=25)

    title = name_disturbance(name)
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


def name_disturbance(name: str) -> str:
    """`jpeg` -> "JPEG", `crop_jitter` -> "Crop jitter"."""
    plain = name.replace("_", " ")
    return {"jpeg": "JPEG", "h264": "H.264"}.get(plain, plain[:1].upper() + plain[1:])


def name_strengths(curve: DisturbanceCurve) -> list[str]:
    """A short name for each strength (K,): the number, where its label is the unit with that number; else the label."""
    names = [point.label for point in curve.points]
    numbers = [f"{point.strength:g}" for point in curve.points]
    told = all(number in name for number, name in zip(numbers[1:], names[1:], strict=True))
    return [names[0], *(numbers if told else names)[1:]] if names else []
