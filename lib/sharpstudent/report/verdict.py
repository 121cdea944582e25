"""The verdict of a task that has none of its own, and sentences about cost.

No sentence claims more than the intervals allow (report/sentences.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.models.widths import Lighter, is_clearly_less
from sharpstudent.report.results import (
    CostResult,
    EvaluatedModel,
    EvaluatedSet,
    EvaluationResults,
    MetricAbout,
    ModelBase,
    PairResult,
)
from sharpstudent.report.sentences import (
    NO_DIFFERENCE,
    Model,
    describe_as_good,
    describe_difference,
    describe_estimate,
    describe_few,
    describe_seeds,
    explain_open,
    find_role,
    find_side,
    is_of_few,
    join,
    list_parts,
    round_number,
    turn,
)
from sharpstudent.report.text import (
    capitalize_first,
    format_bytes,
    format_macs,
    format_milliseconds,
    format_parameters,
    lower_first,
)

SAME = 0.05  # relative difference; latencies closer than this are equal within noise
NEAR = 0.15  # closer than this they count as equal, too, where single samples vary by more than they differ


# Name for readers, name in the results, how it is written.
_ASPECTS: tuple[tuple[str, str, Callable[[int], str]], ...] = (
    ("parameters", "parameters", format_parameters),
    ("multiply-accumulates", "macs", format_macs),
    ("file size", "file_bytes", format_bytes),
)
_DECIDING = ("parameters", "multiply-accumulates")


def describe_weight(
    student: ModelBase,
    teacher: ModelBase,
    lighter: Lighter | None = None,
    *,
    unit: str = "sample",
    inputs: str = "",
) -> list[str]:
    """Say whether the student is lighter than the teacher, in parameters and in multiply-accumulates.

    File size and latency are stated beside them, but do not decide.

    Args:
        student: The model that should be lighter.
        teacher: The model that it is compared with.
        lighter: The widest student of the same family that is lighter; it is named where this student is not.
        unit: What was timed, such as `picture`.
        inputs: Where the two models read inputs of different sizes, words that say so, with a comma before them.

    Returns:
        Sentences.
    """
    names = f"{clean_name(student.name)} is lighter than {clean_name(teacher.name)}"
    if student.cost is None or teacher.cost is None:
        return [f"Whether {names} is inconclusive: no cost was measured of both."]
    less, not_less, unknown, parts = _sort_aspects(student.cost, teacher.cost)
    details = f"{', '.join(parts[: len(_DECIDING)])}. {capitalize_first(parts[-1])}."
    if not less and not not_less:
        text = f"Whether {names} is inconclusive, {join(unknown)} are not known of both: {details}"
    elif not not_less:
        text = f"{names}{f' in {join(less)}' if unknown else ''}: {details}"
        if unknown:
            text += f" The {join(unknown)} of both are not known."
    elif not less:
        text = f"{names.replace(' is ', ' is not ', 1)}: {details}"
    else:
        text = f"{names} in {join(less)} but not in {join(not_less)}: {details}"
    lines = [text, _describe_latency(student, teacher, unit, inputs)]
    if not_less and lighter is not None:
        lines.insert(
            1,
            "The widest of the student's family that is lighter than the teacher in both is "
            f"{clean_name(lighter.name)}: {format_parameters(lighter.parameters)} parameters, "
            f"{format_macs(lighter.macs)} multiply-accumulates.",
        )
    return [line for line in lines if line]


def describe_same_speed(student: ModelBase, before: ModelBase, *, unit: str = "sample", inputs: str = "") -> list[str]:
    """Compare the latency of a student after and before distillation, which changes no layer.

    Args:
        student: The distilled model.
        before: The model before stage 2.
        unit: What was timed, such as `picture`.
        inputs: Where the two models read inputs of different sizes, words that say so, with a comma before them.

    Returns:
        One sentence, or none where there is no latency.
    """
    line = _describe_latency(student, before, unit, inputs)
    if not line or student.architecture is None or student.architecture != before.architecture:
        return [line] if line else []
    assert student.cost is not None
    assert before.cost is not None
    if _compare_latencies(student.cost, before.cost) in ("same", "noisy") or student.cost.device != before.cost.device:
        return [line]
    return [f"{line} It is the same network, so the machine was not quiet: measure again."]


def describe_costs(
    models: Sequence[Model],
    *,
    unit: str,
    lighter: Lighter | None = None,
    describe_inputs: Callable[[Model, Model], str] = lambda _student, _other: "",
) -> list[str]:
    """Compare the cost of each distilled student with that of each teacher, and with its own before stage 2.

    Args:
        models: The models of the results.
        unit: What was timed, such as `picture`.
        lighter: The widest student of the same family that is lighter than the teacher.
        describe_inputs: Returns the `inputs` of `describe_weight` for two models.

    Returns:
        Sentences; none where no cost was measured.
    """
    if all(model.cost is None for model in models):
        return []
    students = find_role(models, "distilled")
    lines = [
        describe_weight(student, teacher, lighter, unit=unit, inputs=describe_inputs(student, teacher))
        for student, teacher in product(students, find_role(models, "teacher"))
    ]
    lines += [
        describe_same_speed(student, before, unit=unit, inputs=describe_inputs(student, before))
        for student, before in product(students, find_role(models, "before"))
    ]
    return [line for part in lines for line in part]


def _sort_aspects(student: CostResult, teacher: CostResult) -> tuple[list[str], list[str], list[str], list[str]]:
    """Sort the deciding aspects by whether the student clearly needs less; also return a phrase for each aspect."""
    less, not_less, unknown, parts = list[str](), list[str](), list[str](), list[str]()
    for name, field, tell in _ASPECTS:
        own, other = getattr(student, field), getattr(teacher, field)
        if own is None or other is None:
            parts.append(f"{name} not known of {'both' if own is other else 'one of them'}")
            side = unknown
        else:
            parts.append(f"{name} {tell(own)} against {tell(other)} ({_describe_ratio(own, other)})")
            side = less if is_clearly_less(own, other) else not_less
        if name in _DECIDING:
            side.append(name)
    return less, not_less, unknown, parts


def _describe_ratio(own: float, other: float) -> str:
    if is_clearly_less(own, other):
        return f"{100 * (1 - own / other):.0f} % less"
    if not is_clearly_less(other, own):
        return "about as much"
    return f"{own / other:.1f} times as much" if own >= 1.5 * other else f"{100 * (own / other - 1):.0f} % more"


def _describe_latency(one: ModelBase, other: ModelBase, unit: str, inputs: str) -> str:
    """Compare two latencies in one sentence, "" where one of them was not measured."""
    a, b = one.cost, other.cost
    if a is None or b is None or a.latency_ms is None or b.latency_ms is None:
        return ""
    names = f"{clean_name(one.name)} and {clean_name(other.name)}"
    times = f"{format_milliseconds(a.latency_ms)} and {format_milliseconds(b.latency_ms)}"
    details = f"{times} a {unit} (median, batch 1{inputs})"
    if a.device != b.device:
        return (
            f"Latencies of {names}: {details}, on different devices ({clean_name(a.device)}; "
            f"{clean_name(b.device)}). They say nothing of which is faster."
        )
    end = f"{details}, on {clean_name(a.device)}"
    words = {
        "same": f"are equal within noise: {end}.",
        "noisy": f"are inconclusive, for single {unit}s vary too much: {end}. Measure on a quiet machine.",
        "less": f"differ, the first is faster: {end}.",
        "more": f"differ, the first is slower: {end}.",
    }
    return f"Latencies of {names} {words[_compare_latencies(a, b)]}"


def _compare_latencies(a: CostResult, b: CostResult) -> str:
    """Compare the medians of two latencies.

    Returns `less` or `more` where they differ by more than 5 % and by more than single samples vary (p95 minus median);
    `noisy` where single samples vary so much that the medians may well differ; else `same`.
    """
    assert a.latency_ms is not None
    assert b.latency_ms is not None
    slower = max(a.latency_ms, b.latency_ms)
    spreads = [cost.latency_p95_ms - cost.latency_ms for cost in (a, b) if cost.latency_p95_ms and cost.latency_ms]
    difference = abs(a.latency_ms - b.latency_ms)
    if difference <= SAME * slower:
        return "same"
    if difference > max([*spreads, 0.0]):
        return "less" if a.latency_ms < b.latency_ms else "more"
    return "same" if difference <= NEAR * slower else "noisy"


_ANSWERS = {"a": "helped", "b": "hurt"}


def write_verdict(results: EvaluationResults) -> tuple[str, ...]:
    """Write the verdict for any task: a headline, then whether distillation helped, cost, pairs, models against chance.

    Where there are several sets, the sentences speak of each. The first metric decides the headline.
    """
    if not results.models:
        return ("No model was evaluated.",)
    first = next(iter(results.metrics))
    by_role = {model.role: model for model in reversed(results.models) if model.seed_of is None}
    pairs = [one for one in results.comparisons if (len(results.data) > 1) == ("@" in one.metric)]
    lines = [_describe_pair(results, one, by_role) for one in pairs if _split(one.metric)[0] == first]
    others = [_describe_pair(results, one, by_role) for one in pairs if _split(one.metric)[0] != first]
    alone = [line for model in results.models for line in _describe_metrics(results, model)]
    costs = describe_costs(results.models, unit=results.unit)
    seeds = [line for line in (describe_seeds(pairs),) if line]
    return (_write_headline(results, first, pairs, by_role), *lines, *seeds, *costs, *alone, *others)


def _split(metric: str) -> tuple[str, str]:
    name, _, part = metric.partition("@")
    return name, part


def _name_part(results: EvaluationResults, part: str) -> str:
    return f" on {clean_name(part)}" if part else ""


def _write_headline(
    results: EvaluationResults, first: str, pairs: Sequence[PairResult], by_role: Mapping[str, EvaluatedModel]
) -> str:
    for subject, role in (("Distillation", "control"), ("Stage 2 as a whole", "before")):
        if "distilled" in by_role and role in by_role:
            names = (by_role["distilled"].name, by_role[role].name)
            found = [one for one in pairs if _split(one.metric)[0] == first and (one.a, one.b) == names]
            return _headline_gain(results, subject, found)
    about = results.metrics[first]
    parts = [_headline_best(results, first, about, part) for part in list_parts(results)]
    known = [part for part in parts if part]
    return f"{capitalize_first('; '.join(known))}." if known else f"No model has a value of {about.title} on this data."


def _headline_gain(results: EvaluationResults, subject: str, pairs: Sequence[PairResult]) -> str:
    """Say on which sets a model is better than another one."""
    words: dict[str, list[str]] = {"helped": [], "hurt": [], "inconclusive": []}
    for one in pairs:
        word = "inconclusive" if one.better is None else _ANSWERS[one.better]
        words[word].append(_name_part(results, _split(one.metric)[1]).removeprefix(" on "))
    found = [f"{word}{_name_all(words[word])}" for word in ("helped", "hurt") if words[word]]
    if found:
        left = f", inconclusive{_name_all(words['inconclusive'])}" if words["inconclusive"] else ""
        return f"{subject} {' and '.join(found)}{left}."
    few = next((one.difference for one in pairs if find_side(one.difference, NO_DIFFERENCE) == "few"), None)
    why = "" if few is None else f": {describe_few(few, results.group_unit)}"
    return f"Whether {lower_first(subject)} helped is inconclusive on this data{why}."


def _name_all(parts: Sequence[str]) -> str:
    return f" on {join(parts)}" if all(parts) else ""


def _headline_best(results: EvaluationResults, first: str, about: MetricAbout, part: str) -> str:
    """Name the best model of a set with its value; "" where none has one."""
    name, where = f"{first}@{part}" if part else first, _name_part(results, part)
    values = [(estimate.value, model) for model in results.models if (estimate := model.metrics.get(name)) is not None]
    known = [(value, model) for value, model in values if value is not None]
    if not known:
        return ""
    value, model = (max if about.direction == "higher" else min)(known, key=lambda one: one[0])
    if len(results.models) == 1:
        return f"{about.title} {value:{about.format}}{where}{_describe_chance(model, name, about, results.group_unit)}"
    few = model.metrics[name]
    why = f"; no claim is made, {describe_few(few, results.group_unit)}" if is_of_few(few) else ""
    return f"best {about.title}{where}: {clean_name(model.name)} ({value:{about.format}}){why}"


def _describe_pair(results: EvaluationResults, pair: PairResult, by_role: Mapping[str, EvaluatedModel]) -> str:
    metric, part = _split(pair.metric)
    about, size = results.metrics[metric], _describe_size(results, part)
    where, names = _name_part(results, part), (clean_name(pair.a), clean_name(pair.b))
    if (pair.a, pair.b) == tuple(by_role[role].name if role in by_role else "" for role in ("distilled", "teacher")):
        names = (f"the student {names[0]}", f"its teacher {names[1]}")
    end = "" if about.direction == "higher" else ", where lower is better"
    if pair.better is None:
        why = explain_open(pair.difference, "0", results.group_unit)
        text = f"Difference in {about.title} {describe_difference(pair.difference, size)}{end}"
        good = describe_as_good(pair, names)
        return f"Which of {names[0]} and {names[1]} is better{where}? Inconclusive: {why}. {text}{good}."
    better, worse = names if pair.better == "a" else names[::-1]
    difference = pair.difference if pair.better == "a" else turn(pair.difference)
    text = f"difference in {about.title} {describe_difference(difference, size)}{end}"
    sentence = f"{better} is better than {worse}{where}: {text}."
    return capitalize_first(sentence) if better.startswith(("the student ", "its teacher ")) else sentence


def _describe_metrics(results: EvaluationResults, model: EvaluatedModel) -> list[str]:
    """State each metric on each set, and whether it is better than chance."""
    lines: list[str] = []
    for part in list_parts(results):
        for metric, about in results.metrics.items():
            name = f"{metric}@{part}" if part else metric
            subject = f"The {about.title} of {clean_name(model.name)}{_name_part(results, part)}"
            if model.metrics[name].value is None:
                lines.append(f"{subject} has {clean_name(model.metrics[name].note or 'no value')}.")
                continue
            text = _describe_metric(model, name, about, _describe_size(results, part))
            lines.append(f"{subject} is {text}{_describe_chance(model, name, about, results.group_unit)}.")
    return lines


def _describe_metric(model: EvaluatedModel, name: str, about: MetricAbout, *more: str) -> str:
    return describe_estimate(model.metrics[name], *more, references=() if about.chance is None else (about.chance,))


def _describe_chance(model: EvaluatedModel, name: str, about: MetricAbout, group_unit: str) -> str:
    """Say whether a value is better than guessing, where the value of guessing is known."""
    if about.chance is None:
        return ""
    side, good = find_side(model.metrics[name], about.chance), "above" if about.direction == "higher" else "below"
    guess = f"chance ({round_number(about.chance, ())})"
    if side == "unknown":
        return f", inconclusive against {guess} without an interval"
    if side == "few":
        return f"; against {guess} it is inconclusive, {describe_few(model.metrics[name], group_unit)}"
    if side == "open":
        return f", inconclusive against {guess}"
    return f", {'better' if side == good else 'worse'} than {guess}"


def _describe_size(results: EvaluationResults, part: str) -> str:
    """Say what the metrics of a set are computed over: `400 samples of 40 people`."""
    sets: list[EvaluatedSet] = [one for one in results.data if part in ("", one.name)]
    rows, groups = sum(one.rows for one in sets), sum(one.groups for one in sets)
    return f"{format_count_of(rows, results.unit)} of {format_count_of(groups, results.group_unit)}"
