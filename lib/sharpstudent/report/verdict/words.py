"""How a verdict speaks of data sets and figures.

The data sets of some results as a verdict speaks of them, and where the figures of each are found.

How a verdict says a figure: with its interval, what it is over, and which side of a reference it lies on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sharpstudent.report.results import ComparisonResult, DataResult, FigureResult, ModelResult, Results
from sharpstudent.report.text import MINUS, show

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


VALIDATION = ("val", "validation")


@dataclass(frozen=True)
class JudgedSet:
    """name: of the source, "" where no part has one; is_alone: its figures may stand without a name; about: where the
    results hold it.
    """

    name: str
    is_alone: bool
    about: DataResult | None = None

    @property
    def title(self) -> str:
        """As sentences say it."""
        return say_name(self.name) if self.name else "the data judged"

    @property
    def is_validation(self) -> bool:
        """Whether it chose the checkpoint or the thresholds."""
        return self.about is not None and (self.about.kind == "validation" or self.about.split in VALIDATION)

    def find(self, model: ModelResult, figure: str) -> FigureResult | None:
        """A figure of this set by its name without a part; None where it is absent."""
        found = model.figures.get(f"{figure}@{self.name}") if self.name else None
        return model.figures.get(figure) if found is None and self.is_alone else found

    def count(self, model: ModelResult, figure: str) -> int | None:
        found = self.find(model, figure)
        return None if found is None or found.value is None else round(found.value)

    def has_videos(self, model: ModelResult) -> bool:
        """Whether any video has more than one frame: else its figures are those of frames once more."""
        frames, videos = self.count(model, "frame_count"), self.count(model, "video_count")
        return frames is None or videos is None or videos < frames

    def list_kinds(self, model: ModelResult) -> dict[str, FigureResult]:
        """Frame AUC by kind of fake, of those that have one."""
        start = f"frame_auc@{self.name}/"
        found = {name.removeprefix(start): one for name, one in model.figures.items() if name.startswith(start)}
        return {kind: figure for kind, figure in found.items() if figure.value is not None}

    def say_over(self, model: ModelResult, unit: str = "frame") -> str:
        """`336 frames of 42 people`; unit: frame or video; "" where nothing was counted."""
        samples, people = self.count(model, f"{unit}_count"), self.count(model, "people_count")
        if samples is None and self.about is not None:
            samples = self.about.videos if unit == "video" else self.about.real + self.about.fake
        if people is None and self.about is not None:
            people = self.about.people
        if samples is None:
            return ""
        return f"{samples:,} {unit}s" + ("" if people is None else f" of {say_people(people)}")


def say_people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


def list_sets(results: Results) -> list[JudgedSet]:
    """Those that the results name; else those in the names of figures; else one without a name. Validation last."""
    abouts = {about.name: about for about in results.data}
    names = list(abouts) or _read_sources(results)
    if not names:
        return [JudgedSet("", is_alone=True)]
    sets = [JudgedSet(name, len(names) == 1, abouts.get(name)) for name in names]
    return sorted(sets, key=lambda one: one.is_validation)


def find_comparison(
    results: Results, a: ModelResult, b: ModelResult, figure: str, judged: JudgedSet
) -> ComparisonResult | None:
    """a minus b on this set, whichever way round it was made."""
    names = [f"{figure}@{judged.name}", *([figure] if judged.is_alone else [])]
    for name in names:
        for one in results.comparisons:
            if one.figure == name and (one.a, one.b) == (a.name, b.name):
                return one
            if one.figure == name and (one.a, one.b) == (b.name, a.name):
                return one.model_copy(update={"a": a.name, "b": b.name, "difference": turn(one.difference)})
    return None


def _read_sources(results: Results) -> list[str]:
    parts = (name.partition("@")[2].partition("/")[0] for model in results.models for name in model.figures)
    return list(dict.fromkeys(part for part in parts if part))
