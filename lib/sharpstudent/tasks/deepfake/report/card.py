"""The model card (Mitchell et al. 2019) of an evaluation.

Text of others in the Markdown of a model card: without effect, whatever is in it.

Terms of others that a model's weights may stand under: of its data, its first weights, its teacher.

Names in the results are looked for; that none is found does not mean that there are none.

What a model card says of figures, thresholds, limits and cost.

The front matter of a model card: YAML that model hubs read, with the results as a model index.

A model card (Mitchell et al. 2019) from the results of an evaluation, in Markdown with the front matter of hubs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from sharpstudent.report.page import tell_value
from sharpstudent.report.results import FigureResult
from sharpstudent.report.text import (
    DASH,
    escape_markdown,
    format_bytes,
    format_interval,
    format_macs,
    format_milliseconds,
    format_parameters,
    format_value,
)
from sharpstudent.report.verdict import say_name
from sharpstudent.tasks.deepfake.report.decisions import (
    describe_false_alarms,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_separation,
    describe_undecided,
)
from sharpstudent.tasks.deepfake.report.judged_sets import JudgedSet, list_sets
from sharpstudent.tasks.deepfake.report.results import ModelResult, Results


def show_plain(text: str) -> str:
    """On one line, without markup."""
    return escape_markdown(text)


def show_code(text: str) -> str:
    """As code on one line, whatever backticks are in it."""
    line, ticks = " ".join(text.split()), "`" * (count_backticks(text) + 1)
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"


def count_backticks(text: str) -> int:
    """Backticks in a row, the longest."""
    return max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)


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


def list_terms(results: Results, model: ModelResult, training_data: str | None) -> list[str]:
    """Sentences, for what is named in the training data, in what the checkpoint says and in the run's config."""
    config = {} if results.config is None else dict(results.config)
    told = [training_data or "", model.file, json.dumps(dict(model.trained), default=str, ensure_ascii=False)]
    told += [json.dumps(config.get(key), default=str) for key in ("student", "teachers", "task_section")]
    told += [data.name for data in results.data if data.kind == "validation"]
    told += [one.file for one in results.models if one.role == "teacher" and model.role == "distilled"]
    text = " ".join(told).lower().replace("_", " ")
    return [sentence for pattern, sentence in _TERMS if re.search(pattern, text)]


_ROWS = (
    ("Frame AUC", "frame_auc", "share"),
    ("Frame AP", "frame_ap", "share"),
    ("Frame EER", "frame_eer", "percent"),
    ("TPR at 1 % FPR", "frame_tpr_at_fpr_1pct", "percent"),
    ("ECE", "frame_ece", "share"),
    ("ECE after temperature", "frame_ece_calibrated", "share"),
    ("Video AUC (mean)", "video_auc_mean", "share"),
    ("Video EER (mean)", "video_eer_mean", "percent"),
)


def tell_figures(model: ModelResult, sets: Sequence[JudgedSet]) -> str:
    """The sentences of the verdict, then a table a set: figures with intervals, and the kinds of fake."""
    parts = [show_plain(line) for line in describe_separation(model, list(sets))]
    for judged in sets:
        rows = [(title, _format(judged.find(model, name), unit)) for title, name, unit in _ROWS]
        rows += [
            (f"Frame AUC, {show_plain(kind)}", _format(one, "share")) for kind, one in judged.list_kinds(model).items()
        ]
        known = [row for row in rows if row[1] != DASH]
        if known:
            cells = "\n".join(f"| {title} | {text} |" for title, text in known)
            over = judged.say_over(model)
            title = f"**{show_plain(judged.title)}**{f', {over}' if over else ''}"
            parts.append(f"{title}\n\n| Figure | [95 %] |\n|---|---|\n{cells}")
    return "\n\n".join(parts)


def tell_thresholds(model: ModelResult, sets: Sequence[JudgedSet]) -> str:
    parts: list[str] = []
    if model.calibration is None:
        parts.append("No thresholds and no temperature are stored with this model: 0.5 is no chosen threshold.")
    else:
        rows = [
            f"| {level} | {show_plain(name)} | {point.threshold:+.4f} | {point.tpr:.3f} | {point.fpr:.4f} |"
            for level, named in model.calibration.operating_points.items()
            for name, point in named.items()
        ]
        parts.append(
            "A sample is called fake where its log-odds, logit of fake minus logit of real before any temperature, "
            "reach the threshold. TPR and FPR are those on the validation data that chose it: new data may give worse "
            "ones.\n\n| Of | Chosen for | Threshold [log-odds] | TPR | FPR |\n|---|---|---:|---:|---:|\n"
            + "\n".join(rows)
        )
        parts.append(f"Temperature: {model.calibration.temperature:.4f}.")
    parts += [show_plain(line) for line in describe_false_alarms(model, list(sets))]
    parts += [show_plain(line) for line in describe_probabilities(model, list(sets))]
    return "\n\n".join(parts)


def tell_limits(results: Results, model: ModelResult, sets: Sequence[JudgedSet]) -> str:
    lines = [
        "It sees one face crop at a time. Faces are found by YuNet; what YuNet does not find is not judged, and a "
        "frame without a face has no decision, which is not to say that it is real.",
        "A detector is good at the kinds of fake that it learnt from and may be blind to others, new ones above all.",
        *(show_plain(line) for line in describe_kinds(model, list(sets))),
    ]
    robust = describe_robustness(model)
    lines += [show_plain(line) for line in robust] or [
        "How it stands compression, blur and other disturbances was not measured here."
    ]
    lines += [show_plain(line) for line in describe_undecided((model,), list(sets))]
    lines += [
        "Whether it errs more often on some groups of people than on others was not measured.",
        "Intervals are over the people of each set, at one training: another seed would give other figures.",
        *(show_plain(note) for note in (*model.notes, *_take_own(results, model))),
    ]
    return "\n".join(f"- {line}" for line in lines)


def tell_cost(model: ModelResult) -> str:
    cost = model.cost
    if cost is None:
        return "Not measured. Energy and emissions of training were not recorded."
    latency = format_milliseconds(cost.latency_ms)
    if cost.latency_p95_ms is not None:
        latency += f", 95th percentile {format_milliseconds(cost.latency_p95_ms)}"
    lines = [
        f"parameters: {format_parameters(cost.parameters)}",
        f"multiply-accumulates a picture: {format_macs(cost.macs)}",
        f"file: {format_bytes(cost.file_bytes)}",
        f"one picture, batch 1: {latency}, on {show_plain(cost.device)}",
        f"peak memory beyond the process: {format_bytes(cost.memory_bytes)}",
        *map(show_plain, cost.notes),
        "energy and emissions of training were not recorded",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _format(figure: FigureResult | None, unit: str) -> str:
    if figure is None or figure.value is None:
        return DASH
    kind = "percent" if unit == "percent" else "share"
    return f"{format_value(figure.value, kind)} {format_interval(figure.low, figure.high, kind)}".rstrip()


def _take_own(results: Results, model: ModelResult) -> list[str]:
    """The notes of the results without those of other models, which begin with their names."""
    others = tuple(f"{other.name}: " for other in results.models if other is not model)
    return [note for note in results.notes if not note.startswith(others or "\0")]


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


CODE_LICENCE = "Apache-2.0"
REFERENCES = (
    "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531.",
    "Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization for Efficiently Improving Generalization, 2020, "
    "arXiv 2010.01412.",
    "Mehta, Rastegari: Separable Self-attention for Mobile Vision Transformers, 2022, arXiv 2206.02680.",
    "Shiohara, Yamasaki: Detecting Deepfakes with Self-Blended Images, CVPR 2022, arXiv 2204.08376.",
)


def render_model_card(
    results: Results, model: ModelResult, *, licence: str = OTHER, training_data: str | None = None
) -> str:
    """README.md of a model on a hub. licence: of the weights, as hubs name it; training_data: what it learnt from, in
    words or as a hub's name of a data set. Names that users gave stay without effect in Markdown and YAML.
    """
    sets = list_sets(results)
    parts = {
        "": _tell_what(results, model),
        "How to use it": _tell_use(model),
        "Intended use": _tell_purpose(),
        "Training data": _tell_data(results, model, training_data),
        "Figures": tell_figures(model, sets),
        "Thresholds and probabilities": tell_thresholds(model, sets),
        "Limits": tell_limits(results, model, sets),
        "Cost": tell_cost(model),
        "Licence": _tell_licence(results, model, licence, training_data),
        "References": "\n".join(f"- {line}" for line in REFERENCES),
    }
    front = render_front(results, model, licence=licence, training_data=training_data)
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in parts.items())
    return f"{front}\n{body}\n"


def _tell_what(results: Results, model: ModelResult) -> str:
    stage = {
        "teacher": "a teacher",
        "before": "a student trained on hard labels (stage 1)",
        "distilled": "a student distilled from a teacher (stage 2)",
        "control": "a student trained on hard labels for as many steps as stage 2 takes",
        "model": "a model",
    }[model.role]
    size = "a size that is not known" if model.image_size is None else f"{model.image_size} x {model.image_size} px"
    name = model.architecture
    architecture = "an architecture that is not known" if name is None else show_code(name)
    sha256 = "" if model.sha256 is None else f"- sha256: {show_code(model.sha256)}\n"
    trained = "".join(f"- {show_plain(key)}: {show_plain(tell_value(value))}\n" for key, value in model.trained.items())
    return (
        f"# {show_plain(model.name)}\n\n"
        f"Tells real faces from manipulated ones: {stage} of SharpStudent, {architecture}, for face crops of {size}. "
        f"Two outputs, real and fake.\n\n"
        f"- file: {show_code(model.file)}\n{sha256}{trained}"
        f"- evaluated: {show_plain(results.made_at)}"
    )


def _tell_use(model: ModelResult) -> str:
    """Code that runs in this repository, beside the file."""
    fence = "`" * max(3, count_backticks(model.file) + 1)
    size = model.image_size or 224
    given = [] if model.image_size is not None else [f"image_size={size}"]
    spec = ", ".join([f"Path({model.file!r})", *given])
    lines = [
        "from pathlib import Path",
        "",
        "import torch",
        "",
        "from sharpstudent.evaluation.load_model import ModelFile, open_model",
        "",
        f'opened = open_model(ModelFile({spec}), classes=("real", "fake"), device=torch.device("cpu"))',
        f"faces = torch.zeros(1, 3, {size}, {size})  # (B, 3, H, W) RGB in 0..1: faces cut as prepare_faces.py does",
        "with torch.no_grad():",
        '    logits = opened.model(faces)["logits"]  # (B, 2): real, fake',
    ]
    if model.calibration is not None:
        lines.append(f"probability = (logits / {model.calibration.temperature!r}).softmax(dim=1)[:, 1]  # of fake")
    else:
        lines.append("probability = logits.softmax(dim=1)[:, 1]  # of fake")
    code = "\n".join(lines)
    return (
        f"In a checkout of SharpStudent, with its environment:\n\n{fence}python\n{code}\n{fence}\n\n"
        "Folders of pictures, videos or prepared faces, with the report that this card is part of: "
        "`python evaluate_model.py FILE --data FOLDER`. A `.safetensors` file holds the same tensors without a pickle."
    )


def _tell_purpose() -> str:
    return (
        "For research, for comparing detectors, and as one sign among others where people check pictures.\n\n"
        "Not intended: as proof of anything. A score says that a face resembles what the model has learnt to call real "
        "or fake; it is no ground for an accusation, for a judgement on a person, or for removing a picture without "
        "somebody looking at it. A low score does not show that a picture is real. Not for finding out who somebody is."
    )


def _tell_data(results: Results, model: ModelResult, training_data: str | None) -> str:
    lines = [show_plain(training_data) if training_data else "What it was trained on, the results do not say in words."]
    if results.config is not None and isinstance(section := results.config.get("task_section"), dict):
        named = [
            f"{show_plain(str(key))} {show_code(str(section[key]))}"
            for key in ("data_source", "fakes")
            if key in section
        ]
        lines += [f"From the run's config: {', '.join(named)}."] if named else []
    if model.calibration is not None:
        lines.append(f"Thresholds and temperature were chosen on {show_plain(model.calibration.fitted_on)}.")
    lines += [
        f"Its validation data, {show_plain(data.name)}, which chose the checkpoint: {data.real:,} real and "
        f"{data.fake:,} fake frames of {data.people:,} people."
        for data in results.data
        if data.kind == "validation"
    ]
    return "\n".join(f"- {line}" for line in lines)


def _tell_licence(results: Results, model: ModelResult, licence: str, training_data: str | None) -> str:
    weights = (
        "Whoever publishes these weights must say under which licence; nothing is granted here."
        if licence == OTHER
        else f"Weights: {show_plain(licence)}, as far as the terms below allow."
    )
    terms = list_terms(results, model, training_data)
    found = "\n".join(f"- {line}" for line in terms)
    if not terms:
        found = "- No terms of others were recognised by name; that does not mean that there are none."
    return (
        f"Code: {CODE_LICENCE}. {weights} The licence of the code says nothing of the weights: data sets, a teacher "
        "and pretrained weights have terms of their own, and research-only terms follow what is made from them."
        f"\n\n{found}"
    )
