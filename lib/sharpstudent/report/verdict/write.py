"""The verdict: plain sentences for a reader who reads nothing else, the most important first.

Every number stands with its interval and with what it is over, and no sentence claims more than the interval allows:
an interval that covers 0, or chance, is said to leave the question open.
"""

from __future__ import annotations

from itertools import product

from sharpstudent.models.widths import Lighter
from sharpstudent.report.results import ModelResult, Results
from sharpstudent.report.verdict.cost import describe_same_speed, describe_weight
from sharpstudent.report.verdict.decisions import (
    describe_false_alarms,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_separation,
    describe_undecided,
)
from sharpstudent.report.verdict.gain import (
    describe_gain,
    describe_pairs,
    describe_teacher_gap,
    find_role,
    write_headline,
)
from sharpstudent.report.verdict.words import JudgedSet, list_sets, say_people

__all__ = ["Lighter", "write_headed_verdict", "write_verdict"]

FEW_PEOPLE = 20


def write_verdict(results: Results, *, lighter: Lighter | None = None) -> tuple[str, ...]:
    """One sentence or two a line, without markup; `results.verdict` itself is not read.

    lighter: the width of the student's family that is lighter than the teacher (`find_lighter_width`), named where the
    student is not. With roles: did distillation help, the cost, the distance to the teacher. Without: each model
    against each other. Then, of the distilled student and of each model without a role (of all where there is none):
    how well it separates, which fakes, disturbances, false alarms, probabilities. Then how well the others separate;
    last what was not judged.
    """
    if not results.models:
        return ("No model was judged.",)
    sets = list_sets(results)
    few, gain = _warn_of_few(results, sets), describe_gain(results, sets)
    compared = [*gain, *(few if gain else [])]
    compared += [*_describe_cost(results, lighter), *describe_teacher_gap(results, sets)]
    compared += describe_pairs(results, sets)
    main = _choose_main(results)
    others = [model for model in results.models if model not in main]
    lines = compared + [line for model in main for line in describe_separation(model, sets)]
    lines += [] if gain else few
    lines += [line for model in main for line in _describe_model(model, sets)]
    lines += [line for model in others for line in describe_separation(model, sets)]
    return (*lines, *describe_undecided(results.models, sets))


def write_headed_verdict(results: Results, *, lighter: Lighter | None = None) -> tuple[str, ...]:
    """A headline, then the sentences of `write_verdict`: what reports and the console show."""
    return (write_headline(results, list_sets(results)), *write_verdict(results, lighter=lighter))


def _choose_main(results: Results) -> list[ModelResult]:
    chosen = find_role(results, "distilled") + find_role(results, "model")
    return chosen or list(results.models)


def _describe_model(model: ModelResult, sets: list[JudgedSet]) -> list[str]:
    telling = [one for one in sets if not one.is_validation] or sets
    return [
        *describe_kinds(model, sets),
        *describe_robustness(model),
        *describe_false_alarms(model, telling),
        *describe_probabilities(model, telling),
    ]


def _warn_of_few(results: Results, sets: list[JudgedSet]) -> list[str]:
    """A percentile bootstrap over few groups is too narrow (Davison & Hinkley 1997, section 5.2)."""
    counts = {judged.title: judged.count(results.models[0], "people_count") for judged in sets}
    few = {title: count for title, count in counts.items() if count is not None and count < FEW_PEOPLE}
    return [
        f"{title} has {say_people(count)} only: intervals over so few are narrower than the doubt is."
        for title, count in few.items()
    ]


def _describe_cost(results: Results, lighter: Lighter | None) -> list[str]:
    if all(model.cost is None for model in results.models):
        return []  # it was not asked for
    students = find_role(results, "distilled")
    lines = [
        line
        for student, teacher in product(students, find_role(results, "teacher"))
        for line in describe_weight(student, teacher, lighter)
    ]
    pairs = product(students, find_role(results, "before"))
    return lines + [line for student, before in pairs for line in describe_same_speed(student, before)]
