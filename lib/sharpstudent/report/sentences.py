"""Parts of the sentences of reports: estimates, differences, shares, and what keeps a question open.

An interval that covers 0, or chance, leaves a question open; the word for it is *inconclusive*. In square brackets are
95 % intervals. No sentence of a report has more than MOST_WORDS words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.report.results import EvaluationResults, MetricValue, ModelBase, PairBase, Role
from sharpstudent.report.text import MINUS, format_p_value

Model = TypeVar("Model", bound=ModelBase)
Pair = TypeVar("Pair", bound=PairBase)
Side = Literal["above", "below", "open", "few", "unknown"]
NO_DIFFERENCE = 0.0
MOST_DIGITS = 6  # no sentence claims a difference that this many digits do not show
_ORDER: tuple[Role, ...] = ("teacher", "before", "control", "model", "distilled")  # from top to bottom of a tile
MOST_WORDS = 30  # of a sentence; a word holds a letter or a digit


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
        The reason, to be put after a colon.
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
    """Say over how many seeds comparisons are means; "" where each model was trained once (`describe_one_seed`)."""
    seeds = min((pair.seeds for pair in pairs), default=1)
    return f"These are means over {seeds} seeds, and their intervals hold the spread over seeds." if seeds > 1 else ""


def describe_one_seed(models: Sequence[ModelBase]) -> list[str]:
    """Say which models were trained with one seed only: another seed may turn the answer."""
    several = {model.seed_of for model in models}
    once = [model for model in find_main(models) if model.name not in several]
    if not once:
        return []
    who = "Each model" if len(models) > 1 else "It"
    remedy = "name several runs of a role, such as --distilled RUN_1 --distilled RUN_2 in compare_models.py"
    return [f"{who} was trained once, with one seed, and another seed may turn the answer: {remedy}."]


def describe_as_good(pair: PairBase, names: tuple[str, str]) -> str:
    """Say which of two models is shown to be as good as the other, but for the margin.

    Args:
        pair: The two models.
        names: The names of a and b.

    Returns:
        A clause, with what separates it; "" where it is shown of neither.
    """
    test = pair.non_inferiority
    if test is None or not test.as_good:
        return ""
    margin = round_number(test.margin, (NO_DIFFERENCE,), digits=2).removeprefix("0")
    if len(test.as_good) == 2:
        return f"; each is as good as the other within {margin} (p {format_p_value(max(test.p_a, test.p_b))})"
    good, other = names if test.as_good == ("a",) else names[::-1]
    return f"; {good} is as good as {other} within {margin} (p {format_p_value(min(test.p_a, test.p_b))})"


def describe_estimate(estimate: MetricValue, *more: str, references: tuple[float, ...] = ()) -> str:
    """Format a value with its interval: `.902 [.880, .927] (336 frames of 42 people)`.

    Args:
        estimate: A value with its interval.
        more: Texts that follow the interval, in round brackets.
        references: Values, such as chance, that no other value may be rounded to.

    Returns:
        The text.
    """
    return _describe(estimate, more, lambda value: round_number(value, references))


def describe_difference(estimate: MetricValue, *more: str) -> str:
    """Format a difference: `+.107 [+.074, +.142]`. An end beside 0 is never rounded to 0.

    Args:
        estimate: The difference with its interval.
        more: Texts that follow the interval, in round brackets.

    Returns:
        The text.
    """
    return _describe(estimate, more, _round_difference)


def describe_rate(estimate: MetricValue, *more: str) -> str:
    """Format a rate in 0..1 as a percentage: `2.3 % [1.0 %, 4.1 %]`.

    Args:
        estimate: The rate with its interval.
        more: Texts that follow the interval, in round brackets.

    Returns:
        The text.
    """
    return _describe(estimate, more, describe_share)


def describe_share(share: float) -> str:
    """Format a share in 0..1 as a percentage, `3.4 %`; it is never rounded to 0 or 100 %."""
    return f"{round_number(100 * share, (0.0, 100.0), digits=1)} %"


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


def join(parts: Sequence[str]) -> str:
    """List parts as prose: `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def join_some(parts: Sequence[str], most: int = 3) -> str:
    """List parts as prose, but no more than `most` of them by name: `a, b and 4 more`."""
    return join(parts) if len(parts) <= most else join([*parts[: most - 1], f"{len(parts) - most + 1} more"])


def find_role(models: Sequence[Model], role: Role) -> list[Model]:
    """List the models of one role, in their order; of several seeds the first.

    Args:
        models: The models of the results.
        role: The role in the comparison of two stages.

    Returns:
        The models that have it.
    """
    return [model for model in models if model.role == role and model.seed_of is None]


def list_parts(results: EvaluationResults) -> list[str]:
    """List the sets whose metrics are spoken of: each of several, "" for the only one."""
    return [one.name for one in results.data] if len(results.data) > 1 else [""]


def list_seeds(models: Sequence[ModelBase]) -> list[tuple[ModelBase, list[int]]]:
    """List the models in the order of a tile's rows, the main one last, each with the numbers of its seeds.

    Args:
        models: The models of the results (M,).

    Returns:
        The first model of each, and the numbers of all its seeds (S,).
    """
    firsts = [number for number, model in enumerate(models) if model.seed_of is None]
    firsts.sort(key=lambda number: _ORDER.index(models[number].role))
    return [
        (models[first], [first, *(n for n, other in enumerate(models) if other.seed_of == models[first].name)])
        for first in firsts
    ]


def find_main(models: Sequence[Model]) -> list[Model]:
    """List the models that a report is about: distilled ones and those without a role, else all; of seeds the first."""
    chosen = find_role(models, "distilled") + find_role(models, "model")
    return chosen or [model for model in models if model.seed_of is None]


def round_number(value: float, references: tuple[float, ...], *, digits: int = 3) -> str:
    """Round to `digits`, or to more digits where fewer would show one of the references.

    Args:
        value: The number.
        references: Numbers that another one may not be rounded to.
        digits: How many digits follow the point where that is enough.

    Returns:
        The text, without the zero before the point from three digits on.
    """
    fitting = [
        n for n in range(digits, MOST_DIGITS + 1) if not any(round(value, n) == one != value for one in references)
    ]
    text = f"{value:.{fitting[0] if fitting else digits}f}"
    return text.replace("0.", ".", 1) if text.startswith("0.") and float(text) != 0 and digits >= 3 else text


def _describe(estimate: MetricValue, more: tuple[str, ...], to_text: Callable[[float], str]) -> str:
    if estimate.value is None:
        return f"no value ({clean_name(estimate.note or 'no reason is given')})"
    if estimate.low is None or estimate.high is None:
        ends, more = "", (clean_name(estimate.note) if estimate.note else "no interval", *more)
    else:
        ends = f" [{to_text(estimate.low)}, {to_text(estimate.high)}]"
    inside = "; ".join(filter(None, more))
    return f"{to_text(estimate.value)}{ends}{f' ({inside})' if inside else ''}"


def _round_difference(value: float) -> str:
    text = round_number(abs(value), (NO_DIFFERENCE,))
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"
