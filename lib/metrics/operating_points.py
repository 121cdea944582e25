"""Thresholds for frames and for videos, chosen on validation and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from lib.metrics.aggregation import Aggregation
from lib.metrics.figure_list import FPRS
from lib.metrics.figures import AGGREGATIONS, FRAME, name_level
from lib.metrics.scored import ScoredFrames
from lib.metrics.tables import Table, build_clip_table, build_frame_table
from lib.metrics.thresholds import (
    OperatingPoint,
    choose_threshold_at_eer,
    choose_threshold_at_fpr,
    choose_threshold_by_youden,
)


def choose_operating_points(
    frames: ScoredFrames, *, fprs: Sequence[float] = FPRS, aggregations: Sequence[Aggregation] = AGGREGATIONS
) -> dict[str, dict[str, OperatingPoint]]:
    """By level (`frame`, `video_mean`, ...) and name: `eer`, `youden`, `fpr_1pct`, `fpr_0.1pct`; thresholds [log-odds].

    Raises MetricError as `compute_figures` does.
    """
    table, _ = build_frame_table(frames, has_clips=bool(aggregations))
    points = {FRAME: _choose(table, fprs)}
    for how in aggregations:
        points[name_level(how)] = _choose(build_clip_table(table, how), fprs)
    return points


def _choose(table: Table, fprs: Sequence[float]) -> dict[str, OperatingPoint]:
    rows = table.take(table.decided)
    points = {
        "eer": choose_threshold_at_eer(rows.margins, rows.labels),
        "youden": choose_threshold_by_youden(rows.margins, rows.labels),
    }
    for wanted in fprs:
        points[f"fpr_{100 * wanted:g}pct"] = choose_threshold_at_fpr(rows.margins, rows.labels, wanted=wanted)
    return points
