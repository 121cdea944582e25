"""The first line of a verdict: short enough to be read in passing, and no bolder than the sentences below it."""

from __future__ import annotations

from lib.report.results import ModelResult, Results
from lib.report.verdict.gain import FRAME_AUC, find_role
from lib.report.verdict.sets import JudgedSet, find_comparison
from lib.report.verdict.words import CHANCE, NO_DIFFERENCE, find_side, join, say_name

MOST_SETS = 3  # that a headline names


def write_headline(results: Results, sets: list[JudgedSet]) -> str:
    """Whether distillation helped (against a control), or stage 2 as a whole; else how well the model separates, or of
    several models the highest AUC on each set.
    """
    telling = ([one for one in sets if not one.is_validation] or sets)[:MOST_SETS]
    students, controls, befores = (find_role(results, role) for role in ("distilled", "control", "before"))
    for subject, others in (("Distillation", controls), ("Stage 2 as a whole", befores)):
        if students and others:
            return _tell_gain(subject, results, students[0], others[0], telling)
    if len(results.models) == 1:
        return _tell_one(results.models[0], telling)
    return _tell_highest(results, telling)


def _tell_gain(subject: str, results: Results, a: ModelResult, b: ModelResult, sets: list[JudgedSet]) -> str:
    words: dict[str, list[str]] = {"helped": [], "hurt": [], "open": []}
    for judged in sets:
        found = find_comparison(results, a, b, FRAME_AUC, judged)
        side = "unknown" if found is None else find_side(found.difference, NO_DIFFERENCE)
        words[{"above": "helped", "below": "hurt"}.get(side, "open")].append(judged.title)
    told = [f"{word} on {join(words[word])}" for word in ("helped", "hurt") if words[word]]
    if not told:
        return f"Whether {subject[0].lower()}{subject[1:]} helped cannot be told from this data."
    left = f"; on {join(words['open'])} it cannot be told" if words["open"] else ""
    return f"{subject} {' and '.join(told)}{left}."


def _tell_one(model: ModelResult, sets: list[JudgedSet]) -> str:
    parts: list[str] = []
    for judged in sets:
        found = judged.find(model, FRAME_AUC)
        if found is not None and found.value is not None:
            weak = ", not shown to be better than chance" if find_side(found, CHANCE) in ("open", "below") else ""
            parts.append(f"{_say_short(found.value)} on {judged.title}{weak}")
    if not parts:
        return f"Nothing is known of how well {say_name(model.name)} separates real from fake."
    return f"Frame AUC {'; '.join(parts)}."


def _tell_highest(results: Results, sets: list[JudgedSet]) -> str:
    parts: list[str] = []
    for judged in sets:
        known = [
            (figure.value, model)
            for model in results.models
            if (figure := judged.find(model, FRAME_AUC)) is not None and figure.value is not None
        ]
        if known:
            value, model = max(known, key=lambda one: one[0])
            parts.append(f"{say_name(model.name)} on {judged.title} ({_say_short(value)})")
    return f"Highest frame AUC: {'; '.join(parts)}." if parts else "No model has an AUC on this data."


def _say_short(value: float) -> str:
    """`.902`; 1 is `1.000`."""
    return f"{value:.3f}".removeprefix("0")
