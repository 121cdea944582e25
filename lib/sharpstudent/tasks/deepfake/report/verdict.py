"""The verdict on detectors: plain sentences for a reader who reads nothing else, the most important first.

Every number stands with its interval and with what it is computed over. No sentence claims more than the interval
allows: an interval that covers 0, or chance, leaves the question open, and the sentence says so.
"""

from __future__ import annotations

from itertools import combinations, product

from sharpstudent.core.naming import clean_name
from sharpstudent.models.widths import Lighter
from sharpstudent.report.results import Role
from sharpstudent.report.sentences import (
    NO_DIFFERENCE,
    describe_as_good,
    describe_difference,
    describe_few,
    describe_seeds,
    describe_share,
    explain_open,
    find_main,
    find_role,
    find_side,
    is_of_few,
    join,
)
from sharpstudent.report.text import capitalize_first, lower_first
from sharpstudent.report.verdict import describe_costs
from sharpstudent.tasks.deepfake.report.decisions import (
    describe_group_errors,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_separation,
    describe_undecided,
    select,
)
from sharpstudent.tasks.deepfake.report.report_sets import (
    CHANCE,
    GROUP,
    ReportSet,
    exclude_validation,
    find_comparison,
    list_sets,
)
from sharpstudent.tasks.deepfake.report.results import ComparisonResult, ModelResult, Results


def write_verdict(results: Results, *, lighter: Lighter | None = None) -> tuple[str, ...]:
    """Write the verdict, without markup, one to three sentences a line.

    With roles it says whether distillation helped, what the models cost, and how far the student is from the teacher.
    Without roles it compares each pair of models. Then it says how well each model separates, the one that the report
    is about first, and what was found of that one. What limits it stands elsewhere (report/summary.py).

    Args:
        results: The results of the evaluation; their own `verdict` is not read.
        lighter: The widest student of the same family that is lighter than the teacher (`find_lighter_width`); it is
            named where this student is not.

    Returns:
        The lines.
    """
    if not results.models:
        return ("No model was evaluated.",)
    sets, main = list_sets(results), find_main(results.models)
    costs = describe_costs(results.models, unit="picture", lighter=lighter, describe_inputs=_describe_sizes)
    lines = [
        *describe_gain(results, sets),
        *costs,
        *describe_teacher_gap(results, sets),
        *describe_pairs(results, sets),
    ]
    others = [model for model in results.models if model not in main and model.seed_of is None]
    lines += [line for model in main for line in describe_separation(model, sets)]
    lines += [line for model in main for line in _describe_model(model, sets)]
    lines += [line for model in others for line in describe_separation(model, sets)]
    return (*lines, *select(describe_undecided(results.models, sets), limits=False))


def write_headed_verdict(results: Results, *, lighter: Lighter | None = None) -> tuple[str, ...]:
    """Write a headline and the sentences of `write_verdict`, as reports and the console show them.

    Args:
        results: The results of the evaluation.
        lighter: As in `write_verdict`.

    Returns:
        The lines.
    """
    return (write_headline(results, list_sets(results)), *write_verdict(results, lighter=lighter))


def _describe_model(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    """Write what was found of a model and does not limit it."""
    findings = [*describe_kinds(model, sets), *describe_robustness(model)]
    findings += [*describe_probabilities(model, exclude_validation(sets)), *describe_group_errors(model)]
    return select(findings, limits=False)


def _describe_sizes(one: ModelResult, other: ModelResult) -> str:
    return "" if one.image_size == other.image_size else f", of {one.image_size} and {other.image_size} px"


FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
MANY = 5  # from this many comparisons on, a sentence warns of differences by chance alone
# By the role of the model that a distilled one is compared with: the subject of the sentence, and words for how that
# model was trained.
_AGAINST: dict[Role, tuple[str, str]] = {
    "control": ("Distillation", "took as many further steps with hard labels"),
    "before": ("Stage 2 as a whole", "took fewer steps"),
}
_VIDEO_WORDS = {
    "above": "above 0",
    "below": "below 0",
    "open": "inconclusive",
    "few": "inconclusive",
    "unknown": "inconclusive",
}


def describe_gain(results: Results, sets: list[ReportSet]) -> list[str]:
    """Say whether distillation helped, for each distilled model and each set that selected nothing.

    Args:
        results: The results of the evaluation.
        sets: The sets of the results.

    Returns:
        Sentences.
    """
    controls, befores = find_role(results.models, "control"), find_role(results.models, "before")
    lines: list[str] = []
    for student in find_role(results.models, "distilled"):
        if not controls and not befores:
            lines.append(
                f"Is distillation worth anything for {clean_name(student.name)}? Inconclusive: neither the student "
                "before stage 2 nor a control was evaluated beside it."
            )
            continue
        for dataset in exclude_validation(sets):
            for role, (subject, which) in _AGAINST.items():
                for other in find_role(results.models, role):
                    lines.append(_describe_help(subject, which, results, student, other, dataset))
        if not controls:
            lines.append(
                "How much of that is due to the teacher is inconclusive, because stage 2 also trained longer. A "
                "control with hard labels for as many further steps would show it."
            )
    if lines and (seeds := describe_seeds(results.comparisons)):
        lines.append(seeds)
    return lines


def describe_teacher_gap(results: Results, sets: list[ReportSet]) -> list[str]:
    """Say how far each distilled student is from each teacher, and how often the two agree.

    Args:
        results: The results of the evaluation.
        sets: The sets of the results.

    Returns:
        Sentences.
    """
    pairs = product(
        find_role(results.models, "distilled"), find_role(results.models, "teacher"), exclude_validation(sets)
    )
    return [
        _describe_gap(results, student, teacher, dataset, found)
        for student, teacher, dataset in pairs
        if (found := find_comparison(results, student, teacher, FRAME_AUC, dataset)) is not None
    ]


def describe_pairs(results: Results, sets: list[ReportSet]) -> list[str]:
    """Say which of two models separates better, for all pairs that the roles say nothing about.

    Args:
        results: The results of the evaluation.
        sets: The sets of the results.

    Returns:
        Sentences.
    """
    lines = [
        _describe_pair(results, a, b, dataset, found)
        for (a, b), dataset in product(combinations(results.models, 2), sets)
        if "model" in (a.role, b.role) and (found := find_comparison(results, a, b, FRAME_AUC, dataset)) is not None
    ]
    if len(lines) >= MANY:
        lines.append(
            f"These are {len(lines)} comparisons: of those where nothing differs, about one in twenty leaves 0 out of "
            "its interval by chance alone."
        )
    return lines


def _describe_help(
    subject: str, which: str, results: Results, a: ModelResult, b: ModelResult, dataset: ReportSet
) -> str:
    found, question = find_comparison(results, a, b, FRAME_AUC, dataset), lower_first(subject)
    asked = f"Did {question} help on {_name_set(dataset)}? Inconclusive"
    if found is None:
        return f"{asked}: {clean_name(a.name)} and {clean_name(b.name)} were not compared on the same samples."
    difference = describe_difference(found.difference, dataset.describe_size(a))
    details = f"frame AUC {difference} against {clean_name(b.name)}, which {which}"
    video, side = _describe_video(results, a, b, dataset), find_side(found.difference, NO_DIFFERENCE)
    if side in ("above", "below"):
        return f"{subject} {'helped' if side == 'above' else 'hurt'} on {_name_set(dataset)}: {details}.{video}"
    good = describe_as_good(found, (clean_name(a.name), clean_name(b.name)))
    why = explain_open(found.difference, "0", GROUP)
    return f"{asked}: {why}. {capitalize_first(details)}{good}.{video}"


_GAPS = {"above": "The student is ahead of its teacher", "below": "The student is behind its teacher"}


def _describe_gap(
    results: Results, student: ModelResult, teacher: ModelResult, dataset: ReportSet, found: ComparisonResult
) -> str:
    side, where = find_side(found.difference, NO_DIFFERENCE), _name_set(dataset)
    details = f"frame AUC {describe_difference(found.difference, dataset.describe_size(student))}"
    if several := len(find_role(results.models, "teacher")) > 1:
        details += f" against {clean_name(teacher.name)}"
    if side in _GAPS:
        text = f"{_GAPS[side]} on {where}: {details}."
    else:
        why = explain_open(found.difference, "0", GROUP)
        equal = ", which is not to say that they are equal" if side == "open" else ""
        good = describe_as_good(found, ("the student", "its teacher")) if side == "open" else ""
        start = f"Is the student{' or that teacher' if several else ' or its teacher'} better on {where}?"
        text = f"{start} Inconclusive: {why}{equal}. {capitalize_first(details)}{good}."
    agreement = f"They call {describe_share(found.agreement)} of the frames alike, at a probability of one half."
    return f"{text}{_describe_video(results, student, teacher, dataset)} {agreement}"


def _describe_pair(
    results: Results, a: ModelResult, b: ModelResult, dataset: ReportSet, found: ComparisonResult
) -> str:
    side = find_side(found.difference, NO_DIFFERENCE)
    if side == "below":
        a, b = b, a
        turned = find_comparison(results, a, b, FRAME_AUC, dataset)
        assert turned is not None
        found = turned
    details = f"difference in frame AUC {describe_difference(found.difference, dataset.describe_size(a))}"
    names, where = (clean_name(a.name), clean_name(b.name)), _name_set(dataset)
    if side in ("above", "below"):
        text = f"{names[0]} separates real from fake better than {names[1]} on {where}: {details}."
    else:
        why, good = explain_open(found.difference, "0", GROUP), describe_as_good(found, names)
        start = f"Which of {names[0]} and {names[1]} is better on {where}? Inconclusive: {why}."
        text = f"{start} {capitalize_first(details)}{good}."
    video = _describe_video(results, a, b, dataset)
    return f"{text}{video} They call {describe_share(found.agreement)} of the frames alike."


def _describe_video(results: Results, a: ModelResult, b: ModelResult, dataset: ReportSet) -> str:
    """Write a sentence on videos, with a space before it; "" where there are none."""
    found = find_comparison(results, a, b, VIDEO_AUC, dataset)
    if found is None or not dataset.has_videos(a):
        return ""
    side = find_side(found.difference, NO_DIFFERENCE)
    size = dataset.describe_size(a, "video")
    return f" By video {describe_difference(found.difference, size)}, {_VIDEO_WORDS[side]}."


def _name_set(dataset: ReportSet) -> str:
    return f"{dataset.title} (which chose the checkpoints)" if dataset.is_validation else dataset.title


MOST_SETS = 3  # that a headline names


def write_headline(results: Results, sets: list[ReportSet]) -> str:
    """Write one line: whether distillation helped, or stage 2 as a whole; else how well the models separate.

    Args:
        results: The results of the evaluation.
        sets: The sets of the results.

    Returns:
        The line.
    """
    independent = exclude_validation(sets)[:MOST_SETS]
    for role, (subject, _) in _AGAINST.items():
        if pairs := list(product(find_role(results.models, "distilled"), find_role(results.models, role))):
            return _headline_gain(subject, results, *pairs[0], independent)
    if len(results.models) == 1:
        return _headline_single(results.models[0], independent)
    return _headline_highest(results, independent)


def _headline_gain(subject: str, results: Results, a: ModelResult, b: ModelResult, sets: list[ReportSet]) -> str:
    words: dict[str, list[str]] = {"helped": [], "hurt": [], "open": []}
    for dataset in sets:
        found = find_comparison(results, a, b, FRAME_AUC, dataset)
        side = "unknown" if found is None else find_side(found.difference, NO_DIFFERENCE)
        why = "" if found is None or side != "few" else f" ({describe_few(found.difference, GROUP)})"
        words[{"above": "helped", "below": "hurt"}.get(side, "open")].append(f"{dataset.title}{why}")
    parts = [f"{word} on {join(words[word])}" for word in ("helped", "hurt") if words[word]]
    left = f", inconclusive on {join(words['open'])}" if words["open"] else ""
    if not parts:
        few = f": {join(words['open'])}" if any(" (it rests on " in title for title in words["open"]) else ""
        return f"Whether {lower_first(subject)} helped is inconclusive on this data{few}."
    return f"{subject} {' and '.join(parts)}{left}."


def _headline_single(model: ModelResult, sets: list[ReportSet]) -> str:
    parts: list[str] = []
    for dataset in sets:
        found = dataset.find(model, FRAME_AUC)
        if found is not None and found.value is not None:
            side = find_side(found, CHANCE)
            weak = ", not shown to be better than chance" if side in ("open", "below", "few") else ""
            weak += f": {describe_few(found, GROUP)}" if side == "few" else ""
            parts.append(f"{_format_short(found.value)} on {dataset.title}{weak}")
    if not parts:
        return f"Nothing is known of how well {clean_name(model.name)} separates real from fake."
    return f"Frame AUC {'; '.join(parts)}."


def _headline_highest(results: Results, sets: list[ReportSet]) -> str:
    parts: list[str] = []
    for dataset in sets:
        known = [
            (estimate.value, model)
            for model in results.models
            if (estimate := dataset.find(model, FRAME_AUC)) is not None and estimate.value is not None
        ]
        if known:
            value, model = max(known, key=lambda one: one[0])
            found = dataset.find(model, FRAME_AUC)
            why = f"; {describe_few(found, GROUP)}" if found is not None and is_of_few(found) else ""
            parts.append(f"{clean_name(model.name)} on {dataset.title} ({_format_short(value)}{why})")
    return f"Highest frame AUC: {'; '.join(parts)}." if parts else "No model has an AUC on this data."


def _format_short(value: float) -> str:
    """Format an AUC, `.902`; 1 gives `1.000`."""
    return f"{value:.3f}".removeprefix("0")
