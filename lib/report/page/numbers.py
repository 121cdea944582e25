"""Numbers as a reader has them: `.893 [.871, .914]`, `18.6 %`, `4.8 MB`; a dash where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from lib.report.comparison import format_milliseconds, format_parameters

DASH, MINUS = "–", "−"
NARROW = "\u00a0"  # a space where a line is never broken
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
Unit = Literal["share", "percent", "nats", "count"]


def format_value(value: float | None, unit: Unit) -> str:
    """`.893`, `18.6 %`, `0.412`, `1,168`."""
    return DASH if value is None else _FORMATS[unit](value)


def format_interval(low: float | None, high: float | None, unit: Unit) -> str:
    """`[.871, .914]`, `[17.0, 20.3] %`; nothing where an end has no value."""
    if low is None or high is None:
        return ""
    if unit == "percent":
        return f"[{_format_percent(low)[:-2]}, {_format_percent(high)[:-2]}]{NARROW}%"
    return f"[{format_value(low, unit)}, {format_value(high, unit)}]"


def format_difference(value: float | None) -> str:
    """`+.021`, `−.004`, with its sign."""
    if value is None:
        return DASH
    digits = _format_share(abs(value))
    return digits if float(digits) == 0 else f"{'+' if value > 0 else MINUS}{digits}"


def format_probability(value: float) -> str:
    """A probability in per cent that never claims certainty: `99.3 %`, `> 99.9 %`, `< 0.1 %`."""
    if value > 0.999:
        return f"> 99.9{NARROW}%"
    return f"< 0.1{NARROW}%" if value < 0.001 else f"{100 * value:.1f}{NARROW}%"


def format_p_value(value: float | None) -> str:
    """`.031`, `< .001`, of two sides."""
    if value is None:
        return DASH
    return "< .001" if value < 0.001 else _format_share(value)


def format_count(value: int | None) -> str:
    """`12,345`."""
    return DASH if value is None else f"{value:,}"


def format_bytes(value: int | None) -> str:
    """`4.8 MB`, powers of ten."""
    if value is None:
        return DASH
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"


def format_macs(value: int | None) -> str:
    """`1.39 G`, `98.7 M` multiply-accumulates."""
    if value is None:
        return DASH
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def format_count_of_parameters(value: int | None) -> str:
    """`19.34 M`."""
    return DASH if value is None else format_parameters(value)


def format_latency(value: float | None) -> str:
    """`30.1 ms`."""
    return DASH if value is None else format_milliseconds(value)


def format_moment(written: str) -> str:
    """`2026-08-08T12:30:00+00:00` as `8 August 2026, 12:30 UTC`; a text of another form as it is."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return written
    zone = " UTC" if moment.utcoffset() == timedelta(0) else ""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M}{zone}"


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
