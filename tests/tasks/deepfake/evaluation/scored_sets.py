"""A drawn set of scored frames, and its parts, for tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sharpstudent.metrics.checks import number_names
from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation, ScoredFrames, aggregate
from sharpstudent.tasks.deepfake.evaluation.set_metrics import Resampling, SetMetrics, compute_set_metrics

THRESHOLDS = {"frame": {"eer": 0.4}, "video_mean": {"eer": 0.2}}


def draw_frames(*, seed: int = 0, clips: int = 24, frames_each: int = 5, has_undecided: bool = True) -> ScoredFrames:
    """Two sources, `a` with two kinds of fake and `b` with one; clip names that both sources use; some ties."""
    generator = np.random.default_rng(seed)
    rows: list[tuple[str, str, str, str, str, int]] = []
    for source, kinds in (("a", ("", "swap", "mask")), ("b", ("", "swap"))):
        for clip in range(clips):
            kind = kinds[clip % len(kinds)]
            for frame in range(frames_each):
                rows.append(
                    (source, kind, f"{clip:03d}", f"person {clip // 2}", f"{clip:03d}/{frame}", int(kind != ""))
                )
    labels = np.array([row[5] for row in rows])
    return ScoredFrames(
        margins=np.round(generator.normal(size=len(rows)) + labels, 1),
        labels=labels,
        sample_ids=[row[4] for row in rows],
        clip_ids=[row[2] for row in rows],
        groups=[row[3] for row in rows],
        sources=[row[0] for row in rows],
        manipulations=[row[1] for row in rows],
        decided=generator.random(len(rows)) < (0.9 if has_undecided else 1),
    )


def take(frames: ScoredFrames, rows: Sequence[int] | NDArray[np.int64]) -> ScoredFrames:
    return frames.take(np.asarray(rows, np.int64))


def score_clips(
    margins: Sequence[float] | NDArray[np.float64],
    labels: Sequence[int] | NDArray[np.int64],
    clips: Sequence[str],
    rule: str,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.int64]]:
    """The clips in the order of their names: names, log-odds of fake, and labels."""
    names, clip_of = number_names(clips)
    _, first = np.unique(clip_of, return_index=True)
    return names, aggregate(np.asarray(margins), clip_of, Aggregation(rule)), np.asarray(labels)[first]


def compute(frames: ScoredFrames, rounds: int = 20) -> SetMetrics:
    return compute_set_metrics(frames, thresholds=THRESHOLDS, resampling=Resampling(rounds=rounds))


def find_decided(frames: ScoredFrames, *, source: str | None = None, kind: str | None = None) -> ScoredFrames:
    return take(
        frames,
        [
            i
            for i in np.flatnonzero(frames.decided).tolist()
            if source in (None, frames.sources[i])
            and (kind is None or frames.labels[i] == 0 or frames.manipulations[i] == kind)
        ],
    )
