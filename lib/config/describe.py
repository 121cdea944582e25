"""What `--print-config` shows: the resolved config and the loss weights by epoch, in the two-stage guide's layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.config.build_schedule import build_schedule
from lib.config.sections import SCRIPTS, RunConfig, ScheduleSection
from lib.schedules import Progress

HEADINGS = ("Epoch", "Alpha", "Hard Labels", "Soft Labels (Teacher)")


@dataclass(frozen=True)
class WeightRange:
    """Epochs first..last with constant weights; `last` is None where the weights stay for ever."""

    first: int
    last: int | None
    hard: float
    soft: float


def print_resolved(config: RunConfig) -> str:
    """A header line, the config as JSON, and in stage 2 the table of the weights by epoch."""
    header = f"Resolved config of stage {config.stage} ({SCRIPTS[config.stage]}), run {config.name}:"
    parts = [header, config.model_dump_json(indent=2)]
    if config.stage == 2:
        parts += ["", "Weights of the loss by epoch (alpha is the weight of the hard labels):", "", alpha_table(config)]
    return "\n".join(parts)


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
