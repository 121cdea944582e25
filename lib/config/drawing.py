"""Schedules drawn in plain text, for `--print-config`: ASCII, 100 columns at most, no colours."""

from __future__ import annotations

import textwrap

from lib.config.words import show
from lib.schedules import Progress, Schedule

COLUMNS = 60  # of a drawing; with the scale at its left it keeps well within a terminal of 100
ROWS = 5
WIDEST = 100
STEPS = 100  # an epoch, for the drawing: config knows no data, and so not how many steps an epoch really has
MOST_TURNS = 1000  # as many stairs are a slope
MOST_RANGES = 12  # more would be a page of numbers, which the drawing shows better


def draw(name: str, schedule: Schedule, epochs: int, turns: list[int]) -> str | None:
    """A heading with the first and the last value, then the curve over the run, or None for what does not move in it.

    turns: the epochs in which the schedule can change. Where it moves from epoch to epoch only, its ranges are named.
    """
    ranges = _find_ranges(schedule, epochs, turns)
    samples = [schedule(_locate(column, epochs)) for column in range(COLUMNS)]
    if len(set(samples)) == 1 and (ranges is None or len(ranges) == 1):
        return None
    heading = f"{name}: {_show(samples[0])} at the first step, {_show(samples[-1])} at the last"
    if ranges is not None and len(ranges) <= MOST_RANGES:
        words = [
            f"{_show(value)} in {first}" if first == last else f"{_show(value)} in {first}-{last}"
            for first, last, value in ranges
        ]
        heading = f"{name} by epoch: {', '.join(words)}"
    lines = textwrap.wrap(heading, WIDEST, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, *_plot(samples, epochs)])


def _locate(column: int, epochs: int) -> Progress:
    """The step that a column stands for: the first of the run in the first column, the last one in the last."""
    step = column * (epochs * STEPS - 1) // (COLUMNS - 1)
    return Progress(step // STEPS + 1, step % STEPS, epochs, STEPS)


def _find_ranges(schedule: Schedule, epochs: int, turns: list[int]) -> list[tuple[int, int, float]] | None:
    """(first, last, value) of epochs with one value, or None where the value moves within an epoch."""
    starts = sorted({1, *(turn for turn in turns if 1 <= turn <= epochs)})
    if len(starts) > MOST_TURNS:
        return None
    ranges: list[tuple[int, int, float]] = []
    for start, end in zip(starts, [*(start - 1 for start in starts[1:]), epochs], strict=True):
        values = {schedule(Progress(epoch, step, epochs, STEPS)) for epoch in (start, end) for step in (0, STEPS - 1)}
        if len(values) > 1:
            return None
        value = values.pop()
        if ranges and ranges[-1][2] == value:
            start = ranges.pop()[0]
        ranges.append((start, end, value))
    return ranges


def _plot(samples: list[float], epochs: int) -> list[str]:
    """One `*` a column, the highest value in the top row, the lowest in the bottom row, and the epochs below."""
    low, high = min(samples), max(samples)
    labels = {0: _show(high), ROWS - 1: _show(low)}
    width = max(map(len, labels.values()))
    # In shares of the half range: the whole one may exceed what a double holds.
    half = high / 2 - low / 2
    places = [ROWS - 1 if half == 0.0 else round((ROWS - 1) * (1.0 - (s / 2 - low / 2) / half)) for s in samples]
    rows = [
        f"  {labels.get(row, '').rjust(width)} |{''.join('*' if place == row else ' ' for place in places)}".rstrip()
        for row in range(ROWS)
    ]
    last = f"epoch {epochs}"
    axis = f"  {' ' * width} +{'-' * COLUMNS}"
    return [*rows, axis, f"  {' ' * width}  epoch 1{last.rjust(COLUMNS - len('epoch 1'))}"]


def _show(value: float) -> str:
    """Four digits are enough for the eye; the config above has them all."""
    return show(float(f"{value:.4g}")).removesuffix(".0")
