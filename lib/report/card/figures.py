"""What a model card says of figures, thresholds, limits and cost."""

from __future__ import annotations

from collections.abc import Sequence

from lib.report.card.text import show_plain
from lib.report.comparison import format_milliseconds, format_parameters
from lib.report.page.numbers import DASH, format_bytes, format_interval, format_macs, format_value
from lib.report.results import FigureResult, ModelResult, Results
from lib.report.verdict.decisions import describe_false_alarms, describe_probabilities, describe_undecided
from lib.report.verdict.separation import describe_kinds, describe_robustness, describe_separation
from lib.report.verdict.sets import JudgedSet

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
