"""From scored frames to the parts of `Results`: figures with intervals, and the points of the pictures.

Numbers in, plain data out; nothing here knows a model. Legend: N frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lib.metrics.aggregation import MEAN, Aggregation
from lib.metrics.curves import Curve, compute_det, compute_pr, compute_roc
from lib.metrics.figures import AGGREGATIONS, FRAME, Figures, Resampling, compute_figures, name_level
from lib.metrics.group_sums import to_logits
from lib.metrics.reliability import compute_reliability_of_fake
from lib.metrics.scored import ScoredFrames
from lib.metrics.tables import Names, Table, build_clip_table, build_frame_table
from lib.report.results import (
    CalibrationResult,
    CurvePoints,
    Drawing,
    FigureResult,
    ReliabilityBins,
    ScoreHistogram,
)

ROUNDS, LEVEL, SEED = 1000, 0.95, 0
HISTOGRAM_BINS = 20
_BELIEVED = ("brier", "ece", "log_loss")  # what a temperature changes
_BELIEVED_NAME = re.compile(rf"^(frame)_({'|'.join(_BELIEVED)})(?=$|@)")


def choose_rules(frames: ScoredFrames, wanted: Sequence[Aggregation] = AGGREGATIONS) -> tuple[Aggregation, ...]:
    """The rules by which videos are scored; none where no clip has two frames: its figures would be those of frames."""
    clips = set(zip(frames.sources, frames.clip_ids, strict=True))
    return tuple(wanted) if len(clips) < len(frames) else ()


def build_figures(
    frames: ScoredFrames,
    *,
    calibration: CalibrationResult | None = None,
    rules: Sequence[Aggregation] = AGGREGATIONS,
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> dict[str, FigureResult]:
    """All figures of `compute_figures`, intervals over people, at the thresholds that the calibration has stored.
    rules: by which videos are scored.

    With a calibration also `frame_ece_calibrated`, `frame_brier_calibrated` and `frame_log_loss_calibrated`: of the
    probabilities that its temperature gives. Raises MetricError as `compute_figures`.
    """
    used = choose_rules(frames, rules)
    levels = [FRAME, *map(name_level, used)]
    resampling = Resampling(rounds=rounds, level=LEVEL, seed=seed)
    found = compute_figures(
        frames, thresholds=_read_thresholds(calibration, levels), aggregations=used, resampling=resampling
    )
    results = _to_results(found)
    if calibration is not None:
        after = replace(frames, margins=frames.margins / calibration.temperature)
        believed = compute_figures(after, aggregations=(), resampling=replace(resampling, figures=_BELIEVED))
        renamed = {_BELIEVED_NAME.sub(r"\1_\2_calibrated", name): one for name, one in _to_results(believed).items()}
        results |= {name: one for name, one in renamed.items() if "_calibrated" in name}
    return results


def _read_thresholds(calibration: CalibrationResult | None, levels: Sequence[str]) -> dict[str, dict[str, float]]:
    points = {} if calibration is None else calibration.operating_points
    return {
        level: {name: point.threshold for name, point in points[level].items()} for level in levels if level in points
    }


def _to_results(found: Figures) -> dict[str, FigureResult]:
    names = dict.fromkeys((*found.values, *found.notes))
    return {
        name: FigureResult(
            value=found.values.get(name),
            low=None if name not in found.intervals else found.intervals[name].low,
            high=None if name not in found.intervals else found.intervals[name].high,
            note=found.notes.get(name),
        )
        for name in names
    }


def build_drawings(frames: ScoredFrames) -> tuple[Drawing, ...]:
    """Of frames, and of videos by the mean rule where there are any: of all, and of each source that has both classes.

    Raises MetricError as `build_frame_table`.
    """
    rules = choose_rules(frames)
    table, names = build_frame_table(frames, has_clips=bool(rules))
    levels = {FRAME: table} | ({name_level(MEAN): build_clip_table(table, MEAN)} if rules else {})
    return tuple(
        _draw(level, part, rows.margins, rows.labels)
        for level, whole in levels.items()
        for part, rows in _take_parts(whole, names)
    )


def _take_parts(table: Table, names: Names) -> list[tuple[str, Table]]:
    """All rows with a decision, then those of each source where there are several; parts of one class are left out."""
    scored = table.take(table.decided)
    parts = [("", scored)]
    if len(names.sources) > 1:
        parts += [(f"@{name}", scored.take(scored.sources == number)) for number, name in enumerate(names.sources)]
    return [(part, rows) for part, rows in parts if len(np.unique(rows.labels)) == 2]


def _draw(level: str, part: str, margins: NDArray[np.float64], labels: NDArray[np.int64]) -> Drawing:
    reliability = compute_reliability_of_fake(to_logits(margins), labels)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
    real, fake = (np.histogram(probability[labels == label], edges)[0] for label in (0, 1))
    return Drawing(
        level=level,
        part=part,
        roc=_to_points(compute_roc(margins, labels)),
        pr=_to_points(compute_pr(margins, labels)),
        det=_to_points(compute_det(margins, labels)),
        reliability=ReliabilityBins(
            edges=tuple(reliability.edges.tolist()),
            counts=tuple(reliability.counts.tolist()),
            said=_to_plain(reliability.said),
            true=_to_plain(reliability.true),
        ),
        histogram=ScoreHistogram(edges=tuple(edges.tolist()), real=tuple(real.tolist()), fake=tuple(fake.tolist())),
    )


def _to_points(curve: Curve) -> CurvePoints:
    return CurvePoints(
        x_name=curve.x_name,
        y_name=curve.y_name,
        x=tuple(curve.x.tolist()),
        y=tuple(curve.y.tolist()),
        thresholds=_to_plain(curve.thresholds),
    )


def _to_plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    """Numbers that JSON has; the others are None."""
    return tuple(value if np.isfinite(value) else None for value in values.tolist())
