"""The figures of one table of scores: values, intervals, and what has to be said beside them.

Legend: N rows; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lib.metrics.attack_errors import find_apcers
from lib.metrics.figure_list import FPRS, HALF, Figure, list_figures, name_at_fpr
from lib.metrics.interval import Interval, check_protocol, find_percentile_interval
from lib.metrics.names import number_pairs
from lib.metrics.resample_figures import resample_figures
from lib.metrics.tables import Table
from lib.metrics.tpr_at_fpr import TprAtFpr


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: whole people, or clips, are drawn. figures: of which figures, None for all that have one;
    of_parts: also of each source and kind of fake.
    """

    over: Literal["people", "clips"] = "people"
    rounds: int = 1000
    level: float = 0.95
    seed: int = 0
    figures: tuple[str, ...] | None = None
    of_parts: bool = True

    def __post_init__(self) -> None:
        check_protocol(self.rounds, self.level)

    def wants(self, figure: str) -> bool:
        """Whether the figure of this name is to have an interval."""
        return self.figures is None or figure in self.figures


@dataclass(frozen=True)
class SliceFigures:
    """By the figures' own names. notes: of those without a value or an interval, or with one to be read with care."""

    values: dict[str, float] = field(default_factory=dict[str, float])
    intervals: dict[str, Interval] = field(default_factory=dict[str, Interval])
    notes: dict[str, str] = field(default_factory=dict[str, str])


def compute_slice_figures(rows: Table, thresholds: Mapping[str, float], resampling: Resampling | None) -> SliceFigures:
    """Of rows that all have a decision; none at all is no mistake here: every figure is absent then.

    thresholds: log-odds by name, without `half`.
    """
    found = SliceFigures()
    figures = list_figures(thresholds)
    occurring = frozenset(np.unique(rows.labels).tolist())
    for figure in figures:
        if len(rows) and figure.needs <= occurring:
            found.values[figure.name] = figure.compute(rows.margins, rows.labels)
        else:
            found.notes[figure.name] = f"no value: {_tell_missing(occurring)}"
    if 1 in occurring:
        found.values.update(_find_worst(rows, {**HALF, **thresholds}))
    _note_resolution(found, reals=int((rows.labels == 0).sum()))
    if resampling is not None:
        wanted = [f for f in figures if f.name in found.values and resampling.wants(f.name)]
        _add_intervals(found, rows, wanted, resampling)
    return found


def _tell_missing(occurring: frozenset[int]) -> str:
    return {frozenset({0}): "no fakes", frozenset({1}): "no reals"}.get(occurring, "no sample with a decision")


def _find_worst(rows: Table, thresholds: Mapping[str, float]) -> dict[str, float]:
    is_fake = rows.labels == 1
    # A kind of fake is its source's own: the same name elsewhere may stand for other fakes.
    kind_of = number_pairs(rows.sources[is_fake], rows.manipulations[is_fake])
    margins = rows.margins[is_fake]
    return {
        f"worst_apcer_at_{name}": float(find_apcers(margins < threshold, kind_of).max())
        for name, threshold in thresholds.items()
    }


def _note_resolution(found: SliceFigures, *, reals: int) -> None:
    for wanted in FPRS:
        name = name_at_fpr(wanted)
        if name in found.values and (note := TprAtFpr(found.values[name], 0.0, wanted, reals).note) is not None:
            found.notes[name] = note


def _add_intervals(found: SliceFigures, rows: Table, figures: Sequence[Figure], resampling: Resampling) -> None:
    drawn_are = rows.people if resampling.over == "people" else rows.clips
    numbers, group_of = np.unique(drawn_are, return_inverse=True)
    if len(numbers) < 2 or len(np.unique(rows.labels)) < 2:
        why = f"no interval: fewer than two {resampling.over}" if len(numbers) < 2 else "no interval: one class only"
        for figure in figures:
            found.notes[figure.name] = "; ".join(filter(None, (found.notes.get(figure.name), why)))
        return
    values = resample_figures(
        rows.margins,
        rows.labels,
        group_of.astype(np.int64),
        of_draws={f.name: f.of_draws for f in figures if f.of_draws is not None},
        of_sums={f.name: f.of_sums for f in figures if f.of_sums is not None},
        rounds=resampling.rounds,
        seed=resampling.seed,
    )
    for name, drawn in values.items():
        found.intervals[name] = find_percentile_interval(found.values[name], drawn, level=resampling.level)
