"""The front matter of a model card: YAML that model hubs read, with the results as a model index."""

from __future__ import annotations

import re
from typing import Any

import yaml

from lib.report.results import FigureResult, ModelResult, Results
from lib.report.verdict.sets import JudgedSet, list_sets
from lib.report.verdict.words import say_name

LIBRARY = "sharpstudent"
TASK = "image-classification"
OTHER = "other"
# Figure, what hubs call its type, its name for readers.
METRICS = (
    ("frame_auc", "roc_auc", "Frame AUC"),
    ("video_auc_mean", "roc_auc", "Video AUC (mean of frames)"),
    ("frame_ap", "average_precision", "Frame average precision"),
    ("frame_eer", "equal_error_rate", "Frame equal error rate"),
    ("frame_accuracy_at_half", "accuracy", "Frame accuracy at a probability of one half"),
    ("frame_ece", "expected_calibration_error", "Frame expected calibration error"),
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def render_front(results: Results, model: ModelResult, *, licence: str, training_data: str | None) -> str:
    """Between two lines of `---`, ending in a newline."""
    index = _list_results(results, model)
    front: dict[str, Any] = {"license": licence}
    if licence == OTHER:
        front["license_name"] = "see-the-card"
    front |= {"library_name": LIBRARY, "pipeline_tag": TASK, "tags": _list_tags(model)}
    if training_data is not None and _HUB_ID.fullmatch(training_data):
        front["datasets"] = [training_data]
    if index:
        front["metrics"] = list(dict.fromkeys(one["type"] for part in index for one in part["metrics"]))
        front["model-index"] = [{"name": say_name(model.name), "results": index}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _list_tags(model: ModelResult) -> list[str]:
    tags = ["deepfake-detection", "pytorch"]
    tags += ["knowledge-distillation"] if model.role == "distilled" else []
    return tags + ([] if model.architecture is None else [say_name(model.architecture)])


def _list_results(results: Results, model: ModelResult) -> list[dict[str, Any]]:
    """One entry a set, then one for each of its kinds of fake."""
    found: list[dict[str, Any]] = []
    for judged in list_sets(results):
        of_set = {figure: judged.find(model, figure) for figure, _, _ in METRICS}
        found += _make_entry(judged, None, of_set)
        for kind, auc in judged.list_kinds(model).items():
            found += _make_entry(judged, kind, {"frame_auc": auc})
    return found


def _make_entry(judged: JudgedSet, kind: str | None, figures: dict[str, FigureResult | None]) -> list[dict[str, Any]]:
    metrics = [
        {"type": hub_type, "value": figure.value, "name": f"{title}{_say_interval(figure)}", "verified": False}
        for name, hub_type, title in METRICS
        if (figure := figures.get(name)) is not None and figure.value is not None
    ]
    if not metrics:
        return []
    dataset: dict[str, Any] = {"name": judged.title, "type": _to_slug(judged.title)}
    if kind is not None:
        dataset |= {"name": f"{judged.title}: {say_name(kind)} against all reals", "config": say_name(kind)}
    if judged.about is not None and judged.about.split:
        dataset["split"] = say_name(judged.about.split)
    return [{"task": {"type": TASK, "name": "Real or fake"}, "dataset": dataset, "metrics": metrics}]


def _say_interval(figure: FigureResult) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f" (95 % interval {figure.low:.4f} to {figure.high:.4f})"


def _to_slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
