"""A model card (Mitchell et al. 2019) from the results of an evaluation: Markdown with the front matter of model hubs.

Its text is the template `card.md.j2`. The front matter is YAML that hubs read, with the results as a model index.
The terms of others that a model's weights may stand under (of its data, its first weights, its teacher) are found by
names in the results; that none is found does not mean that there are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sharpstudent.core.naming import clean_name, escape_markdown
from sharpstudent.report import text
from sharpstudent.report.page import build_templates, format_json_value
from sharpstudent.report.results import MetricValue
from sharpstudent.report.text import DASH, format_estimate
from sharpstudent.tasks.deepfake.dataset.manifest import UNSURE
from sharpstudent.tasks.deepfake.report.decisions import (
    ModelFinding,
    describe_false_alarms,
    describe_group_errors,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_separation,
    describe_undecided,
)
from sharpstudent.tasks.deepfake.report.report_sets import ReportSet, list_sets
from sharpstudent.tasks.deepfake.report.results import ModelResult, Results

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

OTHER = "other"
_STAGES = {
    "teacher": "a teacher",
    "before": "a student trained on hard labels (stage 1)",
    "distilled": "a student distilled from a teacher (stage 2)",
    "control": "a student trained on hard labels for as many steps as stage 2 takes",
    "model": "a model",
}


def render_model_card(
    results: Results, model: ModelResult, *, licence: str = OTHER, training_data: str | None = None
) -> str:
    """Write the README.md of a model on a hub. Names that users gave have no effect as Markdown or YAML.

    Args:
        results: The results of an evaluation of the model.
        model: The model, one of the results'.
        licence: The licence of the weights, as hubs name it.
        training_data: What the model was trained on, in words or as the name of a data set on a hub.

    Returns:
        The card, ending in a newline.
    """
    sets = list_sets(results)
    templates = build_templates(__package__, is_html=False)
    templates.filters |= {"plain": escape_markdown, "code": _show_code, "repr": repr}
    findings: dict[str, list[ModelFinding]] = {
        "decisions": [*describe_false_alarms(model, sets), *describe_probabilities(model, sets)],
        "kinds": describe_kinds(model, sets),
        "robustness": describe_robustness(model),
        "undecided": describe_undecided((model,), sets),
        "by_group": describe_group_errors(model),
    }
    sentences = {
        **{name: [one.text for one in found] for name, found in findings.items()},
        "separation": describe_separation(model, sets),
        "notes": [*model.notes, *_select_own(results, model), *_list_unsure_labels(results)],
    }
    card: str = templates.get_template("card.md.j2").render(
        {name: [escape_markdown(line) for line in lines] for name, lines in sentences.items()},
        front=_render_front(results, model, licence=licence, training_data=training_data),
        results=results,
        model=model,
        sets=sets,
        stage=_STAGES[model.role],
        fence="`" * max(3, _count_backticks(model.file) + 1),
        list_metrics=lambda dataset: _list_metrics(dataset, model),
        terms=_list_terms(results, model, training_data),
        licence=licence,
        training_data=training_data,
        format_json_value=format_json_value,
        text=text,
    )
    return f"{card}\n"


def _show_code(name: str) -> str:
    """Format a name as code on one line, whatever backticks are in it."""
    line, ticks = " ".join(name.split()), "`" * (_count_backticks(name) + 1)
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"


def _count_backticks(name: str) -> int:
    """Count the backticks of the longest run of them."""
    return max(map(len, re.findall("`+", name)), default=0)


def _select_own(results: Results, model: ModelResult) -> list[str]:
    """Select the notes of the results, without those of other models, which begin with their names."""
    others = tuple(f"{other.name}: " for other in results.models if other is not model)
    return [note for note in results.notes if not note.startswith(others or "\0")]


def _list_unsure_labels(results: Results) -> list[str]:
    """List the sets in which a real bystander may be labelled fake."""
    return [f"{data.name}: {note}" for data in results.data for note in data.notes if UNSURE in note]


_TERMS: tuple[tuple[str, str], ...] = (
    (
        r"ffc23|ffraw|self.blended.images|\bsbis?\b",
        "The weights of *Detecting Deepfakes with Self-Blended Images* (Shiohara & Yamasaki) are given out for "
        "research only, not for commercial use; what learns from them inherits that question.",
    ),
    (
        r"faceforensics|\bffpp|\bff\+\+|\bffc\d|\bffraw",
        "FaceForensics++ is given out for non-commercial research, after an application; weights made from it should "
        "not be used for more.",
    ),
    (r"celeb[-_ ]?df", "Celeb-DF is given out for non-commercial research, after an application."),
    (r"\bdfdc", "The DeepFake Detection Challenge data has terms of its own, accepted at download."),
    (r"\bffiw", "FFIW-10K is given out for research, under terms of its own."),
    (r"deepfakebench", "DeepfakeBench and its weights are under CC BY-NC 4.0: no commercial use."),
    (
        r"imagenet",
        "Pretrained on ImageNet: the pictures are for non-commercial research and education; the pretrained weights "
        "have a licence of their own (timm names it for each).",
    ),
)


def _list_terms(results: Results, model: ModelResult, training_data: str | None) -> list[str]:
    """List the terms of others that apply, by names in the training data, the checkpoint and the run's config."""
    config = {} if results.config is None else dict(results.config)
    texts = [training_data or "", model.file, json.dumps(dict(model.trained), default=str, ensure_ascii=False)]
    texts += [json.dumps(config.get(key), default=str) for key in ("student", "teachers", "task_section")]
    texts += [data.name for data in results.data if data.kind == "validation"]
    texts += [one.file for one in results.models if one.role == "teacher" and model.role == "distilled"]
    text = " ".join(texts).lower().replace("_", " ")
    return [sentence for pattern, sentence in _TERMS if re.search(pattern, text)]


_ROWS: tuple[tuple[str, str, text.Unit], ...] = (
    ("Frame AUC", "frame_auc", "share"),
    ("Frame AP", "frame_ap", "share"),
    ("Frame EER", "frame_eer", "percent"),
    ("TPR at 1 % FPR", "frame_tpr_at_fpr_1pct", "percent"),
    ("ECE", "frame_ece", "share"),
    ("ECE after temperature", "frame_ece_calibrated", "share"),
    ("Video AUC (mean)", "video_auc_mean", "share"),
    ("Video EER (mean)", "video_eer_mean", "percent"),
)


def _list_metrics(dataset: ReportSet, model: ModelResult) -> list[tuple[str, str]]:
    """List the metrics of a set with their intervals, then the frame AUC of each kind of fake."""
    rows = [(title, format_estimate(dataset.find(model, name), unit)) for title, name, unit in _ROWS]
    rows += [(f"Frame AUC, {kind}", format_estimate(one, "share")) for kind, one in dataset.list_kinds(model).items()]
    return [row for row in rows if row[1] != DASH]


TASK = "image-classification"
# Metric, what hubs call its type, its name for readers.
METRICS = (
    ("frame_auc", "roc_auc", "Frame AUC"),
    ("video_auc_mean", "roc_auc", "Video AUC (mean of frames)"),
    ("frame_ap", "average_precision", "Frame average precision"),
    ("frame_eer", "equal_error_rate", "Frame equal error rate"),
    ("frame_accuracy_at_half", "accuracy", "Frame accuracy at a probability of one half"),
    ("frame_ece", "expected_calibration_error", "Frame expected calibration error"),
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def _render_front(results: Results, model: ModelResult, *, licence: str, training_data: str | None) -> str:
    """Write the front matter, as the hub's own class does: YAML between two lines of `---`, ending in a newline."""
    from huggingface_hub import ModelCardData

    index = _list_results(results, model)
    data = ModelCardData(
        license=licence,
        license_name="see-the-card" if licence == OTHER else None,
        library_name="sharpstudent",
        pipeline_tag=TASK,
        tags=_list_tags(model),
        datasets=[training_data] if training_data is not None and _HUB_ID.fullmatch(training_data) else None,
        metrics=list(dict.fromkeys(one.metric_type for one in index)) or None,
        model_name=clean_name(model.name),
        eval_results=index or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _list_tags(model: ModelResult) -> list[str]:
    tags = ["deepfake-detection", "pytorch"]
    tags += ["knowledge-distillation"] if model.role == "distilled" else []
    return tags + ([] if model.architecture is None else [clean_name(model.architecture)])


def _list_results(results: Results, model: ModelResult) -> list[EvalResult]:
    """List the entries of the model index: those of a set, then those of each of its kinds of fake."""
    found: list[EvalResult] = []
    for dataset in list_sets(results):
        of_set = {estimate: dataset.find(model, estimate) for estimate, _, _ in METRICS}
        found += _make_entry(dataset, None, of_set)
        for kind, auc in dataset.list_kinds(model).items():
            found += _make_entry(dataset, kind, {"frame_auc": auc})
    return found


def _make_entry(dataset: ReportSet, kind: str | None, estimates: Mapping[str, MetricValue | None]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    title = dataset.title if kind is None else f"{dataset.title}: {clean_name(kind)} against all reals"
    split = dataset.about.split if dataset.about is not None else None
    return [
        EvalResult(
            task_type=TASK,
            task_name="Real or fake",
            dataset_type=_to_slug(dataset.title),
            dataset_name=title,
            dataset_config=None if kind is None else clean_name(kind),
            dataset_split=clean_name(split) if split else None,
            metric_type=hub_type,
            metric_value=estimate.value,
            metric_name=f"{metric}{_format_interval(estimate)}",
            verified=False,
        )
        for name, hub_type, metric in METRICS
        if (estimate := estimates.get(name)) is not None and estimate.value is not None
    ]


def _format_interval(estimate: MetricValue) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{estimate.low:.4f}, {estimate.high:.4f}]"


def _to_slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
