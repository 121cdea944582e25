"""Sentences about the results of an evaluation, in plain English, which claim no more than the intervals allow.

The first half has the parts of sentences that other files use, too: estimates, differences, shares and costs. The
second half writes the verdict of a task that has no verdict of its own. An interval that covers 0, or chance, leaves
a question open, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Literal, TypeVar

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.models.widths import Lighter, is_clearly_less
from sharpstudent.report.results import (
    CostResult,
    EvaluatedModel,
    EvaluationResults,
    MetricAbout,
    MetricValue,
    ModelBase,
    PairBase,
    PairResult,
    Role,
)
from sharpstudent.report.text import (
    MINUS,
    capitalize_first,
    format_bytes,
    format_macs,
    format_milliseconds,
    format_p_value,
    format_parameters,
    lower_first,
)

Model = TypeVar("Model", bound=ModelBase)
Pair = TypeVar("Pair", bound=PairBase)
Side = Literal["above", "below", "open", "few", "unknown"]
NO_DIFFERENCE = 0.0
MOST_DIGITS = 6  # no sentence claims a difference that this many digits do not show


def find_side(estimate: MetricValue | None, reference: float) -> Side:
    """Find where an interval lies relative to a reference value.

    Args:
        estimate: A value with its interval; None for one that does not exist.
        reference: The value to compare with, such as chance.

    Returns:
        `above` or `below` where the whole interval lies there, `open` where it covers, touches or nearly touches the
        reference, `few` where it rests on too few groups for any claim, `unknown` where there is no interval.
    """
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    if is_of_few(estimate):
        return "few"
    if round(estimate.low, MOST_DIGITS) > reference:
        return "above"
    return "below" if round(estimate.high, MOST_DIGITS) < reference else "open"


def is_of_few(estimate: MetricValue) -> bool:
    """Whether an interval rests on too few groups for any claim."""
    return estimate.groups is not None and estimate.groups < FEWEST_GROUPS


def explain_open(estimate: MetricValue | None, reference: str, group_unit: str) -> str:
    """Say why nothing is claimed from an interval that is neither above nor below a reference.

    Args:
        estimate: The value with its interval; None for one that does not exist.
        reference: The reference in words, such as `0`.
        group_unit: What a group is called.

    Returns:
        The reason, to be put after a comma.
    """
    if estimate is None or estimate.low is None:
        return "there is no interval"
    if is_of_few(estimate):
        return describe_few(estimate, group_unit)
    return f"the interval covers {reference}"


def describe_few(estimate: MetricValue, group_unit: str) -> str:
    """Say that an interval rests on too few groups: `it rests on 5 people, and a claim needs 10`."""
    return f"it rests on {format_count_of(estimate.groups or 0, group_unit)}, and a claim needs {FEWEST_GROUPS}"


def describe_seeds(pairs: Sequence[PairBase]) -> str:
    """Say whether comparisons hold the variation between seeds: with one seed, another may turn the answer."""
    seeds = min((pair.seeds for pair in pairs), default=1)
    if seeds > 1:
        return f"These are means over {seeds} seeds, and their intervals hold the spread over seeds."
    return (
        "Each model was trained once, with one seed: another seed may turn the answer. Runs of several seeds show it, "
        "such as --distilled RUN_1 --distilled RUN_2 in compare_models.py."
    )


def describe_as_good(pair: PairBase, names: tuple[str, str]) -> str:
    """Say which of two models is shown to be as good as the other, but for the margin.

    Args:
        pair: The two models.
        names: The names of a and b.

    Returns:
        A clause to be added to a sentence, with what separates it; "" where it is shown of neither.
    """
    test = pair.non_inferiority
    if test is None or not test.as_good:
        return ""
    margin = _round(test.margin, (NO_DIFFERENCE,), digits=2).removeprefix("0")
    if len(test.as_good) == 2:
        return f"; each is as good as the other within {margin} (p {format_p_value(max(test.p_a, test.p_b))})"
    good, other = names if test.as_good == ("a",) else names[::-1]
    return f"; {good} is as good as {other} within {margin} (p {format_p_value(min(test.p_a, test.p_b))})"


def describe_estimate(estimate: MetricValue, *more: str, references: tuple[float, ...] = ()) -> str:
    """Format a value with its interval: `.902 (95 % interval .880 to .927; 336 frames of 42 people)`.

    Args:
        estimate: A value with its interval.
        more: Texts that follow the interval in the brackets.
        references: Values, such as chance, that no other value may be rounded to.

    Returns:
        The text.
    """
    return _describe(estimate, more, lambda value: _round(value, references))


def describe_difference(estimate: MetricValue, *more: str) -> str:
    """Format a difference: `+.107 (95 % interval +.074 to +.142)`. An end beside 0 is never rounded to 0.

    Args:
        estimate: The difference with its interval.
        more: Texts that follow the interval in the brackets.

    Returns:
        The text.
    """
    return _describe(estimate, more, _round_difference)


def describe_rate(estimate: MetricValue, *more: str) -> str:
    """Format a rate in 0..1 as a percentage: `2.3 % (95 % interval 1.0 % to 4.1 %)`.

    Args:
        estimate: The rate with its interval.
        more: Texts that follow the interval in the brackets.

    Returns:
        The text.
    """
    return _describe(estimate, more, lambda value: f"{_round(100 * value, (0.0, 100.0), digits=1)} %")


def describe_share(share: float) -> str:
    """Format a share in 0..1 as a percentage, `3.4 %`; it is never rounded to 0 or 100 %."""
    return f"{_round(100 * share, (0.0, 100.0), digits=1)} %"


def turn(estimate: MetricValue) -> MetricValue:
    """Swap the two sides of a difference: a minus b becomes b minus a."""
    value, low, high = (None if v is None else 0.0 - v for v in (estimate.value, estimate.high, estimate.low))
    return estimate.model_copy(update={"value": value, "low": low, "high": high})


def turn_pair(pair: Pair) -> Pair:
    """Swap the two models of a pair."""
    test = pair.non_inferiority
    if test is not None:
        as_good = tuple(name for name in ("a", "b") if {"a": "b", "b": "a"}[name] in test.as_good)
        test = test.model_copy(update={"p_a": test.p_b, "p_b": test.p_a, "as_good": as_good})
    changes = {"a": pair.b, "b": pair.a, "difference": turn(pair.difference), "non_inferiority": test}
    return pair.model_copy(update=changes)


def join(parts: list[str]) -> str:
    """List parts as prose: `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _describe(estimate: MetricValue, more: tuple[str, ...], to_text: Callable[[float], str]) -> str:
    if estimate.value is None:
        return f"no value ({clean_name(estimate.note or 'no reason is given')})"
    if estimate.low is None or estimate.high is None:
        inside = clean_name(estimate.note) if estimate.note else "no interval"
    else:
        inside = f"95 % interval {to_text(estimate.low)} to {to_text(estimate.high)}"
    return f"{to_text(estimate.value)} ({'; '.join([inside, *filter(None, more)])})"


def _round_difference(value: float) -> str:
    text = _round(abs(value), (NO_DIFFERENCE,))
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"


def _round(value: float, references: tuple[float, ...], *, digits: int = 3) -> str:
    """Round to `digits`, or to more digits where fewer would show one of the references."""
    fitting = [
        n for n in range(digits, MOST_DIGITS + 1) if not any(round(value, n) == one != value for one in references)
    ]
    text = f"{value:.{fitting[0] if fitting else digits}f}"
    return text.replace("0.", ".", 1) if text.startswith("0.") and float(text) != 0 and digits >= 3 else text


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
    is_lighter, names = (
        "student is lighter than its teacher",
        f"({clean_name(student.name)}, {clean_name(teacher.name)})",
    )
    if student.cost is None or teacher.cost is None:
        return [f"Whether the {is_lighter} cannot be told, no cost was measured of both {names}."]
    less, not_less, unknown, parts = _sort_aspects(student.cost, teacher.cost)
    details = f"{'; '.join(parts)}."
    if not less and not not_less:
        text = f"Whether the {is_lighter} cannot be told, {join(unknown)} are not known of both {names}: {details}"
    elif not not_less:
        text = f"The {is_lighter}{f' in {join(less)}' if unknown else ''} {names}: {details}"
        if unknown:
            text += f" Its {join(unknown)} beside the teacher's are not known."
    elif not less:
        text = f"The {is_lighter.replace(' is ', ' is not ')} {names}: {details}"
    else:
        text = f"The {is_lighter} in {join(less)} but not in {join(not_less)} {names}: {details}"
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


def find_role(models: Sequence[Model], role: Role) -> list[Model]:
    """List the models of one role, in their order; of several seeds the first.

    Args:
        models: The models of the results.
        role: The role in the comparison of two stages.

    Returns:
        The models that have it.
    """
    return [model for model in models if model.role == role and model.seed_of is None]


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
            f"{clean_name(b.device)}): they say nothing of which is faster."
        )
    end = f"{details}, on {clean_name(a.device)}"
    words = {
        "same": f"are equal within noise: {end}.",
        "noisy": f"cannot be told apart, for single {unit}s vary too much: {end}; measure on a quiet machine.",
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

    The sentences speak of all sets together. The first metric decides the headline.
    """
    if not results.models:
        return ("No model was evaluated.",)
    first = next(iter(results.metrics))
    by_role = {model.role: model for model in reversed(results.models) if model.seed_of is None}
    pairs = [one for one in results.comparisons if "@" not in one.metric]
    lines = [_describe_pair(results, one, by_role) for one in pairs if one.metric == first]
    others = [_describe_pair(results, one, by_role) for one in pairs if one.metric != first]
    alone = [line for model in results.models for line in _describe_metrics(results, model)]
    costs = describe_costs(results.models, unit=results.unit)
    seeds = [describe_seeds(pairs)] if pairs else []
    headline = _write_headline(results, first, pairs, by_role)
    return (headline, *lines, *seeds, *_warn_of_few(results), *costs, *alone, *others)


def _write_headline(
    results: EvaluationResults, first: str, pairs: Sequence[PairResult], by_role: Mapping[str, EvaluatedModel]
) -> str:
    for subject, role in (("Distillation", "control"), ("Stage 2 as a whole", "before")):
        if "distilled" in by_role and role in by_role:
            names = (by_role["distilled"].name, by_role[role].name)
            found = next((one for one in pairs if one.metric == first and (one.a, one.b) == names), None)
            if found is not None and found.better is not None:
                return f"{subject} {_ANSWERS[found.better]}."
            why = ""
            if found is not None and find_side(found.difference, NO_DIFFERENCE) == "few":
                why = f": {describe_few(found.difference, results.group_unit)}"
            return f"Whether {lower_first(subject)} helped cannot be told from this data{why}."
    about = results.metrics[first]
    values = [(model.metrics[first].value, model) for model in results.models]
    known = [(value, model) for value, model in values if value is not None]
    if not known:
        return f"No model has a value of {about.title} on this data."
    value, model = (max if about.direction == "higher" else min)(known, key=lambda one: one[0])
    title = capitalize_first(about.title)
    if len(results.models) == 1:
        return f"{title} {value:{about.format}}{_describe_chance(model, first, about, results.group_unit)}."
    few = model.metrics[first]
    why = f"; no claim is made, {describe_few(few, results.group_unit)}" if is_of_few(few) else ""
    return f"Best {about.title}: {clean_name(model.name)} ({value:{about.format}}){why}."


def _describe_pair(results: EvaluationResults, pair: PairResult, by_role: Mapping[str, EvaluatedModel]) -> str:
    about, over = results.metrics[pair.metric], _describe_size(results)
    names = (clean_name(pair.a), clean_name(pair.b))
    if (pair.a, pair.b) == tuple(by_role[role].name if role in by_role else "" for role in ("distilled", "teacher")):
        names = (f"the student {names[0]}", f"its teacher {names[1]}")
    end = "" if about.direction == "higher" else ", where lower is better"
    if pair.better is None:
        why = explain_open(pair.difference, "0", results.group_unit)
        text = f"difference in {about.title} {describe_difference(pair.difference, over)}{end}"
        good = describe_as_good(pair, names)
        return f"Which of {names[0]} and {names[1]} is better cannot be told, {why}: {text}{good}."
    better, worse = names if pair.better == "a" else names[::-1]
    difference = pair.difference if pair.better == "a" else turn(pair.difference)
    text = f"difference in {about.title} {describe_difference(difference, over)}{end}"
    sentence = f"{better} is better than {worse}: {text}."
    return capitalize_first(sentence) if better.startswith(("the student ", "its teacher ")) else sentence


def _describe_metrics(results: EvaluationResults, model: EvaluatedModel) -> list[str]:
    """State each metric over all sets, and whether it is better than chance."""
    lines: list[str] = []
    for name, about in results.metrics.items():
        estimate, subject = model.metrics[name], f"The {about.title} of {clean_name(model.name)}"
        if estimate.value is None:
            lines.append(f"{subject} has {clean_name(estimate.note or 'no value')}.")
            continue
        references = () if about.chance is None else (about.chance,)
        text = describe_estimate(estimate, _describe_size(results), references=references)
        lines.append(f"{subject} is {text}{_describe_chance(model, name, about, results.group_unit)}.")
    return lines


def _describe_chance(model: EvaluatedModel, name: str, about: MetricAbout, group_unit: str) -> str:
    """Say whether a value is better than guessing, where the value of guessing is known."""
    if about.chance is None:
        return ""
    side, good = find_side(model.metrics[name], about.chance), "above" if about.direction == "higher" else "below"
    guess = f"chance ({_round(about.chance, ())})"
    if side == "unknown":
        return f", without an interval, so that whether it is better than {guess} cannot be told"
    if side == "few":
        return f"; whether it is better than {guess} cannot be told, {describe_few(model.metrics[name], group_unit)}"
    if side == "open":
        return f", which cannot be distinguished from {guess}"
    return f", {'better' if side == good else 'worse'} than {guess}"


def _describe_size(results: EvaluationResults) -> str:
    """Say what the metrics are computed over: `400 samples of 40 people`."""
    rows, groups = sum(one.rows for one in results.data), sum(one.groups for one in results.data)
    return f"{format_count_of(rows, results.unit)} of {format_count_of(groups, results.group_unit)}"


def _warn_of_few(results: EvaluationResults) -> list[str]:
    """Say that there are too few groups for any claim (metrics/intervals.py)."""
    groups = sum(one.groups for one in results.data)
    if groups >= FEWEST_GROUPS:
        return []
    count = format_count_of(groups, results.group_unit)
    return [f"There {'is' if groups == 1 else 'are'} only {count}: a claim needs {FEWEST_GROUPS}."]
