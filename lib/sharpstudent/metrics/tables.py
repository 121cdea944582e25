"""What a model says of a set of frames, as columns.

What a model says of a set of frames, with everything that figures are split and resampled by.

Legend: N frames (faces, where a frame holds several that are judged each by itself).

Scored frames, and the clips made of them, as columns of numbers in an order of their own: figures made of a table do
not depend on the order that the frames came in, to the last bit.

Legend: N rows, frames or clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from sharpstudent.metrics.aggregation import Aggregation, aggregate, find_constant
from sharpstudent.metrics.checks import (
    MetricError,
    check_both_classes,
    check_samples,
    name_some,
    number_names,
    number_pairs,
)


@dataclass(frozen=True)
class ScoredFrames:
    """One row a frame, in any order; N of each.

    margins: float64, log-odds of fake, log(p / (1 - p)): 0 is a probability of one half; labels: int64, real 0, fake 1;
    sample_ids: the frames' names, each once in a source; clip_ids: the video, a name of its source's own; groups: the
    person, or the people who appear together; sources: the data set; manipulations: the kind of fake, not read for
    reals; decided: bool, False where the model was not asked, as no face was found: such a row's margin is not read.
    None: all are decided.
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.int64]
    sample_ids: Sequence[str]
    clip_ids: Sequence[str]
    groups: Sequence[str]
    sources: Sequence[str]
    manipulations: Sequence[str]
    decided: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        sizes = {field.name: len(column) for field in fields(self) if (column := getattr(self, field.name)) is not None}
        if len(set(sizes.values())) != 1:
            raise MetricError(f"columns of scored frames differ in length: {sizes}")

    def __len__(self) -> int:
        return len(self.sample_ids)


def join_frames(parts: Sequence[ScoredFrames]) -> ScoredFrames:
    """What several processes or files hold, as one: figures do not depend on how the frames were shared out.

    A frame that two parts hold is refused where figures are made. Raises MetricError for no parts.
    """
    if not parts:
        raise MetricError("no samples at all: no parts to join")

    def chain(name: str) -> list[str]:
        return [value for part in parts for value in getattr(part, name)]

    decided = [np.ones(len(part), np.bool_) if part.decided is None else part.decided for part in parts]
    return ScoredFrames(
        margins=np.concatenate([part.margins for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        sample_ids=chain("sample_ids"),
        clip_ids=chain("clip_ids"),
        groups=chain("groups"),
        sources=chain("sources"),
        manipulations=chain("manipulations"),
        decided=None if all(part.decided is None for part in parts) else np.concatenate(decided),
    )


REAL = 0  # the number of a real's manipulation


@dataclass(frozen=True)
class Table:
    """N of each. margins: log-odds of fake, 0 where there is no decision; labels: real 0, fake 1; decided; sources,
    manipulations (REAL of reals), people, clips: numbers, people and clips of different sources being different ones.
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.int64]
    decided: NDArray[np.bool_]
    sources: NDArray[np.int64]
    manipulations: NDArray[np.int64]
    people: NDArray[np.int64]
    clips: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.margins)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Table:
        """Some of the rows, or all in another order."""
        return Table(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Names:
    """What the numbers of a table stand for."""

    sources: list[str]
    manipulations: list[str]


def build_frame_table(frames: ScoredFrames, *, has_clips: bool = True) -> tuple[Table, Names]:
    """Raises MetricError, naming samples, for margins that are not finite, one class, no frame with a decision, a frame
    that is there twice; with has_clips also for a clip whose frames have different labels, manipulations or people.
    """
    decided = _check_decided(frames)
    _check_twice(frames)
    source_names, sources = number_names(frames.sources)
    kind_names, kinds = number_names(frames.manipulations)
    _, clips = number_names(frames.clip_ids)
    people_names, people = number_names(frames.groups)
    labels = np.asarray(frames.labels, np.int64)
    table = Table(
        margins=np.where(decided, np.asarray(frames.margins, np.float64), 0.0),
        labels=labels,
        decided=decided,
        sources=sources,
        manipulations=np.where(labels == 1, kinds + 1, REAL),
        people=number_pairs(sources, people),
        clips=number_pairs(sources, clips),
    )
    names = Names(source_names, ["real", *(name or "unnamed" for name in kind_names)])
    if has_clips:
        _, first = np.unique(table.clips, return_index=True)
        clips_told = [f"{frames.sources[i]}/{frames.clip_ids[i]}" for i in first.tolist()]
        for what, values, told in (
            ("label", labels, ["real", "fake"]),
            ("manipulation", table.manipulations, names.manipulations),
            ("person", people, people_names),
        ):
            find_constant(values, table.clips, clips_told, what, told, sample_ids=frames.sample_ids)
    return table.take(_find_order(table)), names


def build_clip_table(frames: Table, how: Aggregation) -> Table:
    """A row a clip; one without any frame that has a decision has none itself. frames: built with has_clips."""
    _, first = np.unique(frames.clips, return_index=True)
    scored = frames.take(frames.decided)
    some, of_some = np.unique(scored.clips, return_inverse=True)
    margins, decided = np.zeros(len(first)), np.zeros(len(first), np.bool_)
    margins[some], decided[some] = aggregate(scored.margins, of_some.astype(np.int64), how), True
    return replace(frames.take(first), margins=margins, decided=decided)


def _find_order(table: Table) -> NDArray[np.int64]:
    """Rows that it leaves as they came are alike in every column."""
    columns = (table.manipulations, table.people, table.labels, table.decided, table.margins, table.clips)
    return np.lexsort(columns).astype(np.int64)


def _check_decided(frames: ScoredFrames) -> NDArray[np.bool_]:
    ids = frames.sample_ids
    decided = np.ones(len(frames), np.bool_) if frames.decided is None else np.asarray(frames.decided, np.bool_)
    check_samples(np.zeros(len(frames)), frames.labels, sample_ids=ids)
    if not bool(decided.any()):
        raise MetricError(f"no decision at all: no face was found in any of {len(ids)} frames ({name_some(ids)})")
    scored = [ids[i] for i in np.flatnonzero(decided).tolist()]
    _, labels = check_samples(
        np.asarray(frames.margins)[decided], np.asarray(frames.labels)[decided], sample_ids=scored
    )
    check_both_classes(labels, sample_ids=scored)
    return decided


def _check_twice(frames: ScoredFrames) -> None:
    if len(set(frames.sample_ids)) == len(frames):
        return
    seen: set[tuple[str, str]] = set()
    twice: list[str] = []
    for source, name in zip(frames.sources, frames.sample_ids, strict=True):
        if (source, name) in seen:
            twice.append(f"{source}: {name}")
        seen.add((source, name))
    if twice:
        raise MetricError(f"{len(twice)} of {len(frames)} samples are there twice: {name_some(twice)}")
