"""Answers about skeletons: which action is done when, and how sure that is.

Legend: N rows of a table, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.types import Answer, Table
from sharpstudent.data.arrays import describe_classes
from sharpstudent.report.results import Plain

MOST_ACTIONS = 10_000  # of one input that an answer lists
SHOWN = 5  # actions in a sentence
PARTIAL_SECONDS = 30.0  # of an input between two partial answers


class TimedAction(Plain):
    """An action of an input: when it begins and ends [s], its class, and the probability of that."""

    start: float
    end: float
    action: str
    probability: float


class MotionDetails(Plain):
    """What predictions.json says of a moving skeleton besides the answer.

    Attributes:
        temperature: The stored temperature of the logits; null where none is stored.
        windows: The number of windows; null for arrays that are no recording.
        ms_a_window: The time for each window, reading and model [ms]; null for such arrays.
        actions: Neighbouring windows of one class.
        classes: The names of the classes, for such arrays.
    """

    temperature: float | None
    windows: int | None = None
    ms_a_window: float | None = None
    actions: tuple[TimedAction, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass
class Action:
    """Neighbouring windows of one class.

    Attributes:
        start: When it begins [s].
        end: When it ends [s].
        name: The class.
        probability: The mean probability of the class over the windows, 0..1.
        windows: The number of windows.
    """

    start: float
    end: float
    name: str
    probability: float
    windows: int = 1

    def extend(self, end: float, probability: float) -> None:
        """Take one window more."""
        self.windows += 1
        self.end, self.probability = end, self.probability + (probability - self.probability) / self.windows


def describe_actions(tables: Iterator[Table], stored: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Answer]:
    """Say which action is done when, as far as an input has been read.

    Args:
        tables: The rows of the input as they come, with `logits`, `start` and `end`; rows of streams lack the last two.
        stored: The description of the model; its `calibration` has the temperature.
        classes: The names of the classes (C,).

    Yields:
        Answers, the last of them final.
    """
    temperature = (stored.get("calibration") or {}).get("temperature")
    found, windows, said, begun = list[Action](), 0, 0.0, time.perf_counter()
    for table in tables:
        if "start" not in table:
            yield describe_classes([table, *tables], classes, temperature, unit="sequence")
            return
        chances = softmax(table["logits"].astype(np.float64) / (temperature or 1.0), axis=1)
        for start, end, chance in zip(table["start"], table["end"], chances, strict=True):
            _add(found, float(start), float(end), classes[int(chance.argmax())], float(chance.max()))
            windows += 1
        if found and found[-1].end - said >= PARTIAL_SECONDS:
            said = found[-1].end
            yield _describe(found, windows, begun, temperature)
    yield _describe(found, windows, begun, temperature)


def _add(found: list[Action], start: float, end: float, name: str, probability: float) -> None:
    if found and found[-1].name == name and start <= found[-1].end:
        found[-1].extend(end, probability)
    elif len(found) < MOST_ACTIONS:
        if found:
            found[-1].end = min(found[-1].end, max(start, found[-1].start))
        found.append(Action(start, end, name, probability))


def _describe(found: Sequence[Action], windows: int, begun: float, temperature: float | None) -> Answer:
    if not found:
        return Answer(outcome="nothing", sentence="There is no moving body in it.")
    kind = "calibrated probability" if temperature is not None else "probability that is not calibrated"
    longest = max(found, key=lambda one: one.end - one.start)
    milliseconds = (time.perf_counter() - begun) / windows * 1000.0
    if windows == 1:
        sentence = f"{longest.name}, with a {kind} of {100.0 * longest.probability:.1f} %."
    else:
        shown = "; ".join(f"{one.start:.1f} to {one.end:.1f} s {one.name}" for one in found[:SHOWN])
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        sentence = f"{shown}{more}."
    actions = tuple(
        TimedAction(
            start=round(one.start, 3), end=round(one.end, 3), action=one.name, probability=round(one.probability, 6)
        )
        for one in found
    )
    return Answer(
        outcome=longest.name,
        sentence=sentence,
        reasons=(f"{format_count_of(windows, 'window')}; {milliseconds:.1f} ms for each, reading and model.",),
        score=longest.probability,
        details=MotionDetails(
            temperature=temperature, windows=windows, ms_a_window=round(milliseconds, 2), actions=actions
        ).model_dump(mode="json", exclude={"classes"}),
        columns=tuple(TimedAction.model_fields),
        rows=[tuple(action.model_dump().values()) for action in actions],
    )
