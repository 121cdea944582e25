"""All charts of a report, in groups: the curves of each level and part, robustness, training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharpstudent.metrics.figures import name_figure
from sharpstudent.report.chart import Chart
from sharpstudent.report.charts.curves import Drawn, build_det, build_pr, build_roc
from sharpstudent.report.charts.robustness import build_robustness
from sharpstudent.report.charts.scores import build_histograms, build_reliability
from sharpstudent.report.charts.training import build_training
from sharpstudent.report.page.words import describe_level, describe_part
from sharpstudent.report.results import ModelResult, Results
from sharpstudent.report.text import Unit, format_value, make_slug, make_unique


@dataclass(frozen=True)
class ChartGroup:
    """Charts that belong together. title: of curves, what they are of: `frames, all data`."""

    title: str
    charts: tuple[Chart, ...]


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
        training=ChartGroup("Training", _rename(training)),
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


def _rename(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    names = make_unique(chart.name for chart in charts)
    return tuple(replace(chart, name=name) for chart, name in zip(charts, names, strict=True))
