"""report.html: the results put into the page's templates. One file, no script, nothing fetched from anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpstudent.report.chart import (
    DARK_PAPER,
    DARK_SERIES,
    KEY_DASHES,
    KEY_MARKERS,
    LIGHT_PAPER,
    LIGHT_SERIES,
    render_svg,
)
from sharpstudent.report.charts.all_charts import ChartGroup, ReportCharts
from sharpstudent.report.page.figures import (
    AllFigures,
    FigureTables,
    build_areas,
    build_figure_tables,
    build_glance,
    build_kinds_table,
    build_strengths,
    collect_figures,
    find_least,
)
from sharpstudent.report.page.measures import (
    build_bands,
    build_comparisons,
    build_costs,
    build_data,
    build_fakes,
    build_models,
    build_operating_points,
    build_temperatures,
    build_undecided,
    flatten,
)
from sharpstudent.report.page.pictures import ReportPicture, build_mistakes, build_mistakes_table
from sharpstudent.report.page.words import GLOSSARY, describe_part, split_name
from sharpstudent.report.results import Results
from sharpstudent.report.text import SHORT, Table, format_moment, format_value, shorten_names, show

KIND_FIGURES = ("auc", "eer", "tpr_at_fpr_1pct", "apcer_at_half")
SOURCE_LEVELS = ("frame", "video_mean")
_SOFT = re.compile(r"(?<=[_/])(?=\w)|(?<=[a-zA-Z][.-])(?=[a-zA-Z])")  # where a name may be broken into lines
MOST_CHART_BYTES = 2_000_000  # in the page; the charts of further parts are files only


@dataclass(frozen=True)
class SourceFigures:
    """A source's tables: of all its fakes, where there are several sources, and by kind of fake."""

    name: str
    tables: tuple[FigureTables, ...]
    kinds: tuple[Table, ...]


@dataclass(frozen=True)
class DrawnGroup:
    """A group of charts with their SVGs; none where the page has no room for them."""

    group: ChartGroup
    svgs: tuple[str, ...]


def render_page(results: Results, charts: ReportCharts, pictures: Sequence[ReportPicture]) -> str:
    """The page as text. Raises ValueError where `build_mistakes` does."""
    whole = _list_whole(results)
    figures = collect_figures(results.models)
    mistakes = build_mistakes(results.mistakes, pictures)
    template = _build_environment().get_template("report.html.j2")
    return template.render(
        results=results,
        short=shorten_names([model.name for model in results.models], SHORT),
        dashes=KEY_DASHES,
        markers=KEY_MARKERS,
        protocol=[(_begin_large(name.replace("_", " ")), text) for name, text in results.protocol.items()],
        colours={"light": (LIGHT_PAPER, LIGHT_SERIES), "dark": (DARK_PAPER, DARK_SERIES)},
        glance=build_glance(figures),
        least=format_value(find_least(figures), "share").rstrip("0"),
        tables=[build_figure_tables(figures, level, "") for level in figures.list_levels("")],
        sources=_list_sources(figures),
        costs=build_costs(results.models),
        comparisons=build_comparisons([one for one in results.comparisons if one.figure in whole]),
        comparisons_of_parts=build_comparisons([one for one in results.comparisons if one.figure not in whole]),
        bands=build_bands(results.bands),
        curves=_draw_within(charts.curves),
        robustness=_draw_group(charts.robustness),
        areas=build_areas(results.models),
        strengths=build_strengths(results.models),
        training=_draw_group(charts.training),
        mistakes=mistakes,
        further=build_mistakes_table(mistakes.rest),
        temperatures=build_temperatures(results.models),
        points=build_operating_points(results.models),
        models=build_models(results.models),
        data=build_data(results.data),
        undecided=build_undecided(results.data),
        fakes=build_fakes(results.data),
        config=None if results.config is None else _to_json(results.config),
        environment=flatten(results.environment),
        glossary=GLOSSARY,
    )


def _list_whole(results: Results) -> set[str]:
    """Figures compared on all data; those of sources too, where nothing else was compared."""
    names = {one.figure for one in results.comparisons}
    return {name for name in names if not split_name(name).suffix} or names


def _list_sources(figures: AllFigures) -> list[SourceFigures]:
    sources = figures.list_sources()
    found: list[SourceFigures] = []
    for source in sources:
        levels = [level for level in SOURCE_LEVELS if level in figures.list_levels(source)]
        tables = [build_figure_tables(figures, level, source) for level in levels] if len(sources) > 1 else []
        kinds = [build_kinds_table(figures, source, level, KIND_FIGURES) for level in SOURCE_LEVELS]
        filled = tuple(table for table in kinds if not table.is_empty)
        if tables or filled:
            found.append(SourceFigures(describe_part(source), tuple(tables), filled))
    return found


def _draw_within(groups: Sequence[ChartGroup]) -> list[DrawnGroup]:
    """Groups in order, with pictures as long as the page does not grow too large."""
    drawn: list[DrawnGroup] = []
    size = 0
    for group in groups:
        one = _draw_group(group) if size < MOST_CHART_BYTES else DrawnGroup(group, ())
        size += sum(map(len, one.svgs))
        drawn.append(one if size < MOST_CHART_BYTES or len(drawn) == 0 else DrawnGroup(group, ()))
    return drawn


def _draw_group(group: ChartGroup) -> DrawnGroup:
    return DrawnGroup(group, tuple(render_svg(chart) for chart in group.charts))


def _to_json(config: Any) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False, default=str)


def _build_environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sharpstudent.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: show(value) if type(value) is str else value,  # not text that is HTML already
    )
    environment.filters["moment"] = format_moment
    environment.filters["sentence"] = _begin_large
    environment.filters["soft"] = lambda text: Markup("<wbr>").join(_SOFT.split(show(text)))
    return environment


def _begin_large(text: str) -> str:
    return text[:1].upper() + text[1:]
