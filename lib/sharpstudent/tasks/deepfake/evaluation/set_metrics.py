"""Computes all metrics of a set of scored frames, as one flat table with stable names.

Metrics are computed for frames and for videos, and each for the whole set, for each source, and for each kind of fake
against all reals of its source. Decisions are made at thresholds that were chosen on validation data.

Legend: N rows; labels real 0, fake 1; margins are log-odds of fake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sharpstudent.metrics import binary_draws as drawn
from sharpstudent.metrics.binary import (
    compute_accuracy,
    compute_auc,
    compute_average_precision,
    compute_balanced_accuracy,
    compute_eer,
    compute_fnr,
    compute_fpr,
    compute_tpr_at_fpr,
    describe_resolution,
    to_logits,
)
from sharpstudent.metrics.bootstrap import GroupCounts, check_protocol, find_strata, resample
from sharpstudent.metrics.calibration import compare_with_drawn_labels, compute_brier, compute_ece, compute_log_loss
from sharpstudent.metrics.checks import MetricError, check_threshold, number_pairs
from sharpstudent.metrics.intervals import SHARE, Bounds, Estimate, Sampling, find_interval
from sharpstudent.tasks.deepfake.evaluation.frames import (
    MAX,
    MEAN,
    REAL,
    TOP10,
    Aggregation,
    FrameTable,
    Names,
    ScoredFrames,
    build_clip_table,
    build_frame_table,
)

FPRS = (0.01, 0.001)
HALF = {"half": 0.0}  # log-odds of a probability of one half

Margins = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class SetMetric:
    """One metric of scored rows.

    Attributes:
        name: The metric's name, without level, rule and part.
        needs: The labels that must occur for it to have a value.
        compute: Computes its value from margins (N,) and labels (N,).
        of_draws: Computes its values on resamples, for a metric that is computed from the ROC; else None.
        of_sums: Builds a function of its values on resamples, for a metric made of sums over groups; else None.
        bounds: Its lowest and highest possible value, as in `Metric`.
        falls_with_share: As in `Metric`.
    """

    name: str
    needs: frozenset[int]
    compute: Callable[[Margins, Labels], float]
    of_draws: drawn.DrawStatistic | None = None
    of_sums: drawn.SumStatistic | None = None
    bounds: Bounds = SHARE
    falls_with_share: bool = True


ANY, FAKES, REALS, BOTH = frozenset[int](), frozenset({1}), frozenset({0}), frozenset({0, 1})


def list_set_metrics(thresholds: Mapping[str, float]) -> list[SetMetric]:
    """List all metrics in the order of reports. thresholds: log-odds by name, besides `half`."""
    return [
        SetMetric("auc", BOTH, compute_auc, drawn.compute_aucs),
        SetMetric("ap", BOTH, compute_average_precision, drawn.compute_average_precisions, falls_with_share=False),
        SetMetric("eer", BOTH, compute_eer, drawn.compute_eers),
        *(_build_at_fpr(wanted) for wanted in FPRS),
        *(metric for name, value in {**HALF, **thresholds}.items() for metric in _build_at_threshold(name, value)),
        SetMetric("brier", ANY, lambda m, y: compute_brier(to_logits(m), y), of_sums=drawn.build_briers),
        SetMetric("ece", ANY, lambda m, y: compute_ece(to_logits(m), y), of_sums=drawn.build_eces),
        SetMetric(
            "log_loss",
            ANY,
            lambda m, y: compute_log_loss(to_logits(m), y),
            of_sums=drawn.build_log_losses,
            bounds=(0.0, float("inf")),
        ),
    ]


def name_at_fpr(wanted: float) -> str:
    """Name the TPR at a wanted FPR: `tpr_at_fpr_1pct`, `tpr_at_fpr_0.1pct`."""
    return f"tpr_at_fpr_{100 * wanted:g}pct"


def _build_at_fpr(wanted: float) -> SetMetric:
    on_draws = partial(drawn.compute_tprs_at_fpr, wanted=wanted)
    compute = partial(compute_tpr_at_fpr, wanted=wanted)
    return SetMetric(name_at_fpr(wanted), BOTH, compute, on_draws, falls_with_share=False)


def _build_at_threshold(name: str, threshold: float) -> list[SetMetric]:
    forms = (
        ("accuracy", ANY, compute_accuracy, drawn.compute_accuracies),
        ("balanced_accuracy", BOTH, compute_balanced_accuracy, drawn.compute_balanced_accuracies),
        ("apcer", FAKES, compute_fnr, drawn.compute_fnrs),
        ("bpcer", REALS, compute_fpr, drawn.compute_fprs),
    )
    return [
        SetMetric(
            f"{what}_at_{name}", needs, partial(plain, threshold=threshold), partial(on_draws, threshold=threshold)
        )
        for what, needs, plain, on_draws in forms
    ]


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed: by drawing whole people with replacement.

    Attributes:
        rounds: How many resamples are drawn.
        level: The confidence level.
        seed: The seed of the draws.
        metrics: The names of the metrics that get an interval; None for all that can have one.
        of_parts: Whether the metrics of each source and kind of fake get intervals, too.
    """

    rounds: int = 1000
    level: float = 0.95
    seed: int = 0
    metrics: tuple[str, ...] | None = None
    of_parts: bool = True

    def __post_init__(self) -> None:
        check_protocol(self.rounds, self.level)


@dataclass(frozen=True)
class SetMetrics:
    """Metrics by name.

    Attributes:
        values: The values of the metrics that are defined.
        intervals: The intervals of the metrics that were resampled.
        notes: Why a metric has no value or no interval, or that it is at the limit of resolution.
    """

    values: dict[str, float] = field(default_factory=dict[str, float])
    intervals: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    notes: dict[str, str] = field(default_factory=dict[str, str])


def _compute_slice(rows: FrameTable, thresholds: Mapping[str, float], resampling: Resampling | None) -> SetMetrics:
    """Compute the metrics of rows that all have a decision, by their own names; of no rows, every metric is absent."""
    found = SetMetrics()
    metrics = list_set_metrics(thresholds)
    occurring = frozenset(np.unique(rows.labels).tolist())
    for metric in metrics:
        if len(rows) and metric.needs <= occurring:
            found.values[metric.name] = metric.compute(rows.margins, rows.labels)
        else:
            found.notes[metric.name] = f"no value: {_tell_missing(occurring)}"
    if 1 in occurring:
        found.values.update(_find_worst(rows, {**HALF, **thresholds}))
    _note_resolution(found, reals=int((rows.labels == 0).sum()))
    if resampling is not None and len(rows):
        drawn_labels = compare_with_drawn_labels(to_logits(rows.margins), rows.labels, seed=resampling.seed)
        found.values.update(ece_expected=drawn_labels.expected, ece_p_value=drawn_labels.p_value)
    if resampling is not None:
        chosen = {metric.name for metric in metrics} if resampling.metrics is None else set(resampling.metrics)
        _add_intervals(found, rows, [f for f in metrics if f.name in chosen & found.values.keys()], resampling)
    return found


def _tell_missing(occurring: frozenset[int]) -> str:
    return {frozenset({0}): "no fakes", frozenset({1}): "no reals"}.get(occurring, "no sample with a decision")


def _find_worst(rows: FrameTable, thresholds: Mapping[str, float]) -> dict[str, float]:
    is_fake = rows.labels == 1
    # A kind of fake is its source's own: the same name elsewhere may stand for other fakes.
    kind_of = number_pairs(rows.sources[is_fake], rows.manipulations[is_fake])
    margins = rows.margins[is_fake]
    return {
        f"worst_apcer_at_{name}": float((np.bincount(kind_of, margins < threshold) / np.bincount(kind_of)).max())
        for name, threshold in thresholds.items()
    }


def _note_resolution(found: SetMetrics, *, reals: int) -> None:
    for wanted in FPRS:
        name = name_at_fpr(wanted)
        note = describe_resolution(wanted, reals, called="reals") if name in found.values else None
        if note is not None:
            found.notes[name] = note


def _add_intervals(found: SetMetrics, rows: FrameTable, metrics: Sequence[SetMetric], resampling: Resampling) -> None:
    people, group_of = np.unique(rows.people, return_inverse=True)
    if not metrics:
        return
    if len(people) < 2 or len(np.unique(rows.labels)) < 2:
        why = "no interval: fewer than two people" if len(people) < 2 else "no interval: one class only"
        for metric in metrics:
            found.notes[metric.name] = "; ".join(filter(None, (found.notes.get(metric.name), why)))
        return
    draws = _resample(metrics, rows, group_of.astype(np.int64), resampling)
    people_of = {label: len(np.unique(group_of[rows.labels == label])) for label in (0, 1)}
    for metric in metrics:
        sizes = tuple(people_of[label] for label in sorted(metric.needs)) or (len(people),)
        total = len(people) if len(sizes) != 1 else sizes[0]
        estimate = find_interval(
            found.values[metric.name],
            draws[metric.name],
            Sampling(sizes, total, "person"),
            bounds=metric.bounds,
            level=resampling.level,
            falls_with_share=metric.falls_with_share,
        )
        found.intervals[metric.name] = estimate
        if estimate.note is not None:
            found.notes[metric.name] = "; ".join(filter(None, (found.notes.get(metric.name), estimate.note)))


def _resample(
    metrics: Sequence[SetMetric], rows: FrameTable, group_of: NDArray[np.int64], resampling: Resampling
) -> dict[str, NDArray[np.float64]]:
    """Compute R values of each metric (R,), all on the same draws of the groups, whose numbers are group_of (N,).

    The scores are sorted once, and the counts of each draw are summed once. Rows of both classes are needed.
    """
    of_draws = {metric.name: metric.of_draws for metric in metrics if metric.of_draws is not None}
    of_sums = {f.name: f.of_sums(rows.margins, rows.labels, group_of) for f in metrics if f.of_sums is not None}
    grouped = drawn.GroupedScores(rows.margins, rows.labels, group_of)

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        at_once = grouped.draw(counts) if of_draws else None
        found = [] if at_once is None else [form(at_once) for form in of_draws.values()]
        return np.stack([*found, *(form(counts) for form in of_sums.values())])

    strata = find_strata(group_of, rows.labels)
    values = resample(on_block, group_of, rounds=resampling.rounds, seed=resampling.seed, must_hold=strata)
    return dict(zip((*of_draws, *of_sums), values, strict=True))


@dataclass(frozen=True)
class _Slice:
    """A part of a set whose metrics are computed.

    Attributes:
        suffix: The end of its metrics' names: "", "@SOURCE" or "@SOURCE/MANIPULATION".
        source: The number of the source; None for all sources.
        manipulation: The number of the kind of fake; None for all kinds.
    """

    suffix: str
    source: int | None = None
    manipulation: int | None = None

    def find_rows(self, table: FrameTable) -> NDArray[np.bool_]:
        """Find which rows (N,) are in it."""
        rows = np.ones(len(table), np.bool_)
        if self.source is not None:
            rows &= table.sources == self.source
        if self.manipulation is not None:
            rows &= (table.manipulations == self.manipulation) | (table.manipulations == REAL)
        return rows


def _list_slices(frames: FrameTable, names: Names) -> list[_Slice]:
    """List the whole set, and then each source with its kinds of fake, in the order of their names.

    Raises MetricError for a source with a / in its name: its metrics could be taken for those of a kind of fake.
    """
    slices = [_Slice("")]
    for source, source_name in enumerate(names.sources):
        if "/" in source_name:
            raise MetricError(f"a source cannot be named {source_name!r}: / stands between source and kind of fake")
        suffix = f"@{source_name}"
        slices.append(_Slice(suffix, source))
        for kind in np.unique(frames.manipulations[frames.sources == source]).tolist():
            if kind != REAL:
                slices.append(_Slice(f"{suffix}/{names.manipulations[kind]}", source, kind))
    return slices


AGGREGATIONS = (MEAN, MAX, TOP10)
FRAME, VIDEO = "frame", "video"
T = TypeVar("T")


def compute_set_metrics(
    frames: ScoredFrames,
    *,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
    resampling: Resampling | None = None,
) -> SetMetrics:
    """Compute the metrics of a set, of each of its sources, and of each kind of fake against all reals of its source.

    A name is

        LEVEL_METRIC[_RULE][@SOURCE[/MANIPULATION]]

    such as `frame_auc`, `video_auc_mean`, `video_eer_top10@celebdf`, `frame_ap@ffpp/Deepfakes`.

    | Part | Is one of | Meaning |
    |---|---|---|
    | LEVEL | `frame`, `video` | what is counted as one sample |
    | RULE | `mean`, `max`, `top10`, ... | of videos: how frames are made one score (`Aggregation`) |
    | SOURCE | the data set's name | its samples alone; without: all of them together |
    | MANIPULATION | the kind of fake | its fakes and all reals of the source |
    | METRIC | `auc` | area under the ROC curve |
    | | `ap` | average precision of fakes |
    | | `eer` | equal error rate |
    | | `tpr_at_fpr_1pct`, `tpr_at_fpr_0.1pct` | share of fakes found with at most 1 %, 0.1 % of reals called fake |
    | | `accuracy_at_T`, `balanced_accuracy_at_T` | share on the right side of T; mean of that of both classes |
    | | `apcer_at_T`, `bpcer_at_T` | share of fakes called real, of reals called fake (ISO/IEC 30107-3) |
    | | `worst_apcer_at_T` | the largest APCER of any kind of fake; without MANIPULATION, and without interval |
    | | `brier`, `ece`, `log_loss` | Brier score, expected calibration error, log loss [nats] |
    | | `ece_expected`, `ece_p_value` | of labels drawn from the probabilities; p-value of the ECE among these |
    | T | `half` | a probability of one half |
    | | a name from `thresholds` | that threshold |
    | counts | `frame_count`, `video_count` | samples with a decision; `_real`, `_fake`: of each class |
    | | `frame_count_without_decision`, `video_...` | no face found, in any frame of a video; part of no metric |
    | | `people_count` | of samples with a decision |

    Counts have no RULE. A metric that a part of the set does not have (one class only) is absent, and a note says why.

    Args:
        frames: The frames of the set, with the scores of one model.
        thresholds: Log-odds chosen on validation (`choose_operating_points`), by level (`frame` or `video_RULE`) and
            name. A threshold of frames is not used for videos.
        aggregations: The rules by which videos are scored; none where frames make no clips. A source in which no clip
            has two frames has no metrics of videos.
        resampling: How intervals are made; None for none.

    Returns:
        The metrics by their full names.

    Raises:
        MetricError: As `build_frame_table`, and for a threshold that is not finite.
    """
    frame_table, names = build_frame_table(frames, has_clips=bool(aggregations))
    levels = {FRAME: frame_table} | {name_level(how): build_clip_table(frame_table, how) for how in aggregations}
    chosen = thresholds or {}
    for threshold in chain.from_iterable(named.values() for named in chosen.values()):
        check_threshold(threshold)
    found = SetMetrics()
    done: dict[tuple[str, bytes], SetMetrics] = {}
    for part in _list_slices(frame_table, names):
        of_part = resampling if resampling is not None and (resampling.of_parts or not part.suffix) else None
        for level, table in levels.items():
            rows = part.find_rows(table)
            if level != FRAME and not rows.any():  # a source of stills
                continue
            here = table.take(rows)
            found.values.update(_count(level, here, part.suffix))
            key = level, rows.tobytes()  # a part with the same rows, such as the only source, is not computed again
            if key not in done:
                done[key] = _compute_slice(here.take(here.decided), chosen.get(level, {}), of_part)
            _add(found, done[key], level, part, with_intervals=of_part is not None)
    return found


def name_level(how: Aggregation) -> str:
    """Name the level of videos that a rule makes, as thresholds are stored under: `video_mean`."""
    return f"{VIDEO}_{how.name}"


def name_metric(level: str, metric: str, suffix: str = "") -> str:
    """Put a metric's full name together: `frame_auc` of the level `frame`, `video_auc_mean` of `video_mean`.

    Args:
        level: `frame` or `video_RULE`.
        metric: The metric's own name.
        suffix: The suffix of the part: "", "@SOURCE" or "@SOURCE/MANIPULATION".

    Returns:
        The full name.
    """
    unit, _, rule = level.partition("_")
    return f"{unit}_{metric}{'_' if rule else ''}{rule}{suffix}"


def _count(level: str, here: FrameTable, suffix: str) -> dict[str, float]:
    scored = here.take(here.decided)
    unit = level.partition("_")[0]
    counts = {
        f"{unit}_count": len(scored),
        f"{unit}_count_real": int((scored.labels == 0).sum()),
        f"{unit}_count_fake": int((scored.labels == 1).sum()),
        f"{unit}_count_without_decision": len(here) - len(scored),
        "people_count": len(np.unique(scored.people)),
    }
    return {f"{name}{suffix}": count for name, count in counts.items()}


def _add(found: SetMetrics, made: SetMetrics, level: str, part: _Slice, *, with_intervals: bool) -> None:
    def rename(by_name: Mapping[str, T]) -> dict[str, T]:
        return {name_metric(level, name, part.suffix): metric for name, metric in by_name.items()}

    is_one_kind = part.manipulation is not None  # the worst of several kinds has no meaning here
    found.values.update(rename({n: v for n, v in made.values.items() if not (is_one_kind and n.startswith("worst_"))}))
    found.intervals.update(rename(made.intervals) if with_intervals else {})
    found.notes.update(rename(made.notes))
