"""All figures of a set of scored frames, by frame and by video, as one flat table with stable names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lib.metrics.aggregation import MAX, MEAN, TOP10, Aggregation
from lib.metrics.checks import MetricError, check_threshold
from lib.metrics.figure_list import HALF, list_figures
from lib.metrics.interval import Interval
from lib.metrics.scored import ScoredFrames
from lib.metrics.slice_figures import Resampling, SliceFigures, compute_slice_figures
from lib.metrics.slices import Slice, list_slices
from lib.metrics.tables import Table, build_clip_table, build_frame_table

__all__ = ["AGGREGATIONS", "FRAME", "Figures", "Resampling", "compute_figures", "name_figure", "name_level"]

AGGREGATIONS = (MEAN, MAX, TOP10)
FRAME, VIDEO = "frame", "video"
T = TypeVar("T")


@dataclass(frozen=True)
class Figures:
    """All by name, as `compute_figures` has them. notes: what to say beside a figure: why it has no value or no
    interval, or that it stands at the limit of resolution.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    notes: dict[str, str]


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
    and how to make intervals. Raises MetricError where `build_frame_table` does, and for thresholds of no level. A name
    is

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
    chosen = _check_thresholds(thresholds or {}, levels)
    _check_wanted(resampling, chosen.values())
    found = Figures({}, {}, {})
    done: dict[tuple[str, str, int], SliceFigures] = {}
    for part in list_slices(frame_table, names):
        of_part = resampling if resampling is not None and (resampling.of_parts or not part.suffix) else None
        for level, table in levels.items():
            here = table.take(part.find_rows(table))
            found.values.update(_count(level, here, part.suffix))
            # As many rows as a set that it is a part of: the same ones, as where there is one source or kind of fake.
            wider = [done[key] for suffix in part.within if (key := (level, suffix, len(here))) in done]
            made = wider[0] if wider else compute_slice_figures(here.take(here.decided), chosen[level], of_part)
            done[level, part.suffix, len(here)] = made
            _add(found, made, level, part, with_intervals=of_part is not None)
    return found


def name_level(how: Aggregation) -> str:
    """The level of videos made by a rule, as thresholds are kept under: `video_mean`."""
    return f"{VIDEO}_{how.name}"


def name_figure(level: str, figure: str, suffix: str = "") -> str:
    """`frame_auc` of `frame`, `video_auc_mean` of `video_mean`; suffix: of the part of the set."""
    unit, _, rule = level.partition("_")
    return f"{unit}_{figure}{'_' if rule else ''}{rule}{suffix}"


def _check_thresholds(
    thresholds: Mapping[str, Mapping[str, float]], levels: Mapping[str, Table]
) -> dict[str, Mapping[str, float]]:
    """Those of each level, none where none were given."""
    for level, named in thresholds.items():
        if level not in levels:
            raise MetricError(f"thresholds of {level!r}, where the levels are {', '.join(levels)}")
        for name, threshold in named.items():
            check_threshold(threshold)
            if name in HALF or re.fullmatch(r"[a-z0-9_.]+", name) is None:
                raise MetricError(f"{name!r} cannot name a threshold: a-z, 0-9, _ and . only, and not half")
    return {level: thresholds.get(level, {}) for level in levels}


def _check_wanted(resampling: Resampling | None, thresholds: Iterable[Mapping[str, float]]) -> None:
    known = [figure.name for named in thresholds for figure in list_figures(named)]
    for name in () if resampling is None or resampling.figures is None else resampling.figures:
        if name not in known:
            raise MetricError(f"no interval can be made of {name!r}; known: {', '.join(dict.fromkeys(known))}")


def _count(level: str, here: Table, suffix: str) -> dict[str, float]:
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


def _add(found: Figures, made: SliceFigures, level: str, part: Slice, *, with_intervals: bool) -> None:
    def rename(by_name: Mapping[str, T]) -> dict[str, T]:
        return {name_figure(level, name, part.suffix): figure for name, figure in by_name.items()}

    is_one_kind = part.manipulation is not None  # then there is no worst kind
    found.values.update(rename({n: v for n, v in made.values.items() if not (is_one_kind and n.startswith("worst_"))}))
    found.intervals.update(rename(made.intervals) if with_intervals else {})
    found.notes.update(rename(made.notes))
