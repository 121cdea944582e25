"""The verdict on detectors: plain sentences for a reader who reads nothing else, the most important first.

Every number stands with its interval and with what it is computed over. No sentence claims more than the interval
allows: an interval that covers 0, or chance, leaves the question open, and the sentence says so.
"""

from __future__ import annotations

from itertools import combinations, product

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.models.widths import Lighter
from sharpstudent.report.results import Role
from sharpstudent.report.text import lower_first
from sharpstudent.report.verdict import (
    NO_DIFFERENCE,
    describe_as_good,
    describe_costs,
    describe_difference,
    describe_few,
    describe_seeds,
    describe_share,
    explain_open,
    find_role,
    find_side,
    is_of_few,
    join,
)
from sharpstudent.tasks.deepfake.report.decisions import (
    describe_false_alarms,
    describe_group_errors,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_separation,
    describe_undecided,
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
    """Write the verdict, without markup, one or two sentences a line.

    With roles it says whether distillation helped, what the models cost, and how far the student is from the teacher.
    Without roles it compares each pair of models. Then it describes the distilled student and each model without a role
    (all models where there is none of these): how well it separates, its hardest kind of fake, its worst corruption,
    its false alarms, and whether its probabilities can be trusted. Then it says how well the other models separate, and
    last which frames have no decision.

    Args:
        results: The results of the evaluation; their own `verdict` is not read.
        lighter: The widest student of the same family that is lighter than the teacher (`find_lighter_width`); it is
            named where this student is not.

    Returns:
        The lines.
    """
    if not results.models:
        return ("No model was evaluated.",)
    sets = list_sets(results)
    few, gain = _warn_of_few(results, sets), describe_gain(results, sets)
    costs = describe_costs(results.models, unit="picture", lighter=lighter, describe_inputs=_describe_sizes)
    compared = [*gain, *(few if gain else [])]
    compared += [*costs, *describe_teacher_gap(results, sets)]
    compared += describe_pairs(results, sets)
    main = _choose_main(results)
    others = [model for model in results.models if model not in main]
    lines = compared + [line for model in main for line in describe_separation(model, sets)]
    lines += [] if gain else few
    lines += [line for model in main for line in _describe_model(model, sets)]
    lines += [line for model in others for line in describe_separation(model, sets)]
    return (*lines, *describe_undecided(results.models, sets))


def write_headed_verdict(results: Results, *, lighter: Lighter | None = None) -> tuple[str, ...]:
    """Write a headline and the sentences of `write_verdict`, as reports and the console show them.

    Args:
        results: The results of the evaluation.
        lighter: As in `write_verdict`.

    Returns:
        The lines.
    """
    return (write_headline(results, list_sets(results)), *write_verdict(results, lighter=lighter))


def _choose_main(results: Results) -> list[ModelResult]:
    chosen = find_role(results.models, "distilled") + find_role(results.models, "model")
    return chosen or list(results.models)


def _describe_model(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    independent = exclude_validation(sets)
    return [
        *describe_kinds(model, sets),
        *describe_robustness(model),
        *describe_false_alarms(model, independent),
        *describe_probabilities(model, independent),
        *describe_group_errors(model),
    ]


def _warn_of_few(results: Results, sets: list[ReportSet]) -> list[str]:
    """Say which sets have too few people for any claim (metrics/intervals.py)."""
    counts = {dataset.title: dataset.count(results.models[0], "people_count") for dataset in sets}
    few = {title: count for title, count in counts.items() if count is not None and count < FEWEST_GROUPS}
    return [
        f"{title} has only {format_count_of(count, 'person')}: a claim needs {FEWEST_GROUPS}."
        for title, count in few.items()
    ]


def _describe_sizes(one: ModelResult, other: ModelResult) -> str:
    return "" if one.image_size == other.image_size else f", of {one.image_size} and {other.image_size} px"


FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
MANY = 5  # from this many comparisons on, a sentence warns of differences by chance alone
# By the role of the model that a distilled one is compared with: the subject of the sentence, and words for how that
# model was trained.
_AGAINST: dict[Role, tuple[str, str]] = {
    "control": ("Distillation", "took as many further steps with hard labels"),
    "before": ("Stage 2 as a whole", "has taken fewer steps"),
}
_VIDEO_WORDS = {
    "above": "above 0",
    "below": "below 0",
    "open": "which cannot be distinguished from 0",
    "few": "from which nothing is claimed",
    "unknown": "without an interval",
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
                f"Whether distillation is worth anything for {clean_name(student.name)} cannot be told: neither the "
                "student before stage 2 nor a control was evaluated beside it."
            )
            continue
        for dataset in exclude_validation(sets):
            for role, (subject, which) in _AGAINST.items():
                for other in find_role(results.models, role):
                    who = f"{clean_name(student.name)} minus {clean_name(other.name)}, which {which}"
                    lines.append(_describe_help(subject, who, results, student, other, dataset))
        if not controls:
            lines.append(
                "How much of that is due to the teacher cannot be told, because stage 2 also trained longer: a control "
                "with hard labels for as many further steps would show it."
            )
    if lines and any(model.role in ("control", "before") for model in results.models):
        lines.append(describe_seeds(results.comparisons))
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
    if lines and not any(model.role == "distilled" for model in results.models):
        lines.append(describe_seeds(results.comparisons))
    return lines


def _describe_help(subject: str, who: str, results: Results, a: ModelResult, b: ModelResult, dataset: ReportSet) -> str:
    found, question = find_comparison(results, a, b, FRAME_AUC, dataset), lower_first(subject)
    if found is None:
        return (
            f"Did {question} help on {_name_set(dataset)}? This cannot be told: {clean_name(a.name)} and "
            f"{clean_name(b.name)} were not compared on the same samples."
        )
    details = f"frame AUC of {who}: {describe_difference(found.difference, dataset.describe_size(a))}"
    video = _describe_video(results, a, b, dataset)
    side = find_side(found.difference, NO_DIFFERENCE)
    if side in ("above", "below"):
        return f"{subject} {'helped' if side == 'above' else 'hurt'} on {_name_set(dataset)}: {details}{video}."
    why = explain_open(found.difference, "0", GROUP)
    good = describe_as_good(found, (clean_name(a.name), clean_name(b.name)))
    return f"Did {question} help on {_name_set(dataset)}? This cannot be told, {why}: {details}{good}{video}."


def _describe_gap(
    results: Results, student: ModelResult, teacher: ModelResult, dataset: ReportSet, found: ComparisonResult
) -> str:
    pair = f"{clean_name(student.name)} minus {clean_name(teacher.name)}"
    details = f"frame AUC of {pair}: {describe_difference(found.difference, dataset.describe_size(student))}"
    words = {
        "above": "The student is ahead of its teacher",
        "below": "The student is behind its teacher",
        "open": "Student and teacher cannot be told apart",
        "few": f"How far the student is from its teacher cannot be told, {explain_open(found.difference, '0', GROUP)}:",
        "unknown": "How far the student is from its teacher cannot be told, there is no interval",
    }
    limit = ""
    if (side := find_side(found.difference, NO_DIFFERENCE)) == "open":
        limit = ", which is not to say that they are equal"
    where = _name_set(dataset)
    good = describe_as_good(found, ("the student", "its teacher")) if side == "open" else ""
    text = f"{words[side]} on {where}{limit}: {details}{good}{_describe_video(results, student, teacher, dataset)}."
    return f"{text} They call {describe_share(found.agreement)} of the frames alike, at a probability of one half."


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
    video = _describe_video(results, a, b, dataset)
    names, where = (clean_name(a.name), clean_name(b.name)), _name_set(dataset)
    if side in ("above", "below"):
        text = f"{names[0]} separates real from fake better than {names[1]} on {where}: {details}{video}."
    else:
        why, good = explain_open(found.difference, "0", GROUP), describe_as_good(found, names)
        text = f"Which of {names[0]} and {names[1]} is better on {where} cannot be told, {why}: {details}{good}{video}."
    return f"{text} They call {describe_share(found.agreement)} of the frames alike."


def _describe_video(results: Results, a: ModelResult, b: ModelResult, dataset: ReportSet) -> str:
    found = find_comparison(results, a, b, VIDEO_AUC, dataset)
    if found is None or not dataset.has_videos(a):
        return ""
    side = find_side(found.difference, NO_DIFFERENCE)
    return (
        f"; by video {describe_difference(found.difference, dataset.describe_size(a, 'video'))}, {_VIDEO_WORDS[side]}"
    )


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
    left = f"; on {join(words['open'])} it cannot be told" if words["open"] else ""
    if not parts:
        few = f": {join(words['open'])}" if any(" (it rests on " in title for title in words["open"]) else ""
        return f"Whether {lower_first(subject)} helped cannot be told from this data{few}."
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
