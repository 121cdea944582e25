"""Thresholds chosen on validation scores, for use on other ones.

Thresholds chosen on validation scores, for use on other ones: fake is what scores at the threshold or above.

Each rule chooses one of the ROC's points; the threshold itself is put half-way between the lowest score that is then
called fake and the next one below, as far from both as can be. Of points that a rule finds equally good it takes the
one with the fewest false alarms. Legend: N samples; scores rise with fakeness; labels real 0, fake 1.

Thresholds for frames and for videos, chosen on validation and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sharpstudent.metrics.aggregation import Aggregation
from sharpstudent.metrics.binary import Ranked, find_place_at_fpr, rank_scores
from sharpstudent.metrics.checks import check_both_classes, check_rate, check_samples
from sharpstudent.metrics.figures import AGGREGATIONS, FPRS, FRAME, name_level
from sharpstudent.metrics.tables import ScoredFrames, Table, build_clip_table, build_frame_table


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and the TPR and FPR that it has on the samples that chose it."""

    threshold: float
    tpr: float
    fpr: float


def choose_threshold_at_fpr(
    scores: ArrayLike, labels: ArrayLike, *, wanted: float, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """The most fakes found with an FPR of at most `wanted`, 0 < wanted < 1. scores and labels (N,).

    Raises MetricError as `compute_tpr_at_fpr` does.
    """
    check_rate(wanted)
    ranked = _rank(scores, labels, sample_ids)
    last = int(find_place_at_fpr(ranked.reals[np.newaxis], wanted)[0, 0])
    return _build(ranked, int((ranked.fakes < ranked.fakes[last]).sum()))


def choose_threshold_at_eer(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """Where FPR and 1 - TPR differ least. scores and labels (N,). Raises MetricError as `compute_auc` does."""
    ranked = _rank(scores, labels, sample_ids)
    fakes, reals = int(ranked.fakes[-1]), int(ranked.reals[-1])
    ahead = ranked.reals * fakes + ranked.fakes * reals - fakes * reals  # whole: ties are ties
    return _build(ranked, int(np.argmin(np.abs(ahead))))


def choose_threshold_by_youden(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> OperatingPoint:
    """Where TPR - FPR is largest (Youden 1950), and so balanced accuracy is. scores and labels (N,).

    Raises MetricError as `compute_auc` does.
    """
    ranked = _rank(scores, labels, sample_ids)
    return _build(ranked, int(np.argmax(ranked.fakes * ranked.reals[-1] - ranked.reals * ranked.fakes[-1])))


def _rank(scores: ArrayLike, labels: ArrayLike, sample_ids: Sequence[str] | None) -> Ranked:
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return rank_scores(score_array, label_array)


def _build(ranked: Ranked, place: int) -> OperatingPoint:
    return OperatingPoint(
        threshold=_find_threshold(ranked, place),
        tpr=float(ranked.fakes[place] / ranked.fakes[-1]),
        fpr=float(ranked.reals[place] / ranked.reals[-1]),
    )


def _find_threshold(ranked: Ranked, place: int) -> float:
    """That calls the samples of point `place` fake and no others."""
    thresholds = ranked.thresholds
    if place == 0:
        return float(np.nextafter(thresholds[0], np.inf))
    lowest = float(thresholds[place - 1])
    if place == len(thresholds):
        return lowest
    middle = 0.5 * lowest + 0.5 * float(thresholds[place])
    return middle if thresholds[place] < middle <= lowest else lowest


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
