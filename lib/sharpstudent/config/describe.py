"""What `--print-config` prints: the resolved config, and how each scheduled number changes; warnings of odd numbers.

Where the loss follows the two-stage guide, the weights by epoch are printed as the guide prints them.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import BaseModel

from sharpstudent.config.messages import describe_usual, show
from sharpstudent.config.run_config import SCRIPTS, USUAL, RunConfig
from sharpstudent.config.scheduled import build_lr_schedule, build_rho_schedule, probe
from sharpstudent.core.schedules import ConfigSchedule, Constant, Progress, Schedule

WIDEST = 100  # characters of a line
STEPS = 100  # steps per epoch that are assumed here: how many there really are depends on the data, which is not open
MOST_EPOCHS = 10_000  # of a longer run, only the first and the last value are shown
MOST_RANGES = 12  # more ranges are shown as the first and the last value only


HEADINGS = ("Epoch", "Alpha", "Hard Labels", "Soft Labels (Teacher)")


@dataclass(frozen=True)
class WeightRange:
    """A range of epochs in which both weights of the loss are constant.

    Attributes:
        first: The first epoch.
        last: The last epoch; None where the weights never change again.
        hard: Weight of the hard labels.
        soft: Weight of the teacher.
    """

    first: int
    last: int | None
    hard: float
    soft: float


def print_resolved(config: RunConfig) -> str:
    """Print the config as JSON under a heading, then the table of alpha if the loss has one, then the schedules."""
    header = f"Resolved config of stage {config.stage} ({SCRIPTS[config.stage]}), run {config.name}:"
    parts = [header, config.model_dump_json(indent=2)]
    if _has_alpha(config):
        parts += ["", "Weights of the loss by epoch (alpha is the weight of the hard labels):", "", alpha_table(config)]
    scheduled = describe_scheduled(config)
    if scheduled:
        parts += ["", f"Schedules (with {STEPS} steps an epoch; how many there are depends on the data):", *scheduled]
    return "\n".join(parts)


def describe_scheduled(config: RunConfig) -> list[str]:
    """Describe each number that changes in this run by a line: weights and settings of the terms in order, lr, rho."""
    numbers: list[tuple[str, Schedule]] = []
    for term in config.criterion:
        numbers += [
            (f"{term.name}/{name}", number) for name, number in (("weight", term.weight), *term.numbers.items())
        ]
    numbers += [("lr", build_lr_schedule(config.optimizer)), ("rho", build_rho_schedule(config.optimizer))]
    found = [_describe_schedule(name, schedule, config.training.epochs) for name, schedule in numbers]
    return [textwrap.fill(line, WIDEST, subsequent_indent="    ", break_on_hyphens=False) for line in found if line]


def _describe_schedule(name: str, schedule: Schedule, epochs: int) -> str | None:
    """Give the value in each range of epochs, or the first and the last value; None for a number that never changes."""
    shown = range(1, epochs + 1) if epochs <= MOST_EPOCHS else (1, epochs)
    pairs = [tuple(schedule(Progress(epoch, step, epochs, STEPS)) for step in (0, STEPS - 1)) for epoch in shown]
    values = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    if len(values) == 1:
        return None
    ranges = [[epoch for epoch, _ in group] for _, group in itertools.groupby(zip(shown, pairs, strict=True), _second)]
    if epochs > MOST_EPOCHS or len(ranges) > MOST_RANGES or any(first != last for first, last in pairs):
        return f"{name}: {_show(pairs[0][0])} at the first step, {_show(pairs[-1][1])} at the last"
    parts = [f"{_show(pairs[own[0] - 1][0])} in {_show_epochs(own[0], own[-1])}" for own in ranges]
    return f"{name} by epoch: {', '.join(parts)}"


def _second(pair: tuple[int, tuple[float, ...]]) -> tuple[float, ...]:
    return pair[1]


def describe_unusual(
    keys: BaseModel, epochs: int, *, group: BaseModel | None, name: str, idle: Collection[str] = ()
) -> list[str]:
    """Warn of numbers outside the range in which their keys make sense (`run_config.usual`).

    Args:
        keys: The keys with the values of one stage.
        epochs: Number of epochs of the stage, for schedules.
        group: The group of keys that have precedence in the stage; None where there is none.
        name: What messages put before a key: that of the group, or of a place in a list.
        idle: Keys without effect in the stage.

    Returns:
        A sentence for each such number.
    """
    notes: list[str] = []
    for key, info in type(keys).model_fields.items():
        extra = info.json_schema_extra
        value = getattr(keys, key)
        if key in idle or not isinstance(extra, dict) or USUAL not in extra or value is None:
            continue
        found = cast(dict[str, Any], extra[USUAL])
        odd = [one for one in _list_values(value, epochs) if not _is_usual(one, found)]
        if odd:
            place = f"{name}.{key}" if group is None or getattr(group, key, None) is not None else key
            notes.append(f"warning: {place} is {odd[0]:.6g}, {describe_usual(found)} is usual: {found['beyond']}")
    return notes


def _list_values(value: Any, epochs: int) -> list[float]:
    """List the values of a number, of a schedule, or of several numbers such as those of three channels."""
    if isinstance(value, ConfigSchedule):
        return [one for _, one in probe(value, epochs)]
    return [value] if isinstance(value, int | float) else [*value]


def _is_usual(value: float, found: Mapping[str, Any]) -> bool:
    low, high = found["low"], found["high"]
    return (low is None or value >= low) and (high is None or value <= high)


def _show(value: float) -> str:
    """Format a value with four digits; the printed config above the lines has all digits."""
    return show(float(f"{value:.4g}")).removesuffix(".0")


def _has_alpha(config: RunConfig) -> bool:
    """Whether the loss is alpha * hard + (1 - alpha) * kd, where alpha can change between epochs only."""
    if config.stage != 2 or [term.name for term in config.criterion] != ["hard", "kd"]:
        return False
    hard, kd = (term.weight for term in config.criterion)
    return hard.kind in ("constant", "staircase") and kd == replace(hard, complement=True)


def alpha_table(config: RunConfig) -> str:
    """`| Epoch | Alpha | Hard Labels | Soft Labels (Teacher) |`, one row for each range of epochs."""
    rows = [
        (_show_epochs(row.first, row.last), _show_alpha(row.hard), _show_percent(row.hard), _show_percent(row.soft))
        for row in compute_weight_ranges(config)
    ]
    rule = tuple("-" * len(heading) for heading in HEADINGS)
    return "\n".join(_show_row(cells) for cells in (HEADINGS, rule, *rows))


def compute_weight_ranges(config: RunConfig) -> list[WeightRange]:
    """Compute the hard and soft weight of every epoch of the run; neighbouring epochs with equal weights are joined."""
    hard, soft = _find_weight(config, "hard"), _find_weight(config, "kd")
    last_change = max({1, *hard.turns, *soft.turns})
    epochs = config.training.epochs
    steps = [Progress(epoch, 0, epochs, 1) for epoch in range(1, min(epochs, last_change) + 1)]
    groups = itertools.groupby(steps, lambda step: (hard(step), soft(step)))
    found = [(values, [step.epoch for step in own]) for values, own in groups]
    ranges = [WeightRange(own[0], own[-1], *values) for values, own in found]
    return [*ranges[:-1], replace(ranges[-1], last=None if epochs >= last_change else epochs)]


def _find_weight(config: RunConfig, name: str) -> ConfigSchedule:
    return next((term.weight for term in config.criterion if term.name == name), Constant(0.0))


def _show_epochs(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"


def _show_alpha(weight: float) -> str:
    """Format a weight with two decimals as in the guide, and with up to four where they are needed."""
    digits = f"{weight:.4f}".rstrip("0")
    return digits if len(digits.split(".")[1]) > 2 else f"{weight:.2f}"


def _show_percent(weight: float) -> str:
    return f"{round(100 * weight, 2):g}%"


def _show_row(cells: tuple[str, ...]) -> str:
    padded = (cell.ljust(len(heading)) for cell, heading in zip(cells, HEADINGS, strict=True))
    return f"| {' | '.join(padded)} |"
