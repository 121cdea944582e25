"""Numbers as a report shows them: on the page, in Markdown and on the console.

They are formatted for readers: `.893 [.871, .914]`, `18.6 %`, `4.8 MB`, a dash where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

from sharpstudent.report.results import MetricValue


def capitalize_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def to_sentences(notes: Iterable[str]) -> str:
    """Join notes to sentences, each of which begins with a capital letter and ends with a full stop."""
    return " ".join(
        f"{capitalize_first(note)}{'' if note.endswith(('.', '!', '?')) else '.'}" for note in notes if note
    )


def lower_first(text: str) -> str:
    """Return the text with a small first letter."""
    return text[:1].lower() + text[1:]


DASH, MINUS = "–", "−"
NARROW = "\u00a0"  # a space where a line is never broken
Unit = Literal["share", "percent", "nats", "count"]


def format_value(value: float | None, unit: Unit) -> str:
    """Format a number: `.893`, `18.6 %`, `0.412`, `1,168`.

    Args:
        value: The number; None gives a dash.
        unit: `share` or `percent` for a value in 0..1, `nats`, or `count`.

    Returns:
        The text.
    """
    return DASH if value is None else _FORMATS[unit](value)


def format_in(value: float | None, form: str) -> str:
    """Format a number by a unit of `format_value`, or as Python's `format` takes it: `.904`, `60.3 %`, `0.9021`.

    Args:
        value: The number; None gives a dash.
        form: `share`, `percent`, ..., or a format such as `.4f`.

    Returns:
        The text.
    """
    if value is None:
        return DASH
    for unit, to_text in _FORMATS.items():
        if form == unit:
            return to_text(value)
    text = f"{value:{form}}"
    return f"{text[:-1]}{NARROW}%" if text.endswith("%") else text


# A number, a space and the unit that it never parts from.
_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|px|[kMG]|[kMG]?B|epochs?)(?![\w]))")


# The two ends of an interval, `[.864, .932]`, and a p-value, `p .016`.
_ENDS = re.compile(rf"(?<=\[)([+{MINUS}-]?[\d.,]*\d(?: %)?), ([+{MINUS}-]?[\d.,]*\d(?: %)?)(?=\])")
_P_VALUE = re.compile(r"\bp (?=(?:< ?)?\.\d)")


def bind_units(text: str) -> str:
    """Bind a number to its unit, both ends of an interval, and p to its value by spaces at which no line breaks."""
    bound = _NUMBER_AND_UNIT.sub(NARROW, _ENDS.sub(rf"\1,{NARROW}\2", text))
    return _P_VALUE.sub(f"p{NARROW}", bound).replace("< .", f"<{NARROW}.")


def format_interval(low: float | None, high: float | None, unit: Unit) -> str:
    """Format an interval: `[.871, .914]`, `[17.0, 20.3] %`.

    Args:
        low: The lower end; None where there is none.
        high: The upper end; None where there is none.
        unit: As in `format_value`.

    Returns:
        The text, empty where an end is None.
    """
    if low is None or high is None:
        return ""
    if unit == "percent":
        return f"[{_format_percent(low)[:-2]}, {_format_percent(high)[:-2]}]{NARROW}%"
    return f"[{format_value(low, unit)}, {format_value(high, unit)}]"


def format_estimate(estimate: MetricValue | None, unit: Unit) -> str:
    """Format a value with its interval: `.902 [.880, .927]`.

    Args:
        estimate: The value with its interval; None gives a dash.
        unit: As in `format_value`.

    Returns:
        The text.
    """
    if estimate is None or estimate.value is None:
        return DASH
    return f"{format_value(estimate.value, unit)} {format_interval(estimate.low, estimate.high, unit)}".rstrip()


def format_difference(value: float | None) -> str:
    """Format a difference with its sign: `+.021`, `−.004`."""
    if value is None:
        return DASH
    digits = _format_share(abs(value))
    return digits if float(digits) == 0 else f"{'+' if value > 0 else MINUS}{digits}"


def format_probability(value: float) -> str:
    """Format a probability in per cent; it never claims certainty: `99.3 %`, `> 99.9 %`, `< 0.1 %`."""
    if value > 0.999:
        return f"> 99.9{NARROW}%"
    return f"< 0.1{NARROW}%" if value < 0.001 else f"{100 * value:.1f}{NARROW}%"


def format_p_value(value: float | None) -> str:
    """Format a two-sided p-value: `.031`, `< .001`."""
    if value is None:
        return DASH
    return "< .001" if value < 0.001 else _format_share(value)


def format_count(value: int | None) -> str:
    """Format a count: `12,345`."""
    return DASH if value is None else f"{value:,}"


def format_bytes(value: int | None) -> str:
    """Format a size in powers of ten: `4.8 MB`."""
    return _scale(value, (1e9, 1e9, "{:.1f} GB"), (1e6, 1e6, "{:.1f} MB"), (1e3, 1e3, "{:.1f} kB"), (0, 1, "{:.0f} B"))


def format_macs(value: int | None) -> str:
    """Format multiply-accumulates: `1.39 G`, `98.7 M`, `46.1 k`."""
    return _scale(value, (1e9, 1e9, "{:.2f} G"), (1e6, 1e6, "{:.1f} M"), (0, 1e3, "{:.1f} k"))


def format_parameters(count: int | None) -> str:
    """Format a number of parameters: `19.34 M`, `1.12 M`, `12.3 k`."""
    return _scale(count, (1e5, 1e6, "{:.2f} M"), (0, 1e3, "{:.1f} k"))


def format_milliseconds(value: float | None) -> str:
    """Format a time: `30.1 ms`, `0.31 ms`."""
    return _scale(value, (1, 1, "{:.1f} ms"), (0, 1, "{:.2f} ms"))


def _scale(value: float | None, *forms: tuple[float, float, str]) -> str:
    """Format with the first form whose least value is reached; a form is (least value, size of the unit, text)."""
    if value is None:
        return DASH
    _, size, text = next(form for form in forms if value >= form[0])
    return text.format(value / size)


def format_moment(written: str) -> str:
    """Format an ISO 8601 time, `8 August 2026, 12:30 UTC`; any other text stays as it is."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return written
    zone = " UTC" if moment.utcoffset() == timedelta(0) else ""
    return f"{moment.day} {moment:%B} {moment.year}, {moment:%H:%M}{zone}"


def _format_share(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _format_percent(value: float) -> str:
    rate = 100 * value
    return f"{rate:.2f}{NARROW}%" if 0 < rate < 0.95 else f"{rate:.1f}{NARROW}%"


_FORMATS: dict[Unit, Callable[[float], str]] = {
    "share": _format_share,
    "percent": _format_percent,
    "nats": lambda value: f"{value:.3f}",
    "count": lambda value: f"{value:,.0f}",
}
