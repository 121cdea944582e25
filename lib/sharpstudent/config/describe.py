"""What `--print-config` shows: the resolved config, the loss weights by epoch in the two-stage guide's layout where
they follow it, and a drawing of every number that moves.

Schedules are drawn in ASCII, 100 columns at most, without colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from sharpstudent.config.messages import show
from sharpstudent.config.run_config import SCRIPTS, RunConfig, ScheduleSection
from sharpstudent.config.scheduled import build_lr_schedule, build_rho_schedule, build_schedule, list_turns
from sharpstudent.core.schedules import Progress, Schedule

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


HEADINGS = ("Epoch", "Alpha", "Hard Labels", "Soft Labels (Teacher)")


@dataclass(frozen=True)
class WeightRange:
    """Epochs first..last with constant weights; `last` is None where the weights stay for ever."""

    first: int
    last: int | None
    hard: float
    soft: float


def print_resolved(config: RunConfig) -> str:
    """A header line, the config as JSON, in stage 2 the table of alpha by epoch if there is an alpha, and drawings."""
    header = f"Resolved config of stage {config.stage} ({SCRIPTS[config.stage]}), run {config.name}:"
    parts = [header, config.model_dump_json(indent=2)]
    if _has_alpha(config):
        parts += ["", "Weights of the loss by epoch (alpha is the weight of the hard labels):", "", alpha_table(config)]
    drawings = draw_moving(config)
    if drawings:
        parts += ["", f"What moves (drawn with {STEPS} steps an epoch; how many there are depends on the data):"]
        parts += [line for drawing in drawings for line in ("", drawing)]
    return "\n".join(parts)


def draw_moving(config: RunConfig) -> list[str]:
    """A drawing for each number that moves in this run: weights and settings of the terms in order, lr, rho."""
    optimizer, epochs = config.optimizer, config.training.epochs
    found: list[tuple[str, Schedule, list[int]]] = []
    for term in config.criterion:
        for name, section in (("weight", term.weight), *term.numbers.items()):
            found.append((f"{term.name}/{name}", build_schedule(section), list_turns(section)))
    for name, schedule, section in (
        ("lr", build_lr_schedule(optimizer), optimizer.lr_schedule),
        ("rho", build_rho_schedule(optimizer), optimizer.rho_schedule),
    ):
        found.append((name, schedule, [] if section is None else list_turns(section)))
    drawings = [draw(name, schedule, epochs, turns) for name, schedule, turns in found]
    return [drawing for drawing in drawings if drawing is not None]


def _has_alpha(config: RunConfig) -> bool:
    """Whether the loss is alpha * hard + (1 - alpha) * kd, alpha moving from epoch to epoch if at all."""
    if config.stage != 2 or [term.name for term in config.criterion] != ["hard", "kd"]:
        return False
    hard, kd = (term.weight for term in config.criterion)
    return hard.kind in ("constant", "staircase") and kd == hard.model_copy(update={"complement": True})


def alpha_table(config: RunConfig) -> str:
    """`| Epoch | Alpha | Hard Labels | Soft Labels (Teacher) |`, one row for each range of epochs."""
    rows = [
        (_show_epochs(row), _show_alpha(row.hard), _show_percent(row.hard), _show_percent(row.soft))
        for row in compute_weight_ranges(config)
    ]
    rule = tuple("-" * len(heading) for heading in HEADINGS)
    return "\n".join(_show_row(cells) for cells in (HEADINGS, rule, *rows))


def compute_weight_ranges(config: RunConfig) -> list[WeightRange]:
    """Hard and soft weight for every epoch of the run, equal neighbours joined."""
    hard, soft = _find_weight(config, "hard"), _find_weight(config, "kd")
    last_change = max(_last_change(hard), _last_change(soft))
    epochs = config.training.epochs
    values = list(_compute_weights(hard, soft, min(epochs, last_change)))
    starts = [epoch for epoch, pair in enumerate(values, 1) if epoch == 1 or pair != values[epoch - 2]]
    ends: list[int | None] = [start - 1 for start in starts[1:]]
    ends.append(None if epochs >= last_change else epochs)
    return [WeightRange(first, last, *values[first - 1]) for first, last in zip(starts, ends, strict=True)]


def _find_weight(config: RunConfig, name: str) -> ScheduleSection:
    for term in config.criterion:
        if term.name == name:
            return term.weight
    return ScheduleSection(kind="constant", value=0.0)


def _last_change(section: ScheduleSection) -> int:
    """The epoch from which a schedule keeps its value."""
    return 1 if section.epochs is None else section.epochs + 1


def _compute_weights(hard: ScheduleSection, soft: ScheduleSection, epochs: int) -> Iterator[tuple[float, float]]:
    schedules = build_schedule(hard), build_schedule(soft)
    for epoch in range(1, epochs + 1):
        progress = Progress(epoch=epoch, step=0, epochs=epochs, steps_per_epoch=1)
        yield schedules[0](progress), schedules[1](progress)


def _show_epochs(row: WeightRange) -> str:
    if row.last is None:
        return f"{row.first}+"
    return str(row.first) if row.first == row.last else f"{row.first}-{row.last}"


def _show_alpha(weight: float) -> str:
    """Two decimals as in the guide, up to four where they are needed."""
    digits = f"{weight:.4f}".rstrip("0")
    return digits if len(digits.split(".")[1]) > 2 else f"{weight:.2f}"


def _show_percent(weight: float) -> str:
    return f"{round(100 * weight, 2):g}%"


def _show_row(cells: tuple[str, ...]) -> str:
    padded = (cell.ljust(len(heading)) for cell, heading in zip(cells, HEADINGS, strict=True))
    return f"| {' | '.join(padded)} |"
