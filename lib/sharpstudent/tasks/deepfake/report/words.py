"""The names of metrics and corruptions in words.

`video_tpr_at_fpr_1pct_mean@celebdf` is "TPR at 1 % FPR", of videos, of celebdf.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sharpstudent.report.text import NARROW, Unit
from sharpstudent.tasks.deepfake.report.results import CorruptionCurve, ModelResult

_RULE = r"(?:mean|max|top\d+(?:frames)?)(?:_margin)?"
_COUNT = re.compile(r"(?:count(?:_real|_fake|_without_decision)?|people_count)")
_VIDEO = re.compile(rf"(?P<base>.+)_(?P<rule>{_RULE})")
_AT_THRESHOLD = re.compile(r"(?P<what>(?:balanced_)?accuracy|(?:worst_)?apcer|bpcer)_at_(?P<threshold>.+)")
_AT_FPR = re.compile(r"tpr_at_fpr_(?P<rate>[\d.]+)pct")

Kind = Literal["ranking", "decision", "probability", "count", "other"]
_PLAIN: dict[str, tuple[str, Unit, bool | None, Kind, str]] = {
    "auc": ("AUC", "share", True, "ranking", "auc"),
    "ap": ("Average precision", "share", True, "ranking", "ap"),
    "eer": ("Equal error rate", "percent", False, "ranking", "eer"),
    "brier": ("Brier score", "share", False, "probability", "brier"),
    "ece": ("Calibration error (ECE)", "share", False, "probability", "ece"),
    "ece_expected": ("ECE of labels drawn from the probabilities", "share", None, "probability", "ece"),
    "ece_p_value": ("p of this ECE among those", "share", None, "probability", "ece"),
    "log_loss": ("Log loss", "nats", False, "probability", "log-loss"),
    "count": ("Evaluated", "count", None, "count", "counts"),
    "count_real": ("Real", "count", None, "count", "counts"),
    "count_fake": ("Fake", "count", None, "count", "counts"),
    "count_without_decision": ("Without decision", "count", None, "count", "counts"),
    "people_count": ("People", "count", None, "count", "counts"),
}
_AT: dict[str, tuple[str, bool, str]] = {
    "accuracy": ("Accuracy", True, "accuracy"),
    "balanced_accuracy": ("Balanced accuracy", True, "accuracy"),
    "apcer": ("Fakes missed (APCER)", False, "apcer"),
    "worst_apcer": ("Fakes missed, worst kind", False, "apcer"),
    "bpcer": ("Reals called fake (BPCER)", False, "apcer"),
}


@dataclass(frozen=True)
class MetricName:
    """The parts of a metric's name.

    Attributes:
        level: `frame`, `video_RULE`, `video` for counts of videos, "" for people.
        base: The name of the metric.
        suffix: The part of the data: "", `@SOURCE` or `@SOURCE/MANIPULATION`.
    """

    level: str
    base: str
    suffix: str


@dataclass(frozen=True)
class MetricLabel:
    """How a metric is named and formatted.

    Attributes:
        title: The metric's name for readers.
        unit: How values are formatted.
        rises: Whether higher values are better; None where neither direction is.
        kind: The group that it belongs to.
        entry: The entry of the glossary that explains it.
        threshold: The name of the threshold at which decisions are made; None for metrics without decisions.
    """

    title: str
    unit: Unit
    rises: bool | None
    kind: Kind
    entry: str
    threshold: str | None = None


def split_name(name: str) -> MetricName:
    """Split LEVEL_METRIC[_RULE][@SOURCE[/MANIPULATION]] into its parts (see evaluation/set_metrics.py)."""
    whole, at, part = name.partition("@")
    suffix = at + part
    if whole == "people_count":
        return MetricName("", whole, suffix)
    level, _, base = whole.partition("_")
    if level == "video" and not _COUNT.fullmatch(base) and (found := _VIDEO.fullmatch(base)):
        return MetricName(f"video_{found['rule']}", found["base"], suffix)
    return MetricName(level, base, suffix)


def find_label(base: str) -> MetricLabel:
    """Find how a metric is named; an unknown one keeps its name."""
    plain = base.removesuffix("_calibrated")
    after = "" if plain == base else ", after temperature"
    if plain in _PLAIN:
        title, unit, rises, kind, entry = _PLAIN[plain]
        return MetricLabel(f"{title}{after}", unit, rises, kind, entry)
    if found := _AT_FPR.fullmatch(base):
        return MetricLabel(f"TPR at {found['rate']}{NARROW}% FPR", "percent", True, "ranking", "tpr")
    if found := _AT_THRESHOLD.fullmatch(base):
        title, rises, entry = _AT[found["what"]]
        return MetricLabel(title, "percent", rises, "decision", entry, found["threshold"])
    return MetricLabel(base.replace("_", " "), "share", None, "other", "other")


def name_threshold(name: str) -> str:
    """Name a threshold: `half` gives "a probability of one half"; the others were chosen on validation."""
    if name == "half":
        return "a probability of one half"
    if found := re.fullmatch(r"fpr_([\d.]+)pct", name):
        return f"the threshold for {found[1]}{NARROW}% FPR"
    return {"eer": "the threshold of equal errors", "youden": "Youden's threshold"}.get(name, f"the threshold “{name}”")


def describe_level(level: str) -> str:
    """Name a level: `frame` gives "frames", `video_mean` "videos (mean of their frames)"."""
    unit, _, rule = level.partition("_")
    return f"{unit}s" if not rule else f"{unit}s ({_describe_rule(rule)})"


def describe_part(suffix: str) -> str:
    """Name a part of the data: `@celebdf/swap` gives "celebdf, swap", "" gives "all data"."""
    return suffix.removeprefix("@").replace("/", ", ", 1) or "all data"


def describe_metric(name: str) -> str:
    """Name a metric with level and part: "AUC of frames, all data"."""
    parts = split_name(name)
    return f"{find_label(parts.base).title} of {describe_level(parts.level)}, {describe_part(parts.suffix)}"


def _describe_rule(rule: str) -> str:
    margins = " log-odds" if rule.endswith("_margin") else ""
    plain = rule.removesuffix("_margin")
    if plain == "mean":
        return f"mean of their frames{',' if margins else ''}{margins}"
    if plain == "max":
        return "their highest frame"
    count = plain.removeprefix("top").removesuffix("frames")
    share = f"{count} frames" if plain.endswith("frames") else f"{count}{NARROW}%"
    return f"mean of their highest {share}{',' if margins else ''}{margins}"


def find_least(aucs: Iterable[float | None]) -> float:
    """Find where a scale of AUCs begins: at .5, or at a lower multiple of .1 where a model is worse than guessing."""
    return math.floor(10 * min([0.5, *(value for value in aucs if value is not None)])) / 10


def name_corruption(name: str) -> str:
    """Name a corruption for readers: `jpeg` gives "JPEG", `crop_jitter@swaps` "Crop jitter, swaps"."""
    base, _, part = name.partition("@")
    plain = base.replace("_", " ")
    title = {"jpeg": "JPEG", "h264": "H.264"}.get(plain, plain[:1].upper() + plain[1:])
    return f"{title}, {part}" if part else title


def name_severities(curve: CorruptionCurve) -> list[str]:
    """Return short names of the severities (K,): their numbers where each label contains its own, else the labels."""
    names = [point.label for point in curve.points]
    numbers = [f"{point.strength:g}" for point in curve.points]
    are_numbers = all(number in name for number, name in zip(numbers[1:], names[1:], strict=True))
    return [names[0], *(numbers if are_numbers else names)[1:]] if names else []


def list_corruptions(models: Sequence[ModelResult]) -> list[str]:
    """List the names of the corruptions, in the order of their first appearance."""
    return list(dict.fromkeys(curve.name for model in models for curve in model.robustness))
