"""A model card (Mitchell et al. 2019) from the results of an evaluation, in Markdown with the front matter of hubs."""

from __future__ import annotations

from lib.report.card.figures import tell_cost, tell_figures, tell_limits, tell_thresholds
from lib.report.card.front import OTHER, render_front
from lib.report.card.terms import list_terms
from lib.report.card.text import count_backticks, show_code, show_plain
from lib.report.page.calibration import tell_value
from lib.report.results import ModelResult, Results
from lib.report.verdict.sets import list_sets

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
        "from lib.engine.open_model import ModelSpec, open_model",
        "",
        f'opened = open_model(ModelSpec({spec}), classes=("real", "fake"), device=torch.device("cpu"))',
        f"faces = torch.zeros(1, 3, {size}, {size})  # (B, 3, H, W) RGB in 0..1: faces cut as prepare_faces.py does",
        "with torch.no_grad():",
        "    logits = opened.model(faces).logits  # (B, 2): real, fake",
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
