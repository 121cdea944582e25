"""The models side by side, for a console of 80 columns, as Markdown, and as CSV in full precision.

First comes the two-stage guide's table (Model | Parameters | Val AUC | Inference time), then further columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from sharpstudent.core.naming import clean_name, escape_markdown, format_csv
from sharpstudent.report.results import MetricValue
from sharpstudent.report.text import DASH, format_estimate, format_value
from sharpstudent.report.text_table import draw_console_table, drop_empty, list_costs, list_guide_columns, to_markdown
from sharpstudent.tasks.deepfake.report.guide import find_validation_auc
from sharpstudent.tasks.deepfake.report.report_sets import ReportSet, find_comparison, list_sets
from sharpstudent.tasks.deepfake.report.results import ModelResult, Results

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
WORDS = ("Model", "Set")  # heads of columns of names


def render_tables(results: Results) -> tuple[Table, ...]:
    """Build the tables for the console: the guide's; AUC with intervals by model and set; further costs and agreement.

    Agreement is how often a model decides as its teacher, at a probability of one half, on the first set.
    """
    guide, aucs, further = _list_guide(results), _list_aucs(results), _list_further(results)
    tables = [guide, aucs, {"Model": guide["Model"], **further} if further else {}]
    return tuple(draw_console_table(columns, words=WORDS) for columns in tables if columns)


def render_markdown(results: Results) -> str:
    """Write all columns into one Markdown table, ending in a newline; names that users gave are escaped."""
    aucs = {
        f"{escape_markdown(dataset.title)}: {title} AUC [95 %]": [
            format_estimate(_find(dataset, model, name), "share") for model in results.models
        ]
        for dataset in list_sets(results)
        for title, name in (("frame", FRAME_AUC), ("video", VIDEO_AUC))
    }
    return to_markdown({**_list_guide(results), **drop_empty(aucs), **_list_further(results)}, words=WORDS)


def render_csv(results: Results) -> str:
    """Write a line a model with numbers in full; what is not known is empty, and columns of a set end in @SET."""
    lines = [_list_values(results, model) for model in results.models]
    heads = list(dict.fromkeys(key for line in lines for key in line))
    return format_csv([heads, *([line.get(head) for head in heads] for line in lines)])


def _list_guide(results: Results) -> dict[str, list[str]]:
    values = [format_auc(find_validation_auc(model)) for model in results.models]
    return list_guide_columns(results.models, values, metric="Val AUC")


def _list_aucs(results: Results) -> dict[str, Sequence[str]]:
    """List the AUCs, a line a model and set."""
    lines = [
        (clean_name(model.name), dataset.title, *(format_estimate(estimate, "share") for estimate in (frame, video)))
        for model in results.models
        for dataset in list_sets(results)
        if (frame := dataset.find(model, FRAME_AUC)) is not None
        for video in [_find(dataset, model, VIDEO_AUC)]
    ]
    heads = ("Model", "Set", "Frame AUC [95 %]", "Video AUC [95 %]")
    columns = zip(*lines, strict=True) if lines else [()] * len(heads)
    return drop_empty(dict(zip(heads, columns, strict=True)))


def _list_further(results: Results) -> dict[str, Sequence[str]]:
    """List the rest of the cost and the agreement with the teacher, without empty columns."""
    agreement = [format_value(_find_agreement(results, model), "percent") for model in results.models]
    return drop_empty(list_costs(results.models, "MACs", "File", "Peak memory", "p95") | {"As teacher": agreement})


def format_auc(value: float | None) -> str:
    """Format an AUC, `0.8123`, or a dash."""
    return DASH if value is None or math.isnan(value) else f"{value:.4f}"


def _find(dataset: ReportSet, model: ModelResult, metric: str) -> MetricValue | None:
    """Find a metric of a set; video metrics are left out where each video is a single frame."""
    return None if metric == VIDEO_AUC and not dataset.has_videos(model) else dataset.find(model, metric)


def _find_agreement(results: Results, model: ModelResult, dataset: ReportSet | None = None) -> float | None:
    """Find the agreement with the first teacher, on the first set where the two were compared."""
    teacher = next((one for one in results.models if one.role == "teacher"), None)
    if teacher is None or teacher.name == model.name:
        return None
    for one in list_sets(results) if dataset is None else [dataset]:
        found = find_comparison(results, model, teacher, FRAME_AUC, one)
        if found is not None:
            return found.agreement
    return None


def _list_values(results: Results, model: ModelResult) -> dict[str, object]:
    values: dict[str, object] = {
        "model": model.name,
        "role": model.role,
        "architecture": model.architecture,
        "image_size": model.image_size,
        "parameters": None if model.cost is None else model.cost.parameters,
        "val_auc": find_validation_auc(model),
    }
    costs = ("latency_ms", "latency_p95_ms", "macs", "file_bytes", "memory_bytes", "device")
    values |= {name: getattr(model.cost, name, None) for name in costs}
    for dataset in list_sets(results):
        end = f"@{dataset.name}" if dataset.name else ""
        has_videos = any(_find(dataset, one, VIDEO_AUC) is not None for one in results.models)
        for name in (FRAME_AUC, VIDEO_AUC) if has_videos else (FRAME_AUC,):
            metric = dataset.find(model, name) or MetricValue(value=None)
            values |= {f"{name}{end}": metric.value, f"{name}_low{end}": metric.low, f"{name}_high{end}": metric.high}
        values[f"agreement_with_teacher{end}"] = _find_agreement(results, model, dataset)
    return values
