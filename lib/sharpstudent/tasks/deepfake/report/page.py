"""report.html of an evaluation of detectors: the results put into the page's templates, and the files beside it.

Its tables are what was chosen on validation (temperatures, operating points), which files were evaluated, how models
differ from each other, what the guide expects, and the data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sharpstudent.report.page import (
    begin_large,
    build_costs,
    draw_group,
    draw_within,
    list_contents,
    render_template,
    tell_pairs,
    write_files,
)
from sharpstudent.report.results import FigureResult
from sharpstudent.report.text import (
    DASH,
    MINUS,
    SHORT,
    Cell,
    Group,
    Notes,
    Row,
    TextTable,
    build_list,
    format_count,
    format_difference,
    format_p_value,
    format_probability,
    format_value,
    list_heads,
    shorten_names,
    word,
)
from sharpstudent.tasks.deepfake.report.charts import ReportCharts, build_charts
from sharpstudent.tasks.deepfake.report.figure_tables import (
    AllFigures,
    FigureTables,
    build_areas,
    build_figure_tables,
    build_glance,
    build_kinds_table,
    build_strengths,
    collect_figures,
    find_scale,
)
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture, build_mistakes, build_mistakes_table
from sharpstudent.tasks.deepfake.report.results import (
    Band,
    CalibrationResult,
    ComparisonResult,
    DataResult,
    ModelResult,
    Results,
)
from sharpstudent.tasks.deepfake.report.words import (
    describe_figure,
    describe_level,
    describe_part,
    name_threshold,
    split_name,
)


def build_temperatures(models: Sequence[ModelResult]) -> TextTable:
    """A row a model with a calibration."""
    notes = Notes()
    rows = [
        Row(head, _build_temperature(model.calibration, notes))
        for head, model in zip(list_heads(models), models, strict=True)
        if model.calibration is not None
    ]
    columns = [
        Cell("Temperature", link="word-temperature"),
        Cell("Log loss", small="before → after", link="word-log-loss"),
        Cell("ECE", small="before → after", link="word-ece"),
        word("Fitted on"),
    ]
    return build_list("Temperatures, and what they change where they were fitted", "Model", columns, rows, notes)


def _build_temperature(one: CalibrationResult, notes: Notes) -> tuple[Cell, ...]:
    return (
        Cell(f"{one.temperature:.3f}", title=one.note or "", mark=notes.mark(one.note)),
        Cell(" → ".join(format_value(value, "nats") for value in one.log_loss)),
        Cell(" → ".join(format_value(value, "share") for value in one.ece)),
        word(one.fitted_on),
    )


def build_operating_points(models: Sequence[ModelResult]) -> TextTable:
    """A group a model and level, a row a threshold."""
    groups = tuple(
        Group(
            f"{model.name}: {describe_level(level)}",
            tuple(
                Row(
                    word(begin_large(name_threshold(name))),
                    (
                        Cell(_format_threshold(point.threshold)),
                        Cell(format_probability(_to_probability(point.threshold))),
                        Cell(format_value(point.tpr, "percent")),
                        Cell(format_value(point.fpr, "percent")),
                    ),
                )
                for name, point in points.items()
            ),
        )
        for model in models
        if model.calibration is not None
        for level, points in model.calibration.operating_points.items()
        if points
    )
    columns = (
        Cell("Threshold", small="log-odds"),
        Cell("As probability", small="before temperature"),
        Cell("TPR there", link="word-tpr"),
        Cell("FPR there"),
    )
    return TextTable("Operating points, with their rates where they were chosen", "Threshold", columns, groups)


def build_models(models: Sequence[ModelResult]) -> TextTable:
    """A row a model: file, form, what is known of its training."""
    notes = Notes()
    rows = [
        Row(
            Cell(
                head.text, head.small, head.title, notes.mark(" ".join(model.notes)), series=head.series, kind="words"
            ),
            (
                word(model.file),
                word(model.architecture or DASH),
                Cell("" if model.image_size is None else f"{model.image_size} px"),
                word(tell_pairs({**model.trained, **model.validation}) or DASH),
                word(model.sha256 or DASH),
            ),
        )
        for head, model in zip(list_heads(models), models, strict=True)
    ]
    columns = [word("File"), word("Architecture"), Cell("Input"), word("Its file says"), word("SHA-256")]
    return build_list("The models that were judged", "Model", columns, rows, notes)


def _format_threshold(threshold: float) -> str:
    return f"{threshold:.3f}".replace("-", MINUS)


def _to_probability(margin: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * margin))


def build_comparisons(comparisons: Sequence[ComparisonResult]) -> TextTable:
    """A group a figure, a row a pair of models; figures in the order in which they come."""
    notes = Notes()
    names = shorten_names([name for one in comparisons for name in (one.a, one.b)], SHORT)
    groups = tuple(
        Group(
            describe_figure(figure),
            tuple(_build_comparison(one, names, notes) for one in comparisons if one.figure == figure),
        )
        for figure in dict.fromkeys(one.figure for one in comparisons)
    )
    columns = (
        Cell("Difference", small="first minus second", link="word-interval"),
        word("Reads as"),
        Cell("p", link="word-p"),
        Cell("Agreement", link="word-agreement"),
    )
    return TextTable("Pairs of models on the same samples", "Models", columns, groups, notes.list_all())


def _build_comparison(one: ComparisonResult, names: dict[str, str], notes: Notes) -> Row:
    difference = one.difference
    ends = (
        f"[{format_difference(difference.low)}, {format_difference(difference.high)}]"
        if difference.low is not None and difference.high is not None
        else ""
    )
    head = Cell(names[one.a], small=f"minus {names[one.b]}", title=f"{one.a} minus {one.b}", kind="words")
    return Row(
        head,
        (
            Cell(format_difference(difference.value), ends, difference.note or "", notes.mark(difference.note)),
            word(_read(difference)),
            Cell(format_p_value(one.p_value)),
            Cell(format_value(one.agreement, "percent")),
        ),
    )


def _read(difference: FigureResult) -> str:
    if difference.low is None or difference.high is None:
        return "no interval"
    if difference.low > 0:
        return "first is better"
    return "second is better" if difference.high < 0 else "within noise"


def build_bands(bands: Sequence[Band]) -> TextTable:
    """What the guide expects beside what was measured."""
    rows = [Row(word(band.what), (word(band.expected), word(band.measured))) for band in bands]
    caption = "What the two-stage guide expects on FaceForensics++ at 380 px, beside what was measured here"
    return build_list(caption, "What", [word("Expected there"), word("Measured here")], rows, Notes())


def build_data(data: Sequence[DataResult]) -> TextTable:
    """A row a set: what was counted."""
    notes = Notes()
    rows = [
        Row(
            Cell(one.name, small=_tell_kind(one), mark=notes.mark(" ".join(one.notes)), kind="words"),
            (
                *(Cell(format_count(n)) for n in (one.frames, one.faces, one.real, one.fake, one.videos, one.people)),
                Cell(format_count(sum(one.without_decision.values()))),
            ),
        )
        for one in data
    ]
    titles = ("Frames", "Faces", "Real", "Fake", "Videos", "People", "Without decision")
    columns = [Cell(title, link="word-counts" if title.startswith("Without") else "") for title in titles]
    return build_list("The data that was judged", "Set", columns, rows, notes)


def build_undecided(data: Sequence[DataResult]) -> TextTable:
    """A row a set and reason for which frames have no decision."""
    rows = [
        Row(word(one.name), (word(reason), Cell(format_count(count))))
        for one in data
        for reason, count in one.without_decision.items()
        if count
    ]
    return build_list("Frames without decision, by reason", "Set", [word("Reason"), Cell("Frames")], rows, Notes())


def build_fakes(data: Sequence[DataResult]) -> TextTable:
    """A row a set and kind of fake."""
    rows = [
        Row(word(one.name), (word(kind), Cell(format_count(count))))
        for one in data
        for kind, count in one.manipulations.items()
    ]
    return build_list("Fakes by kind", "Set", [word("Kind"), Cell("Frames")], rows, Notes())


def _tell_kind(one: DataResult) -> str:
    return one.kind if one.split is None else f"{one.kind}, split {one.split}"


KIND_FIGURES = ("auc", "eer", "tpr_at_fpr_1pct", "apcer_at_half")
SOURCE_LEVELS = ("frame", "video_mean")


@dataclass(frozen=True)
class SourceFigures:
    """A source's tables: of all its fakes, where there are several sources, and by kind of fake."""

    name: str
    tables: tuple[FigureTables, ...]
    kinds: tuple[TextTable, ...]


def write_report(folder: Path, results: Results, pictures: Sequence[ReportPicture] = ()) -> list[Path]:
    """Write all files of the report into `folder`, which is made, as `write_files` does; returns them.

    pictures: N of them, which `MistakeResult.picture` numbers. Raises UserError where the disk refuses, ValueError for
    a picture of another form or one that is not there.
    """
    charts = build_charts(results)
    page = render_page(results, charts, pictures)
    return write_files(folder, page=page, results=results.to_json(), charts=charts.list_all())


def render_page(results: Results, charts: ReportCharts, pictures: Sequence[ReportPicture]) -> str:
    """The page as text. Raises ValueError where `build_mistakes` does."""
    whole = _list_whole(results)
    figures = collect_figures(results.models)
    mistakes = build_mistakes(results.mistakes, pictures)
    glance, sources = build_glance(figures), _list_sources(figures)
    tables = [build_figure_tables(figures, level, "") for level in figures.list_levels("")]
    tables_by_name = {
        "comparisons": build_comparisons([one for one in results.comparisons if one.figure in whole]),
        "costs": build_costs(results.models, unit="picture", link="word-macs"),
        "bands": build_bands(results.bands),
        "temperatures": build_temperatures(results.models),
        "points": build_operating_points(results.models),
        "data": build_data(results.data),
        "models": build_models(results.models),
    }
    has_figures = not glance.is_empty or bool(tables) or bool(sources)
    has_calibration = not tables_by_name["temperatures"].is_empty or not tables_by_name["points"].is_empty
    has_mistakes = bool(mistakes.by_model or mistakes.rest)
    contents = list_contents(
        [
            ("figures", "Figures", has_figures),
            ("comparisons", "Comparisons", tables_by_name["comparisons"]),
            ("cost", "Cost", tables_by_name["costs"]),
            ("bands", "Expected bands", tables_by_name["bands"]),
            ("curves", "Curves", charts.curves),
            ("robustness", "Robustness", charts.robustness.charts),
            ("training", "Training", charts.training.charts),
            ("mistakes", "Mistakes", has_mistakes),
            ("calibration", "Calibration", has_calibration),
            ("protocol", "Protocol", results.protocol),
            ("data", "Data", tables_by_name["data"]),
            ("models", "Models", tables_by_name["models"]),
            ("making", "How it was made", True),
            ("glossary", "Glossary", True),
        ]
    )
    parts = {
        **tables_by_name,
        "unit": "picture",
        "has_figures": has_figures,
        "has_calibration": has_calibration,
        "has_mistakes": has_mistakes,
        "glance": glance,
        "least": format_value(find_scale(figures), "share").rstrip("0"),
        "tables": tables,
        "sources": sources,
        "comparisons_of_parts": build_comparisons([one for one in results.comparisons if one.figure not in whole]),
        "curves": draw_within(charts.curves),
        "robustness": draw_group(charts.robustness),
        "areas": build_areas(results.models),
        "strengths": build_strengths(results.models),
        "training": draw_group(charts.training),
        "mistakes": mistakes,
        "further": build_mistakes_table(mistakes.rest),
        "undecided": build_undecided(results.data),
        "fakes": build_fakes(results.data),
    }
    return render_template(
        "report.html.j2", results, results.models, package=__package__, contents=contents, parts=parts
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
