"""Two models on the same frames: the paired difference of their AUC, and how often they agree."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from lib.metrics.aggregation import MEAN, aggregate
from lib.metrics.auc import compute_auc_by_rank
from lib.metrics.figures import FRAME, name_figure, name_level
from lib.metrics.paired import compute_paired_test
from lib.metrics.scored import ScoredFrames
from lib.report.build import LEVEL, SEED, choose_rules
from lib.report.results import ComparisonResult, FigureResult

PAIRED_ROUNDS = 2000


def build_comparisons(
    a: tuple[str, ScoredFrames], b: tuple[str, ScoredFrames], *, rounds: int = PAIRED_ROUNDS, seed: int = SEED
) -> tuple[ComparisonResult, ...]:
    """Two models (name, scores) on the same frames in the same order: AUC of a minus that of b, paired over people, of
    frames and of videos by the mean rule, of all and of each source. ValueError where the frames are not the same.
    """
    (name_a, frames_a), (name_b, frames_b) = a, b
    for column in ("sample_ids", "clip_ids", "sources"):
        if list(getattr(frames_a, column)) != list(getattr(frames_b, column)):
            raise ValueError(f"{name_a} and {name_b} were judged on different frames: {column} differ")
    decided = _find_decided(frames_a) & _find_decided(frames_b)
    samples = [_take_decided(frames_a, frames_a.margins, frames_b.margins, decided)]
    if choose_rules(frames_a):
        samples.append(_make_videos(samples[0]))
    return tuple(
        _compare((name_a, name_b), level, part, rows, rounds=rounds, seed=seed)
        for level, whole in zip((FRAME, name_level(MEAN)), samples, strict=False)
        for part, rows in whole.list_parts()
    )


@dataclass(frozen=True)
class _Paired:
    """N samples of two models: a, b: log-odds (N,); labels (N,); people, clips, sources: names, unique over sources."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    labels: NDArray[np.int64]
    people: NDArray[np.str_]
    clips: NDArray[np.str_]
    sources: NDArray[np.str_]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Paired:
        return _Paired(*(getattr(self, field.name)[rows] for field in fields(self)))

    def list_parts(self) -> list[tuple[str, _Paired]]:
        """All, then each source where there are several; parts of one class are left out."""
        names = np.unique(self.sources).tolist()
        parts = [("", self)] + [(f"@{name}", self.take(self.sources == name)) for name in names if len(names) > 1]
        return [(part, rows) for part, rows in parts if len(np.unique(rows.labels)) == 2]


def _find_decided(frames: ScoredFrames) -> NDArray[np.bool_]:
    return np.ones(len(frames), np.bool_) if frames.decided is None else frames.decided


def _take_decided(
    frames: ScoredFrames, a: NDArray[np.float64], b: NDArray[np.float64], decided: NDArray[np.bool_]
) -> _Paired:
    people, clips = (
        np.array([f"{source}\0{name}" for source, name in zip(frames.sources, column, strict=True)])
        for column in (frames.groups, frames.clip_ids)
    )
    whole = _Paired(a, b, np.asarray(frames.labels, np.int64), people, clips, np.array(frames.sources))
    return whole.take(decided)


def _make_videos(frames: _Paired) -> _Paired:
    """A row a clip, scored by the mean rule."""
    _, first, clip_of = np.unique(frames.clips, return_index=True, return_inverse=True)
    of_clip = clip_of.astype(np.int64)
    a, b = (aggregate(margins, of_clip, MEAN) for margins in (frames.a, frames.b))
    return replace(frames.take(first), a=a, b=b)


def _compare(
    called: tuple[str, str], level: str, part: str, rows: _Paired, *, rounds: int, seed: int
) -> ComparisonResult:
    agreement = float(np.mean((rows.a >= 0.0) == (rows.b >= 0.0)))
    name, groups = name_figure(level, "auc", part), rows.people.tolist()
    if len(set(groups)) < 2:
        auc_a, auc_b = (compute_auc_by_rank(margins, rows.labels) for margins in (rows.a, rows.b))
        alone = FigureResult(value=auc_a - auc_b, note="no interval: fewer than two people")
        return ComparisonResult(
            a=called[0], b=called[1], figure=name, difference=alone, p_value=None, agreement=agreement
        )
    test = compute_paired_test(
        compute_auc_by_rank, rows.a, rows.b, rows.labels, groups, rounds=rounds, level=LEVEL, seed=seed
    )
    found = FigureResult(value=test.difference.value, low=test.difference.low, high=test.difference.high)
    return ComparisonResult(
        a=called[0], b=called[1], figure=name, difference=found, p_value=test.p_value, agreement=agreement
    )
