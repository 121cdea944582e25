"""What a verdict says of one model's ranking: does it separate real from fake, which, and under which disturbances."""

from __future__ import annotations

from dataclasses import dataclass

from lib.report.results import DisturbanceCurve, DisturbancePoint, FigureResult, ModelResult
from lib.report.verdict.sets import JudgedSet
from lib.report.verdict.words import CHANCE, find_side, join, say_auc, say_name

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
_AGAINST_CHANCE = {
    "above": "better than chance",
    "below": "worse than chance, as where its classes are the other way round",
    "open": "which cannot be told from chance (.5)",
    "unknown": "without an interval, so that whether it is better than chance cannot be told",
}


@dataclass(frozen=True)
class _Kind:
    """A kind of fake in a set, with the model's frame AUC on it."""

    title: str
    figure: FigureResult


def describe_separation(model: ModelResult, sets: list[JudgedSet]) -> list[str]:
    """Frame and video AUC on each set, and whether they are better than chance."""
    lines: list[str] = []
    for judged in sets:
        where = f"On {judged.title}{' (which chose its checkpoint, and flatters it)' if judged.is_validation else ''}"
        found = judged.find(model, FRAME_AUC)
        if found is None or found.value is None:
            why = f": {say_name(found.note)}" if found is not None and found.note else ""
            lines.append(f"{where} nothing is known of how well {say_name(model.name)} separates real from fake{why}.")
            continue
        text = (
            f"{where} {say_name(model.name)} separates real from fake with a frame AUC of "
            f"{say_auc(found, judged.say_over(model))}, {_AGAINST_CHANCE[find_side(found, CHANCE)]}"
        )
        video = judged.find(model, VIDEO_AUC)
        if video is not None and video.value is not None and judged.has_videos(model):
            text += (
                f"; by video (mean of its frames) {say_auc(video, judged.say_over(model, 'video'))}, "
                f"{_AGAINST_CHANCE[find_side(video, CHANCE)]}"
            )
        lines.append(f"{text}.")
    return lines


def describe_kinds(model: ModelResult, sets: list[JudgedSet]) -> list[str]:
    """The kind of fake that it finds hardest against the easiest; nothing where there are not two."""
    kinds = [
        _Kind(f"{say_name(kind)} ({judged.title}{_say_novelty(kind, judged, sets)})", figure)
        for judged in sets
        for kind, figure in judged.list_kinds(model).items()
    ]
    if len(kinds) < 2:
        return []
    hardest = min(kinds, key=lambda kind: kind.figure.value or 0.0)
    easiest = max(kinds, key=lambda kind: kind.figure.value or 0.0)
    hard, easy = (f"{kind.title}, frame AUC {say_auc(kind.figure)}" for kind in (hardest, easiest))
    if _is_apart(hardest.figure, easiest.figure):
        text = f"{say_name(model.name)} is worse at some kinds of fake than at others: worst at {hard}, best at {easy}."
    else:
        text = (
            f"Whether {say_name(model.name)} is worse at some kinds of fake than at others cannot be told from these "
            f"intervals: lowest for {hard}, highest for {easy}."
        )
    blind = [kind.title for kind in kinds if find_side(kind.figure, CHANCE) in ("open", "below")]
    if blind:
        text += f" It is not shown to be better than chance at {join(blind)}."
    return [text]


def describe_robustness(model: ModelResult) -> list[str]:
    """The disturbance and strength at which its frame AUC is lowest, beside the undisturbed pictures."""
    worst: tuple[DisturbanceCurve, DisturbancePoint] | None = None
    lowest = float("inf")
    for curve in model.robustness:
        for point in curve.points[1:]:  # the first one is no disturbance at all
            if point.auc.value is not None and point.auc.value < lowest:
                lowest, worst = point.auc.value, (curve, point)
    if worst is None:
        return []
    curve, point = worst
    without = curve.points[0].auc
    figures = f"frame AUC {say_auc(point.auc)}, against {say_auc(without)} undisturbed"
    where = f"{say_name(curve.name)} at {say_name(point.label)}"
    tried = f"of {len(model.robustness)} disturbance{'s' if len(model.robustness) > 1 else ''} tried"
    if _is_apart(point.auc, without):
        text = f"{where} harms {say_name(model.name)} most {tried}: {figures}"
    else:
        text = (
            f"That any disturbance harms {say_name(model.name)} is not shown by these intervals; lowest {tried} is "
            f"{where}: {figures}"
        )
    if find_side(point.auc, CHANCE) in ("open", "below"):
        text += "; there it is not shown to be better than chance"
    return [f"{text}."]


def _say_novelty(kind: str, judged: JudgedSet, sets: list[JudgedSet]) -> str:
    """Whether the validation that chose the model held such fakes, where that is known."""
    known = {one for each in sets if each.is_validation and each.about is not None for one in each.about.manipulations}
    return "" if not known or judged.is_validation or kind in known else "; no such fakes chose the model"


def _is_apart(lower: FigureResult, higher: FigureResult) -> bool:
    """Whether the intervals leave a gap: stricter than a test of the difference, which takes paired samples."""
    return lower.high is not None and higher.low is not None and lower.high < higher.low
