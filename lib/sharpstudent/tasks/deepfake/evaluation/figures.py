"""All figures of a set of scored frames, by frame and by video, as one flat table with stable names: of the set, of
each source, and of each kind of fake against all reals of its source; and the thresholds that validation chooses.

Legend: N rows; labels real 0, fake 1.
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
from sharpstudent.metrics.bootstrap import (
    Estimate,
    GroupCounts,
    check_protocol,
    find_percentile_interval,
    find_strata,
    resample,
)
from sharpstudent.metrics.calibration import compute_brier, compute_ece, compute_log_loss
from sharpstudent.metrics.checks import check_threshold, number_pairs
from sharpstudent.metrics.curves import OperatingPoint, choose_thresholds
from sharpstudent.tasks.deepfake.evaluation.frames import (
    MAX,
    MEAN,
    TOP10,
    Aggregation,
    FrameTable,
    ScoredFrames,
    Slice,
    build_clip_table,
    build_frame_table,
    list_slices,
)

FPRS = (0.01, 0.001)
HALF = {"half": 0.0}  # log-odds of a probability of one half

Margins = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """needs: the labels that must occur; compute: of margins (N,) and labels (N,); of_draws or of_sums: the same on
    resamples.
    """

    name: str
    needs: frozenset[int]
    compute: Callable[[Margins, Labels], float]
    of_draws: drawn.DrawStatistic | None = None
    of_sums: drawn.SumStatistic | None = None


ANY, FAKES, REALS, BOTH = frozenset[int](), frozenset({1}), frozenset({0}), frozenset({0, 1})


def list_figures(thresholds: Mapping[str, float]) -> list[Figure]:
    """All of them, `thresholds` [log-odds] by name besides `half`; the order is that of reports."""
    return [
        Figure("auc", BOTH, compute_auc, drawn.compute_aucs),
        Figure("ap", BOTH, compute_average_precision, drawn.compute_average_precisions),
        Figure("eer", BOTH, compute_eer, drawn.compute_eers),
        *(_build_at_fpr(wanted) for wanted in FPRS),
        *(figure for name, value in {**HALF, **thresholds}.items() for figure in _build_at_threshold(name, value)),
        Figure("brier", ANY, lambda m, y: compute_brier(to_logits(m), y), of_sums=drawn.build_briers),
        Figure("ece", ANY, lambda m, y: compute_ece(to_logits(m), y), of_sums=drawn.build_eces),
        Figure("log_loss", ANY, lambda m, y: compute_log_loss(to_logits(m), y), of_sums=drawn.build_log_losses),
    ]


def name_at_fpr(wanted: float) -> str:
    """`tpr_at_fpr_1pct`, `tpr_at_fpr_0.1pct`."""
    return f"tpr_at_fpr_{100 * wanted:g}pct"


def _build_at_fpr(wanted: float) -> Figure:
    on_draws = partial(drawn.compute_tprs_at_fpr, wanted=wanted)
    return Figure(name_at_fpr(wanted), BOTH, partial(compute_tpr_at_fpr, wanted=wanted), on_draws)


def _build_at_threshold(name: str, threshold: float) -> list[Figure]:
    forms = (
        ("accuracy", ANY, compute_accuracy, drawn.compute_accuracies),
        ("balanced_accuracy", BOTH, compute_balanced_accuracy, drawn.compute_balanced_accuracies),
        ("apcer", FAKES, compute_fnr, drawn.compute_fnrs),
        ("bpcer", REALS, compute_fpr, drawn.compute_fprs),
    )
    return [
        Figure(f"{what}_at_{name}", needs, partial(plain, threshold=threshold), partial(on_draws, threshold=threshold))
        for what, needs, plain, on_draws in forms
    ]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: whole people are drawn. figures: of which figures, None for all that have one; of_parts:
    also of each source and kind of fake.
    """

    rounds: int = 1000
    level: float = 0.95
    seed: int = 0
    figures: tuple[str, ...] | None = None
    of_parts: bool = True

    def __post_init__(self) -> None:
        check_protocol(self.rounds, self.level)


@dataclass(frozen=True)
class Figures:
    """By name. notes: what to say beside a figure: why it has no value or no interval, or that it stands at the limit
    of resolution.
    """

    values: dict[str, float] = field(default_factory=dict[str, float])
    intervals: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    notes: dict[str, str] = field(default_factory=dict[str, str])


def compute_slice_figures(rows: FrameTable, thresholds: Mapping[str, float], resampling: Resampling | None) -> Figures:
    """The figures of rows that all have a decision, by their own names; of no rows at all, every figure is absent.

    thresholds: log-odds by name, without `half`.
    """
    found = Figures()
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
        chosen = {figure.name for figure in figures} if resampling.figures is None else set(resampling.figures)
        _add_intervals(found, rows, [f for f in figures if f.name in chosen & found.values.keys()], resampling)
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


def _note_resolution(found: Figures, *, reals: int) -> None:
    for wanted in FPRS:
        name = name_at_fpr(wanted)
        note = describe_resolution(wanted, reals, called="reals") if name in found.values else None
        if note is not None:
            found.notes[name] = note


def _add_intervals(found: Figures, rows: FrameTable, figures: Sequence[Figure], resampling: Resampling) -> None:
    people, group_of = np.unique(rows.people, return_inverse=True)
    if not figures:
        return
    if len(people) < 2 or len(np.unique(rows.labels)) < 2:
        why = "no interval: fewer than two people" if len(people) < 2 else "no interval: one class only"
        for figure in figures:
            found.notes[figure.name] = "; ".join(filter(None, (found.notes.get(figure.name), why)))
        return
    for name, values in resample_figures(figures, rows, group_of.astype(np.int64), resampling).items():
        found.intervals[name] = find_percentile_interval(found.values[name], values, level=resampling.level)


def resample_figures(
    figures: Sequence[Figure], rows: FrameTable, group_of: NDArray[np.int64], resampling: Resampling
) -> dict[str, NDArray[np.float64]]:
    """The R values of each figure (R,), all from one set of draws: the scores are sorted once, and the counts of each
    round summed up once. rows: of both classes; group_of: 0..G-1 (N,).
    """
    of_draws = {figure.name: figure.of_draws for figure in figures if figure.of_draws is not None}
    of_sums = {f.name: f.of_sums(rows.margins, rows.labels, group_of) for f in figures if f.of_sums is not None}
    grouped = drawn.GroupedScores(rows.margins, rows.labels, group_of)

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        at_once = grouped.draw(counts) if of_draws else None
        found = [] if at_once is None else [form(at_once) for form in of_draws.values()]
        return np.stack([*found, *(form(counts) for form in of_sums.values())])

    strata = find_strata(group_of, rows.labels)
    values = resample(on_block, group_of, rounds=resampling.rounds, seed=resampling.seed, must_hold=strata)
    return dict(zip((*of_draws, *of_sums), values, strict=True))


AGGREGATIONS = (MEAN, MAX, TOP10)
FRAME, VIDEO = "frame", "video"
T = TypeVar("T")


def compute_figures(
    frames: ScoredFrames,
    *,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
    resampling: Resampling | None = None,
) -> Figures:
    """Figures of a set, of each of its sources, and of each kind of fake against all reals of its source.

    thresholds: log-odds chosen on validation (`choose_operating_points`), by level, `frame` or `video_RULE`, and name;
    a threshold of frames is none of videos. aggregations: none of them where frames make no clips. resampling: whether
    and how to make intervals. Raises MetricError where `build_frame_table` does, and for a threshold that is no
    finite number. A name is

        LEVEL_FIGURE[_RULE][@SOURCE[/MANIPULATION]]

    such as `frame_auc`, `video_auc_mean`, `video_eer_top10@celebdf`, `frame_ap@ffpp/Deepfakes`.

    | Part | Is one of | Meaning |
    |---|---|---|
    | LEVEL | `frame`, `video` | what is counted as one sample |
    | RULE | `mean`, `max`, `top10`, ... | of videos: how frames are made one score (`Aggregation`) |
    | SOURCE | the data set's name | its samples alone; without: all of them together |
    | MANIPULATION | the kind of fake | its fakes and all reals of the source |
    | FIGURE | `auc` | area under the ROC curve |
    | | `ap` | average precision of fakes |
    | | `eer` | equal error rate |
    | | `tpr_at_fpr_1pct`, `tpr_at_fpr_0.1pct` | share of fakes found with at most 1 %, 0.1 % of reals called fake |
    | | `accuracy_at_T`, `balanced_accuracy_at_T` | share on the right side of T; mean of that of both classes |
    | | `apcer_at_T`, `bpcer_at_T` | share of fakes called real, of reals called fake (ISO/IEC 30107-3) |
    | | `worst_apcer_at_T` | the largest APCER of any kind of fake; without MANIPULATION, and without interval |
    | | `brier`, `ece`, `log_loss` | Brier score, expected calibration error, log loss [nats] |
    | T | `half` | a probability of one half |
    | | a name from `thresholds` | that threshold |
    | counts | `frame_count`, `video_count` | samples with a decision; `_real`, `_fake`: of each class |
    | | `frame_count_without_decision`, `video_...` | no face found, in any frame of a video; part of no figure |
    | | `people_count` | of samples with a decision |

    Counts have no RULE. A figure that a part of the set does not have (one class only) is absent, and a note says why.
    """
    frame_table, names = build_frame_table(frames, has_clips=bool(aggregations))
    levels = {FRAME: frame_table} | {name_level(how): build_clip_table(frame_table, how) for how in aggregations}
    chosen = thresholds or {}
    for threshold in chain.from_iterable(named.values() for named in chosen.values()):
        check_threshold(threshold)
    found = Figures()
    done: dict[tuple[str, bytes], Figures] = {}
    for part in list_slices(frame_table, names):
        of_part = resampling if resampling is not None and (resampling.of_parts or not part.suffix) else None
        for level, table in levels.items():
            rows = part.find_rows(table)
            here = table.take(rows)
            found.values.update(_count(level, here, part.suffix))
            key = level, rows.tobytes()  # the same rows again, as where there is one source or kind of fake
            if key not in done:
                done[key] = compute_slice_figures(here.take(here.decided), chosen.get(level, {}), of_part)
            _add(found, done[key], level, part, with_intervals=of_part is not None)
    return found


def name_level(how: Aggregation) -> str:
    """The level of videos made by a rule, as thresholds are kept under: `video_mean`."""
    return f"{VIDEO}_{how.name}"


def name_figure(level: str, figure: str, suffix: str = "") -> str:
    """`frame_auc` of `frame`, `video_auc_mean` of `video_mean`; suffix: of the part of the set."""
    unit, _, rule = level.partition("_")
    return f"{unit}_{figure}{'_' if rule else ''}{rule}{suffix}"


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


def _add(found: Figures, made: Figures, level: str, part: Slice, *, with_intervals: bool) -> None:
    def rename(by_name: Mapping[str, T]) -> dict[str, T]:
        return {name_figure(level, name, part.suffix): figure for name, figure in by_name.items()}

    is_one_kind = part.manipulation is not None  # then there is no worst kind
    found.values.update(rename({n: v for n, v in made.values.items() if not (is_one_kind and n.startswith("worst_"))}))
    found.intervals.update(rename(made.intervals) if with_intervals else {})
    found.notes.update(rename(made.notes))


def choose_operating_points(
    frames: ScoredFrames, *, fprs: Sequence[float] = FPRS, aggregations: Sequence[Aggregation] = AGGREGATIONS
) -> dict[str, dict[str, OperatingPoint]]:
    """By level (`frame`, `video_mean`, ...) and name: `eer`, `youden`, `fpr_1pct`, `fpr_0.1pct`; thresholds [log-odds].

    Raises MetricError as `compute_figures` does.
    """
    table, _ = build_frame_table(frames, has_clips=bool(aggregations))
    levels = {FRAME: table} | {name_level(how): build_clip_table(table, how) for how in aggregations}
    decided = {level: rows.take(rows.decided) for level, rows in levels.items()}
    return {level: choose_thresholds(rows.margins, rows.labels, fprs=fprs) for level, rows in decided.items()}
