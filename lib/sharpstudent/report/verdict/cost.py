"""What a verdict says of cost: is the student lighter at all, and is it as fast as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sharpstudent.models.widths import Lighter, is_clearly_less
from sharpstudent.report.comparison import format_milliseconds, format_parameters
from sharpstudent.report.results import CostResult, ModelResult
from sharpstudent.report.text import format_bytes, format_macs
from sharpstudent.report.verdict.words import join, say_name

SAME = 0.05  # latencies nearer than this are equal within noise
NEAR = 0.15  # those nearer than this, where single pictures vary by more


@dataclass(frozen=True)
class _Aspect:
    name: str
    read: Callable[[CostResult], float | None]
    show: Callable[[float], str]


_ASPECTS = (
    _Aspect("parameters", lambda cost: cost.parameters, lambda value: format_parameters(round(value))),
    _Aspect("multiply-accumulates", lambda cost: cost.macs, lambda value: format_macs(round(value))),
    _Aspect("file size", lambda cost: cost.file_bytes, lambda value: format_bytes(round(value))),
)
_DECIDING = ("parameters", "multiply-accumulates")


def describe_weight(student: ModelResult, teacher: ModelResult, lighter: Lighter | None) -> list[str]:
    """Is the student lighter at all? Of parameters and multiply-accumulates; file size and latency are said beside."""
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
    lines = [text, _describe_latency(student, teacher)]
    if not_less and lighter is not None:
        lines.insert(
            1,
            f"The widest of the student's family that is lighter than the teacher in both is {say_name(lighter.name)}: "
            f"{format_parameters(lighter.parameters)} parameters, {format_macs(lighter.macs)} multiply-accumulates.",
        )
    return [line for line in lines if line]


def describe_same_speed(student: ModelResult, before: ModelResult) -> list[str]:
    """Distillation changes no layer: the student should be as fast as it was."""
    line = _describe_latency(student, before)
    if not line or student.architecture is None or student.architecture != before.architecture:
        return [line] if line else []
    assert student.cost is not None
    assert before.cost is not None
    if _compare_latencies(student.cost, before.cost) in ("same", "noisy") or student.cost.device != before.cost.device:
        return [line]
    return [f"{line} It is the same network, so the machine was not quiet: measure again."]


def _sort_aspects(student: CostResult, teacher: CostResult) -> tuple[list[str], list[str], list[str], list[str]]:
    """Deciding aspects that are clearly less, that are not, and that are not known; and all of them in words."""
    less, not_less, unknown, said = list[str](), list[str](), list[str](), list[str]()
    for aspect in _ASPECTS:
        own, other = aspect.read(student), aspect.read(teacher)
        if own is None or other is None:
            if aspect.name in _DECIDING:
                unknown.append(aspect.name)
            said.append(f"{aspect.name} not known of {'both' if own is other else 'one of them'}")
            continue
        if aspect.name in _DECIDING:
            (less if is_clearly_less(own, other) else not_less).append(aspect.name)
        said.append(f"{aspect.name} {aspect.show(own)} against {aspect.show(other)} ({_say_ratio(own, other)})")
    return less, not_less, unknown, said


def _say_ratio(own: float, other: float) -> str:
    if is_clearly_less(own, other):
        return f"{100 * (1 - own / other):.0f} % less"
    if not is_clearly_less(other, own):
        return "about as much"
    return f"{own / other:.1f} times as much" if own >= 1.5 * other else f"{100 * (own / other - 1):.0f} % more"


def _describe_latency(one: ModelResult, other: ModelResult) -> str:
    """One sentence, "" where neither was timed."""
    a, b = one.cost, other.cost
    if a is None or b is None or a.latency_ms is None or b.latency_ms is None:
        return ""
    names = f"{say_name(one.name)} and {say_name(other.name)}"
    sizes = "" if one.image_size == other.image_size else f", of {one.image_size} and {other.image_size} px"
    times = f"{format_milliseconds(a.latency_ms)} and {format_milliseconds(b.latency_ms)}"
    figures = f"{times} a picture (median, batch 1{sizes})"
    if a.device != b.device:
        return (
            f"Latencies of {names}: {figures}, on different devices ({say_name(a.device)}; {say_name(b.device)}): they "
            "say nothing of which is faster."
        )
    end = f"{figures}, on {say_name(a.device)}"
    words = {
        "same": f"are equal within noise: {end}.",
        "noisy": f"cannot be told apart, for single pictures vary too much: {end}; measure on a quiet machine.",
        "less": f"differ, the first is faster: {end}.",
        "more": f"differ, the first is slower: {end}.",
    }
    return f"Latencies of {names} {words[_compare_latencies(a, b)]}"


def _compare_latencies(a: CostResult, b: CostResult) -> str:
    """`less` or `more` where the medians differ by more than 5 % and by more than single pictures vary (p95 above the
    median); else `same`, or `noisy` where pictures vary so much that the medians may well differ.
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
