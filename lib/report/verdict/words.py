"""How a verdict says a figure: with its interval, what it is over, and which side of a reference it lies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from lib.report.page.numbers import MINUS
from lib.report.page.text import show
from lib.report.results import FigureResult

Side = Literal["above", "below", "open", "unknown"]
CHANCE, NO_DIFFERENCE = 0.5, 0.0
MOST_DIGITS = 6  # what these cannot show is claimed by no sentence


def find_side(figure: FigureResult | None, reference: float) -> Side:
    """Where the whole interval lies; `open` where it covers, touches or nearly touches the reference, `unknown` where
    there is none.
    """
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "unknown"
    if round(figure.low, MOST_DIGITS) > reference:
        return "above"
    return "below" if round(figure.high, MOST_DIGITS) < reference else "open"


def say_name(name: str) -> str:
    """A name that users gave, on one line."""
    return " ".join(show(name).split()) or "unnamed"


def say_auc(figure: FigureResult, *more: str) -> str:
    """`.902 (95 % interval .880 to .927; 336 frames of 42 people)`; more: what follows in the brackets."""
    return _say(figure, more, lambda value: _round(value, (CHANCE, 1.0)))


def say_difference(figure: FigureResult, *more: str) -> str:
    """`+.107 (95 % interval +.074 to +.142)`. An end beside 0 is never rounded to it."""
    return _say(figure, more, _round_difference)


def say_rate(figure: FigureResult, *more: str) -> str:
    """`2.3 % (95 % interval 1.0 % to 4.1 %)`."""
    return _say(figure, more, lambda value: f"{_round(100 * value, (0.0, 100.0), digits=1)} %")


def say_share(share: float) -> str:
    """`3.4 %`; never 0 or all where it is not."""
    return f"{_round(100 * share, (0.0, 100.0), digits=1)} %"


def turn(figure: FigureResult) -> FigureResult:
    """The difference the other way round."""
    value, low, high = (None if v is None else 0.0 - v for v in (figure.value, figure.high, figure.low))
    return FigureResult(value=value, low=low, high=high, note=figure.note)


def join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _say(figure: FigureResult, more: tuple[str, ...], to_text: Callable[[float], str]) -> str:
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
