"""Plain sentences about results, and no more than the intervals allow: of figures, of cost, and of any task's metrics.

An interval that covers 0, or chance, is said to leave the question open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Literal, TypeVar

from sharpstudent.core.errors import say_count
from sharpstudent.models.widths import Lighter, is_clearly_less
from sharpstudent.report.results import (
    CostResult,
    EvaluatedModel,
    EvaluationResults,
    MetricAbout,
    MetricValue,
    ModelBase,
    PairResult,
    Role,
)
from sharpstudent.report.text import (
    MINUS,
    capitalize_first,
    format_bytes,
    format_macs,
    format_milliseconds,
    format_parameters,
    lower_first,
    say_name,
)

Model = TypeVar("Model", bound=ModelBase)
Side = Literal["above", "below", "open", "unknown"]
NO_DIFFERENCE = 0.0
MOST_DIGITS = 6  # what these cannot show is claimed by no sentence


def find_side(figure: MetricValue | None, reference: float) -> Side:
    """Where the whole interval lies; `open` where it covers, touches or nearly touches the reference, `unknown` where
    there is none.
    """
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "unknown"
    if round(figure.low, MOST_DIGITS) > reference:
        return "above"
    return "below" if round(figure.high, MOST_DIGITS) < reference else "open"


def say_estimate(figure: MetricValue, *more: str, references: tuple[float, ...] = ()) -> str:
    """`.902 (95 % interval .880 to .927; 336 frames of 42 people)`.

    Args:
        figure: a value with its interval.
        more: what follows in the brackets.
        references: values that no other one is ever rounded to, such as chance.
    """
    return _say(figure, more, lambda value: _round(value, references))


def say_difference(figure: MetricValue, *more: str) -> str:
    """`+.107 (95 % interval +.074 to +.142)`. An end beside 0 is never rounded to it."""
    return _say(figure, more, _round_difference)


def say_rate(figure: MetricValue, *more: str) -> str:
    """`2.3 % (95 % interval 1.0 % to 4.1 %)`."""
    return _say(figure, more, lambda value: f"{_round(100 * value, (0.0, 100.0), digits=1)} %")


def say_share(share: float) -> str:
    """`3.4 %`; never 0 or all where it is not."""
    return f"{_round(100 * share, (0.0, 100.0), digits=1)} %"


def turn(figure: MetricValue) -> MetricValue:
    """The difference the other way round."""
    value, low, high = (None if v is None else 0.0 - v for v in (figure.value, figure.high, figure.low))
    return MetricValue(value=value, low=low, high=high, note=figure.note)


def join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _say(figure: MetricValue, more: tuple[str, ...], to_text: Callable[[float], str]) -> str:
    if figure.value is None:
        return f"no value ({say_name(figure.note or 'nobody said why')})"
    if figure.low is None or figure.high is None:
        inside = say_name(figure.note) if figure.note else "no interval"
    else:
        inside = f"95 % interval {to_text(figure.low)} to {to_text(figure.high)}"
    return f"{to_text(figure.value)} ({'; '.join([inside, *filter(None, more)])})"


def _round_difference(value: float) -> str:
    text = _round(abs(value), (NO_DIFFERENCE,))
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"


def _round(value: float, references: tuple[float, ...], *, digits: int = 3) -> str:
    """With more digits where fewer would put it on a reference that it is not."""
    fitting = [
        n for n in range(digits, MOST_DIGITS + 1) if not any(round(value, n) == one != value for one in references)
    ]
    text = f"{value:.{fitting[0] if fitting else digits}f}"
    return text.replace("0.", ".", 1) if text.startswith("0.") and float(text) != 0 and digits >= 3 else text


SAME = 0.05  # latencies nearer than this are equal within noise
NEAR = 0.15  # those nearer than this, where single samples vary by more


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
    """Is the student lighter at all? Of parameters and multiply-accumulates; file size and latency are said beside.

    Args:
        student: the one that should be.
        teacher: the one that it is held against.
        lighter: the width of the student's family that would be, named where the student is not.
        unit: what was timed.
        inputs: where the two read inputs of different sizes, words that say so, after a comma.
    """
    is_lighter, names = "student is lighter than its teacher", f"({say_name(student.name)}, {say_name(teacher.name)})"
    if student.cost is None or teacher.cost is None:
        return [f"Whether the {is_lighter} cannot be told, no cost was measured of both {names}."]
    less, not_less, unknown, said = _sort_aspects(student.cost, teacher.cost)
    figures = f"{'; '.join(said)}."
    if not less and not not_less:
        text = f"Whether the {is_lighter} cannot be told, {join(unknown)} are not known of both {names}: {figures}"
    elif not not_less:
        text = f"The {is_lighter}{f' in {join(less)}' if unknown else ''} {names}: {figures}"
        if unknown:
            text += f" Its {join(unknown)} beside the teacher's are not known."
    elif not less:
        text = f"The {is_lighter.replace(' is ', ' is not ')} {names}: {figures}"
    else:
        text = f"The {is_lighter} in {join(less)} but not in {join(not_less)} {names}: {figures}"
    lines = [text, _describe_latency(student, teacher, unit, inputs)]
    if not_less and lighter is not None:
        lines.insert(
            1,
            f"The widest of the student's family that is lighter than the teacher in both is {say_name(lighter.name)}: "
            f"{format_parameters(lighter.parameters)} parameters, {format_macs(lighter.macs)} multiply-accumulates.",
        )
    return [line for line in lines if line]


def describe_same_speed(student: ModelBase, before: ModelBase, *, unit: str = "sample", inputs: str = "") -> list[str]:
    """Distillation changes no layer: the student should be as fast as it was. unit, inputs: as `describe_weight`."""
    line = _describe_latency(student, before, unit, inputs)
    if not line or student.architecture is None or student.architecture != before.architecture:
        return [line] if line else []
    assert student.cost is not None
    assert before.cost is not None
    if _compare_latencies(student.cost, before.cost) in ("same", "noisy") or student.cost.device != before.cost.device:
        return [line]
    return [f"{line} It is the same network, so the machine was not quiet: measure again."]


def find_role(models: Sequence[Model], role: Role) -> list[Model]:
    """The models of one role."""
    return [model for model in models if model.role == role]


def describe_costs(
    models: Sequence[Model],
    *,
    unit: str,
    lighter: Lighter | None = None,
    say_inputs: Callable[[Model, Model], str] = lambda _student, _other: "",
) -> list[str]:
    """Each distilled student beside each teacher and beside what it was before; nothing where no cost was measured.

    Args:
        models: those of the results.
        unit: what was timed.
        lighter: as `describe_weight` takes it.
        say_inputs: the `inputs` of `describe_weight` for two models.

    Returns:
        Sentences.
    """
    if all(model.cost is None for model in models):
        return []
    students = find_role(models, "distilled")
    lines = [
        describe_weight(student, teacher, lighter, unit=unit, inputs=say_inputs(student, teacher))
        for student, teacher in product(students, find_role(models, "teacher"))
    ]
    lines += [
        describe_same_speed(student, before, unit=unit, inputs=say_inputs(student, before))
        for student, before in product(students, find_role(models, "before"))
    ]
    return [line for part in lines for line in part]


def _sort_aspects(student: CostResult, teacher: CostResult) -> tuple[list[str], list[str], list[str], list[str]]:
    """Deciding aspects that are clearly less, that are not, and that are not known; and all of them in words."""
    less, not_less, unknown, said = list[str](), list[str](), list[str](), list[str]()
    for name, field, tell in _ASPECTS:
        own, other = getattr(student, field), getattr(teacher, field)
        if own is None or other is None:
            said.append(f"{name} not known of {'both' if own is other else 'one of them'}")
            side = unknown
        else:
            said.append(f"{name} {tell(own)} against {tell(other)} ({_say_ratio(own, other)})")
            side = less if is_clearly_less(own, other) else not_less
        if name in _DECIDING:
            side.append(name)
    return less, not_less, unknown, said


def _say_ratio(own: float, other: float) -> str:
    if is_clearly_less(own, other):
        return f"{100 * (1 - own / other):.0f} % less"
    if not is_clearly_less(other, own):
        return "about as much"
    return f"{own / other:.1f} times as much" if own >= 1.5 * other else f"{100 * (own / other - 1):.0f} % more"


def _describe_latency(one: ModelBase, other: ModelBase, unit: str, inputs: str) -> str:
    """One sentence, "" where neither was timed."""
    a, b = one.cost, other.cost
    if a is None or b is None or a.latency_ms is None or b.latency_ms is None:
        return ""
    names = f"{say_name(one.name)} and {say_name(other.name)}"
    times = f"{format_milliseconds(a.latency_ms)} and {format_milliseconds(b.latency_ms)}"
    figures = f"{times} a {unit} (median, batch 1{inputs})"
    if a.device != b.device:
        return (
            f"Latencies of {names}: {figures}, on different devices ({say_name(a.device)}; {say_name(b.device)}): they "
            "say nothing of which is faster."
        )
    end = f"{figures}, on {say_name(a.device)}"
    words = {
        "same": f"are equal within noise: {end}.",
        "noisy": f"cannot be told apart, for single {unit}s vary too much: {end}; measure on a quiet machine.",
        "less": f"differ, the first is faster: {end}.",
        "more": f"differ, the first is slower: {end}.",
    }
    return f"Latencies of {names} {words[_compare_latencies(a, b)]}"


def _compare_latencies(a: CostResult, b: CostResult) -> str:
    """`less` or `more` where the medians differ by more than 5 % and by more than single samples vary (p95 above the
    median); else `same`, or `noisy` where samples vary so much that the medians may well differ.
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


FEW_GROUPS = 20
_ANSWERS = {"a": "helped", "b": "hurt"}


def write_verdict(results: EvaluationResults) -> tuple[str, ...]:
    """Plain sentences about the results of any task, a headline first: did distillation help, the cost, each pair of
    models, and each model against chance. Of every metric, all sets together; the first metric answers.
    """
    if not results.models:
        return ("No model was evaluated.",)
    first = next(iter(results.metrics))
    by_role = {model.role: model for model in reversed(results.models)}
    pairs = [one for one in results.comparisons if "@" not in one.metric]
    lines = [_tell_pair(results, one, by_role) for one in pairs if one.metric == first]
    others = [_tell_pair(results, one, by_role) for one in pairs if one.metric != first]
    alone = [line for model in results.models for line in _tell_model(results, model)]
    costs = describe_costs(results.models, unit=results.unit)
    return (_write_headline(results, first, pairs, by_role), *lines, *_warn_of_few(results), *costs, *alone, *others)


def _write_headline(
    results: EvaluationResults, first: str, pairs: Sequence[PairResult], by_role: Mapping[str, EvaluatedModel]
) -> str:
    for subject, role in (("Distillation", "control"), ("Stage 2 as a whole", "before")):
        if "distilled" in by_role and role in by_role:
            names = (by_role["distilled"].name, by_role[role].name)
            found = next((one for one in pairs if one.metric == first and (one.a, one.b) == names), None)
            if found is not None and found.better is not None:
                return f"{subject} {_ANSWERS[found.better]}."
            return f"Whether {lower_first(subject)} helped cannot be told from this data."
    about = results.metrics[first]
    known = [(figure.value, model) for model in results.models if (figure := model.metrics[first]).value is not None]
    if not known:
        return f"No model has a value of {about.title} on this data."
    value, model = (max if about.direction == "higher" else min)(known, key=lambda one: one[0])
    title = capitalize_first(about.title)
    if len(results.models) == 1:
        return f"{title} {value:{about.format}}{_say_chance(model, first, about)}."
    return f"Best {about.title}: {say_name(model.name)} ({value:{about.format}})."


def _tell_pair(results: EvaluationResults, pair: PairResult, by_role: Mapping[str, EvaluatedModel]) -> str:
    about, over = results.metrics[pair.metric], _say_over(results)
    names = (say_name(pair.a), say_name(pair.b))
    if (pair.a, pair.b) == tuple(by_role[role].name if role in by_role else "" for role in ("distilled", "teacher")):
        names = (f"the student {names[0]}", f"its teacher {names[1]}")
    end = "" if about.direction == "higher" else ", where lower is better"
    if pair.better is None:
        why = "there is no interval" if pair.difference.low is None else "the interval covers 0"
        said = f"difference in {about.title} {say_difference(pair.difference, over)}{end}"
        return f"Which of {names[0]} and {names[1]} is better cannot be told, {why}: {said}."
    better, worse = names if pair.better == "a" else names[::-1]
    difference = pair.difference if pair.better == "a" else turn(pair.difference)
    said = f"difference in {about.title} {say_difference(difference, over)}{end}"
    sentence = f"{better} is better than {worse}: {said}."
    return capitalize_first(sentence) if better.startswith(("the student ", "its teacher ")) else sentence


def _tell_model(results: EvaluationResults, model: EvaluatedModel) -> list[str]:
    """Each metric, all sets together, and whether it is better than chance."""
    lines: list[str] = []
    for name, about in results.metrics.items():
        figure, subject = model.metrics[name], f"The {about.title} of {say_name(model.name)}"
        if figure.value is None:
            lines.append(f"{subject} has {say_name(figure.note or 'no value')}.")
            continue
        references = () if about.chance is None else (about.chance,)
        said = say_estimate(figure, _say_over(results), references=references)
        lines.append(f"{subject} is {said}{_say_chance(model, name, about)}.")
    return lines


def _say_chance(model: EvaluatedModel, name: str, about: MetricAbout) -> str:
    """Whether a value is better than a guess's, where that is known."""
    if about.chance is None:
        return ""
    side, good = find_side(model.metrics[name], about.chance), "above" if about.direction == "higher" else "below"
    guess = f"chance ({_round(about.chance, ())})"
    if side == "unknown":
        return f", without an interval, so that whether it is better than {guess} cannot be told"
    if side == "open":
        return f", which cannot be told from {guess}"
    return f", {'better' if side == good else 'worse'} than {guess}"


def _say_over(results: EvaluationResults) -> str:
    """`400 samples of 40 persons`."""
    rows, groups = sum(one.rows for one in results.data), sum(one.groups for one in results.data)
    return f"{say_count(rows, results.unit)} of {say_count(groups, results.group_unit)}"


def _warn_of_few(results: EvaluationResults) -> list[str]:
    """A percentile bootstrap over few groups is too narrow (Davison & Hinkley 1997, section 5.2)."""
    groups = sum(one.groups for one in results.data)
    if groups >= FEW_GROUPS:
        return []
    told = say_count(groups, results.group_unit)
    return [f"There are {told} only: intervals over so few are narrower than the doubt is."]
