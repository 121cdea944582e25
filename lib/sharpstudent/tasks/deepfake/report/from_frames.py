"""Turns scored frames into parts of `Results`: metrics with intervals, points of curves, comparisons of two models.

These functions take scores and never run a model. Legend: N frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.evaluation.compare import to_metric_value, to_pair
from sharpstudent.metrics.binary import to_logits
from sharpstudent.metrics.bootstrap import compute_gap, compute_interval, compute_paired
from sharpstudent.metrics.calibration import compute_reliability_of_positive as compute_reliability_of_fake
from sharpstudent.metrics.curves import Curve, compute_det, compute_pr, compute_roc
from sharpstudent.metrics.intervals import LEVEL
from sharpstudent.metrics.metric import make_binary_metric, make_mean_metric
from sharpstudent.report.results import MetricValue
from sharpstudent.tasks.deepfake.evaluation.frames import (
    MEAN,
    Aggregation,
    FrameTable,
    Names,
    ScoredFrames,
    aggregate,
    build_clip_table,
    build_frame_table,
)
from sharpstudent.tasks.deepfake.evaluation.set_metrics import (
    AGGREGATIONS,
    FRAME,
    Resampling,
    SetMetrics,
    compute_set_metrics,
    name_level,
    name_metric,
)
from sharpstudent.tasks.deepfake.metrics import compute_probabilities
from sharpstudent.tasks.deepfake.report.decisions import HALF, choose_threshold
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    ComparisonResult,
    CurvePoints,
    Drawing,
    GroupErrors,
    GroupGap,
    GroupRates,
    ReliabilityBins,
    ScoreHistogram,
)

ROUNDS, SEED = 1000, 0
_AUC = make_binary_metric("auc_by_rank", lambda table: table["margin"])
HISTOGRAM_BINS = 20
_BELIEVED = ("brier", "ece", "log_loss")  # metrics of probabilities: a temperature changes them
_BELIEVED_NAME = re.compile(rf"^(frame)_({'|'.join(_BELIEVED)}|ece_expected|ece_p_value)(?=$|@)")


def choose_rules(frames: ScoredFrames, wanted: Sequence[Aggregation] = AGGREGATIONS) -> tuple[Aggregation, ...]:
    """Choose how the frames of a video are aggregated: the one rule that says whether there are videos at all.

    Args:
        frames: The scored frames.
        wanted: The rules to choose from.

    Returns:
        All of them, or none where no clip has two frames: stills are no videos.
    """
    clips = set(zip(frames.sources, frames.clip_ids, strict=True))
    return tuple(wanted) if len(clips) < len(frames) else ()


def build_metrics(
    frames: ScoredFrames,
    *,
    calibration: CalibrationResult | None = None,
    rules: Sequence[Aggregation] = AGGREGATIONS,
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> dict[str, MetricValue]:
    """Compute all metrics with their intervals over people.

    With a calibration these include `frame_ece_calibrated`, `frame_brier_calibrated` and `frame_log_loss_calibrated`:
    of the probabilities after its temperature.

    Args:
        frames: The scored frames.
        calibration: The calibration, at whose thresholds decisions are made; None for a probability of one half only.
        rules: The rules that aggregate the frames of a video.
        rounds: How many resamples the bootstrap draws.
        seed: The seed of the bootstrap.

    Returns:
        Estimates by name of the metric.

    Raises:
        MetricError: As `compute_set_metrics`.
    """
    used = choose_rules(frames, rules)
    levels = [FRAME, *map(name_level, used)]
    resampling = Resampling(rounds=rounds, level=LEVEL, seed=seed)
    found = compute_set_metrics(
        frames, thresholds=_read_thresholds(calibration, levels), aggregations=used, resampling=resampling
    )
    results = _to_results(found)
    if calibration is not None:
        after = replace(frames, margins=frames.margins / calibration.temperature)
        believed = compute_set_metrics(after, aggregations=(), resampling=replace(resampling, metrics=_BELIEVED))
        renamed = {_BELIEVED_NAME.sub(r"\1_\2_calibrated", name): one for name, one in _to_results(believed).items()}
        results |= {name: one for name, one in renamed.items() if "_calibrated" in name}
    return results


def _read_thresholds(calibration: CalibrationResult | None, levels: Sequence[str]) -> dict[str, dict[str, float]]:
    points = {} if calibration is None else calibration.operating_points
    return {
        level: {name: point.threshold for name, point in points[level].items()} for level in levels if level in points
    }


def _to_results(found: SetMetrics) -> dict[str, MetricValue]:
    names = dict.fromkeys((*found.values, *found.notes))
    return {
        name: MetricValue(
            value=found.values.get(name),
            note=found.notes.get(name),
            **{end: getattr(found.intervals.get(name), end, None) for end in ("low", "high", "groups")},
        )
        for name in names
    }


def build_drawings(frames: ScoredFrames, temperature: float | None = None) -> tuple[Drawing, ...]:
    """Compute the curves and histograms of frames, and of videos by the mean rule where there are any.

    They cover all data, and each source that has both classes.

    Args:
        frames: The scored frames.
        temperature: The stored temperature; None where the model has none.

    Returns:
        The drawings, frames of all data first.

    Raises:
        MetricError: As `build_frame_table`.
    """
    rules = choose_rules(frames)
    table, names = build_frame_table(frames, has_clips=bool(rules))
    levels = {FRAME: table} | ({name_level(MEAN): build_clip_table(table, MEAN)} if rules else {})
    after = None if temperature is None else replace(table, margins=table.margins / temperature)
    calibrated: dict[str, FrameTable] = {} if after is None else {FRAME: after}
    if after is not None and rules:
        calibrated[name_level(MEAN)] = build_clip_table(after, MEAN)
    drawn = [_draw(level, *part) for level, whole in levels.items() for part in _take_parts(whole, names)]
    believed = [part for whole in calibrated.values() for part in _take_parts(whole, names)]
    if not believed:
        return tuple(drawn)
    return tuple(_add_calibrated(one, rows) for one, (_, rows) in zip(drawn, believed, strict=True))


def _take_parts(table: FrameTable, names: Names) -> list[tuple[str, FrameTable]]:
    """List all rows with a decision, then each source's where there are several; parts of one class are left out."""
    scored = table.take(table.decided)
    parts = [("", scored)]
    if len(names.sources) > 1:
        parts += [(f"@{name}", scored.take(scored.sources == number)) for number, name in enumerate(names.sources)]
    return [(part, rows) for part, rows in parts if len(np.unique(rows.labels)) == 2]


def _draw(level: str, part: str, rows: FrameTable) -> Drawing:
    margins, labels = rows.margins, rows.labels
    return Drawing(
        level=level,
        part=part,
        roc=_to_points(compute_roc(margins, labels)),
        pr=_to_points(compute_pr(margins, labels)),
        det=_to_points(compute_det(margins, labels)),
        reliability=_bin_by_probability(rows),
        histogram=_count_by_probability(rows),
    )


def _add_calibrated(drawing: Drawing, rows: FrameTable) -> Drawing:
    """Add what is drawn of calibrated probabilities. rows: those of the drawing, after the temperature."""
    bins, counts = _bin_by_probability(rows), _count_by_probability(rows)
    return drawing.model_copy(update={"reliability_calibrated": bins, "histogram_calibrated": counts})


def _bin_by_probability(rows: FrameTable) -> ReliabilityBins:
    found = compute_reliability_of_fake(to_logits(rows.margins), rows.labels)
    return ReliabilityBins(
        edges=tuple(found.edges.tolist()),
        counts=tuple(found.counts.tolist()),
        said=_to_plain(found.predicted),
        true=_to_plain(found.observed),
    )


def _count_by_probability(rows: FrameTable) -> ScoreHistogram:
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    probability = compute_probabilities(rows.margins)
    real, fake = (np.histogram(probability[rows.labels == label], edges)[0] for label in (0, 1))
    return ScoreHistogram(edges=tuple(edges.tolist()), real=tuple(real.tolist()), fake=tuple(fake.tolist()))


def _to_points(curve: Curve) -> CurvePoints:
    return CurvePoints(
        x_name=curve.x_name,
        y_name=curve.y_name,
        x=tuple(curve.x.tolist()),
        y=tuple(curve.y.tolist()),
        thresholds=_to_plain(curve.thresholds),
    )


def _to_plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    """Replace NaN and infinity, for which JSON has no number, by None."""
    return tuple(value if np.isfinite(value) else None for value in values.tolist())


def build_group_errors(
    frames: ScoredFrames,
    columns: Mapping[str, Sequence[str]],
    calibration: CalibrationResult | None,
    *,
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> tuple[GroupErrors, ...]:
    """Compute a model's error rates by the values of columns, with the largest difference of each rate.

    Args:
        frames: The scored frames, N of them.
        columns: The value of each frame by the name of the column (N,); "" where it is not known.
        calibration: The calibration, whose threshold decides; None for a probability of one half.
        rounds: How many resamples the bootstrap draws.
        seed: The seed of the bootstrap.

    Returns:
        The errors of each column.
    """
    name = choose_threshold(calibration)
    threshold = 0.0 if calibration is None or name == HALF else calibration.operating_points[FRAME][name].threshold
    labels = np.asarray(frames.labels, np.int64)
    people = np.array([f"{source}\0{person}" for source, person in zip(frames.sources, frames.groups, strict=True)])
    wrong = ((frames.margins >= threshold) != (labels == 1)).astype(np.float64)

    def build(column: str, values: NDArray[Any]) -> GroupErrors:
        known = frames.decided & (values != "")
        found = [str(value) for value in np.unique(values[known])]

        def rate(value: str, label: int) -> MetricValue:
            rows = known & (values == value) & (labels == label)
            if not rows.any():
                return MetricValue(value=None, note=f"no {('real', 'fake')[label]} frame")
            table = {"id": np.flatnonzero(rows), "group": people[rows], "wrong": wrong[rows]}
            return to_metric_value(compute_interval(_WRONG, table, rounds=rounds, seed=seed, group_unit="person"))

        def find_gap(kind: str, label: int) -> list[GroupGap]:
            rates = {value: rate(value, label).value for value in found}
            measured = sorted((one, value) for value, one in rates.items() if one is not None)
            if len(measured) < 2:
                return []
            lower, higher = measured[0][1], measured[-1][1]
            rows = known & (labels == label) & np.isin(values, (lower, higher))
            pairs = len(measured) * (len(measured) - 1) // 2
            gap = compute_gap(
                _WRONG,
                {"id": np.flatnonzero(rows), "group": people[rows], "wrong": wrong[rows]},
                values[rows] == lower,
                level=1.0 - (1.0 - LEVEL) / pairs,  # the largest of several differences is large by chance, too
                rounds=rounds,
                seed=seed,
                group_unit="person",
            )
            return [GroupGap(rate=kind, higher=higher, lower=lower, difference=to_metric_value(gap))]

        groups = tuple(
            GroupRates(
                value=value,
                real=int((known & (values == value) & (labels == 0)).sum()),
                fake=int((known & (values == value) & (labels == 1)).sum()),
                people=len(np.unique(people[known & (values == value)])),
                bpcer=rate(value, 0),
                apcer=rate(value, 1),
            )
            for value in found
        )
        gaps = (*find_gap("bpcer", 0), *find_gap("apcer", 1))
        without = int((frames.decided & (values == "")).sum())
        return GroupErrors(column=column, threshold=name, groups=groups, gaps=gaps, without=without)

    return tuple(build(column, np.array(list(values))) for column, values in columns.items())


_WRONG = make_mean_metric(lambda table: table["wrong"], "lower", bounds=(0.0, 1.0))
PAIRED_ROUNDS = 2000


def build_comparisons(
    a: tuple[str, Sequence[ScoredFrames]],
    b: tuple[str, Sequence[ScoredFrames]],
    *,
    rounds: int = PAIRED_ROUNDS,
    seed: int = SEED,
) -> tuple[ComparisonResult, ...]:
    """Compare the AUC of two models on the same frames, paired over people.

    It is compared for frames, and for videos by the mean rule, on all data and on each source.

    Args:
        a: The name of the first model, and its scored frames at each seed.
        b: The same of the second model: the same frames in the same order, of one seed or of as many.
        rounds: How many resamples the bootstrap draws.
        seed: The seed of the bootstrap.

    Returns:
        A comparison for each level and part; the difference is a minus b.

    Raises:
        ValueError: The frames are not the same.
    """
    first = a[1][0]
    for column in ("sample_ids", "clip_ids", "sources"):
        if any(list(getattr(one, column)) != list(getattr(first, column)) for one in (*a[1], *b[1])):
            raise ValueError(f"{a[0]} and {b[0]} were evaluated on different frames: {column} differ")
    decided = np.all([one.decided for one in (*a[1], *b[1])], axis=0)
    frames = _take(_pair(a[1], b[1]), decided)
    samples = {FRAME: frames}
    if choose_rules(first):
        samples[name_level(MEAN)] = _make_videos(frames)
    return tuple(
        _compare((a[0], b[0]), level, part, rows, rounds=rounds, seed=seed)
        for level, whole in samples.items()
        for part, rows in _list_parts(whole)
    )


# N samples of two models: a, b (log-odds at each seed, (N, S)), label, person, clip and source, each (N,); names are
# unique over sources.
_Pairs = dict[str, NDArray[Any]]


def _take(rows: _Pairs, wanted: NDArray[Any]) -> _Pairs:
    return {name: column[wanted] for name, column in rows.items()}


def _list_parts(rows: _Pairs) -> list[tuple[str, _Pairs]]:
    """List all rows, then those of each source where there are several; parts of one class are left out."""
    names = np.unique(rows["source"]).tolist()
    parts = [("", rows)] + [(f"@{name}", _take(rows, rows["source"] == name)) for name in names if len(names) > 1]
    return [(part, some) for part, some in parts if len(np.unique(some["label"])) == 2]


def _pair(a: Sequence[ScoredFrames], b: Sequence[ScoredFrames]) -> _Pairs:
    frames = a[0]
    person, clip = (
        np.array([f"{source}\0{name}" for source, name in zip(frames.sources, column, strict=True)])
        for column in (frames.groups, frames.clip_ids)
    )
    label, source = np.asarray(frames.labels, np.int64), np.array(frames.sources)
    scores = {name: np.stack([one.margins for one in side], axis=1) for name, side in (("a", a), ("b", b))}
    return {**scores, "label": label, "person": person, "clip": clip, "source": source}


def _make_videos(frames: _Pairs) -> _Pairs:
    """Aggregate the frames of sources with videos to one row a clip, by the mean rule."""
    clips, sizes = np.unique(frames["clip"], return_counts=True)
    sources = np.unique(frames["source"][np.isin(frames["clip"], clips[sizes > 1])])
    frames = _take(frames, np.isin(frames["source"], sources))
    _, first, clip_of = np.unique(frames["clip"], return_index=True, return_inverse=True)
    scores = {
        name: np.stack([aggregate(one, clip_of.astype(np.int64), MEAN) for one in frames[name].T], axis=1)
        for name in ("a", "b")
    }
    return _take(frames, first) | scores


def _compare(
    called: tuple[str, str], level: str, part: str, rows: _Pairs, *, rounds: int, seed: int
) -> ComparisonResult:
    same = {"id": np.arange(len(rows["label"])), "group": rows["person"], "label": rows["label"]}
    tables = ([{**same, "margin": one} for one in rows[name].T] for name in ("a", "b"))
    found = compute_paired(_AUC, *tables, rounds=rounds, level=LEVEL, seed=seed, group_unit="person")
    return ComparisonResult(
        a=called[0],
        b=called[1],
        figure=name_metric(level, "auc", part),
        **to_pair(found),
        agreement=float(np.mean((rows["a"] >= 0.0) == (rows["b"] >= 0.0))),  # of the n-th seeds of both
        seeds=max(rows["a"].shape[1], rows["b"].shape[1]),
    )
