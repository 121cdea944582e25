"""The models side by side: the two-stage guide's table (Model | Parameters | Val AUC | Inference time) first, then what
else was measured; for a console of 80 columns, as Markdown, and as CSV in full precision.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

from rich.table import Table

from sharpstudent.report.results import CostResult, FigureResult
from sharpstudent.report.text import (
    DASH,
    ComparisonRow,
    draw_console_table,
    escape_markdown,
    format_bytes,
    format_interval,
    format_macs,
    format_milliseconds,
    format_value,
    to_markdown,
    to_rich,
)
from sharpstudent.report.verdict import say_name
from sharpstudent.tasks.deepfake.report.guide import find_validation_auc
from sharpstudent.tasks.deepfake.report.judged_sets import JudgedSet, find_comparison, list_sets
from sharpstudent.tasks.deepfake.report.results import ModelResult, Results

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
COST_COLUMNS: tuple[tuple[str, Callable[[CostResult], str]], ...] = (
    ("MACs", lambda cost: format_macs(cost.macs)),
    ("File", lambda cost: format_bytes(cost.file_bytes)),
    ("Peak memory", lambda cost: format_bytes(cost.memory_bytes)),
    ("p95", lambda cost: format_milliseconds(cost.latency_p95_ms)),
)
AGREEMENT = "As teacher"
VALUE = "Val AUC"  # the guide's column
WORDS = ("Model", "Set")  # heads of columns of names


def render_tables(results: Results) -> tuple[Table, ...]:
    """For the console, each at most 80 columns wide: the guide's table; AUC with intervals by model and set; the rest
    of the cost, and how often a model calls what its teacher calls (at a probability of one half, first set).
    """
    tables = [to_rich(_build_rows(results), metric=VALUE)]
    if (figures := _build_figures(results)) is not None:
        tables.append(figures)
    if (costs := _build_costs(results)) is not None:
        tables.append(costs)
    return tuple(tables)


def render_markdown(results: Results) -> str:
    """All columns in one table, ending in a newline; names that users gave stay without effect."""
    rows: list[ComparisonRow] = []
    sets = list_sets(results)
    for model in results.models:
        extra: dict[str, str] = {}
        for judged in sets:
            for title, figure in (("frame", FRAME_AUC), ("video", VIDEO_AUC)):
                if any(_find(judged, other, figure) is not None for other in results.models):
                    name = escape_markdown(judged.title)
                    extra[f"{name}: {title} AUC [95 %]"] = _format(_find(judged, model, figure))
        if any(other.cost is not None for other in results.models):
            extra |= {title: DASH if model.cost is None else show(model.cost) for title, show in COST_COLUMNS}
        if any(_find_agreement(results, other) is not None for other in results.models):
            extra[AGREEMENT] = format_value(_find_agreement(results, model), "percent")
        rows.append(_build_row(model, escape_markdown(model.name), extra))
    return to_markdown(rows, metric=VALUE)


def render_csv(results: Results) -> str:
    """A line a model, numbers in full; what is not known is empty. Columns of a set end in @SET, as figures do."""
    lines = [_list_values(results, model) for model in results.models]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _build_rows(results: Results) -> list[ComparisonRow]:
    return [_build_row(model, say_name(model.name), {}) for model in results.models]


def _build_row(model: ModelResult, name: str, extra: dict[str, str]) -> ComparisonRow:
    cost = model.cost
    return ComparisonRow(
        model=name,
        parameters=None if cost is None else cost.parameters,
        value=format_auc(find_validation_auc(model)),
        inference_ms=None if cost is None else cost.latency_ms,
        extra=extra,
    )


def _build_figures(results: Results) -> Table | None:
    """A line a model and set; None where there is no AUC at all."""
    lines = [
        (say_name(model.name), judged.title, _format(frame), _format(_find(judged, model, VIDEO_AUC)))
        for model in results.models
        for judged in list_sets(results)
        if (frame := judged.find(model, FRAME_AUC)) is not None
    ]
    has_videos = any(line[3] != DASH for line in lines)
    heads = ("Model", "Set", "Frame AUC [95 %]", *(("Video AUC [95 %]",) if has_videos else ()))
    return draw_console_table(heads, [line[: len(heads)] for line in lines], words=WORDS) if lines else None


def format_auc(value: float | None) -> str:
    """`0.8123`, or a dash."""
    return DASH if value is None or math.isnan(value) else f"{value:.4f}"


def _find(judged: JudgedSet, model: ModelResult, figure: str) -> FigureResult | None:
    """A figure of the set; none of videos where each is a single frame: it would be that of frames once more."""
    return None if figure == VIDEO_AUC and not judged.has_videos(model) else judged.find(model, figure)


def _build_costs(results: Results) -> Table | None:
    """The columns in which any model has something; None where there are none."""
    columns = [
        (title, [DASH if model.cost is None else show(model.cost) for model in results.models])
        for title, show in COST_COLUMNS
    ]
    columns.append((AGREEMENT, [format_value(_find_agreement(results, m), "percent") for m in results.models]))
    known = [(title, cells) for title, cells in columns if set(cells) != {DASH}]
    if not known:
        return None
    names = [say_name(model.name) for model in results.models]
    heads, cells = ("Model", *(title for title, _ in known)), (names, *(cells for _, cells in known))
    return draw_console_table(heads, list(zip(*cells, strict=True)), words=WORDS)


def _format(figure: FigureResult | None) -> str:
    """`.902 [.880, .927]`."""
    if figure is None or figure.value is None:
        return DASH
    return f"{format_value(figure.value, 'share')} {format_interval(figure.low, figure.high, 'share')}".rstrip()


def _find_agreement(results: Results, model: ModelResult, judged: JudgedSet | None = None) -> float | None:
    """With the first teacher, on the first set where they were compared."""
    teacher = next((one for one in results.models if one.role == "teacher"), None)
    if teacher is None or teacher.name == model.name:
        return None
    for one in list_sets(results) if judged is None else [judged]:
        found = find_comparison(results, model, teacher, FRAME_AUC, one)
        if found is not None:
            return found.agreement
    return None


def _list_values(results: Results, model: ModelResult) -> dict[str, object]:
    cost = model.cost
    values: dict[str, object] = {
        "model": model.name,
        "role": model.role,
        "architecture": model.architecture,
        "image_size": model.image_size,
        "parameters": None if cost is None else cost.parameters,
        "val_auc": find_validation_auc(model),
        "latency_ms": None if cost is None else cost.latency_ms,
        "latency_p95_ms": None if cost is None else cost.latency_p95_ms,
        "macs": None if cost is None else cost.macs,
        "file_bytes": None if cost is None else cost.file_bytes,
        "memory_bytes": None if cost is None else cost.memory_bytes,
        "device": None if cost is None else cost.device,
    }
    for judged in list_sets(results):
        end = f"@{judged.name}" if judged.name else ""
        for name in (FRAME_AUC, VIDEO_AUC):
            figure = judged.find(model, name) or FigureResult(value=None)
            values |= {f"{name}{end}": figure.value, f"{name}_low{end}": figure.low, f"{name}_high{end}": figure.high}
        values[f"agreement_with_teacher{end}"] = _find_agreement(results, model, judged)
    return values
