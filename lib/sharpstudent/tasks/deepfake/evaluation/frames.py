"""The scores that a model gives to frames, as columns, and the clips that the frames belong to.

An `Aggregation` makes one score of many: of the frames of a clip, or of the faces of a frame. The rule is part of every
metric's name. Scores are log-odds of fake, log(p / (1 - p)). Unless its name says `margin`, a rule takes the mean of
probabilities, as the field does, and gives its log-odds. It computes in logarithms, so that neither ranks nor losses
suffer where probabilities round to 0 or 1.

A `FrameTable` holds frames or clips as columns of numbers in a canonical order: metrics that are computed from it do
not depend on the order of the frames, to the last bit.

Legend: N samples (frames, or faces where a frame holds several that are scored each by itself), C keys (clips).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.types import Table
from sharpstudent.data.splits import find_groups
from sharpstudent.metrics.checks import (
    SHOWN,
    MetricError,
    check_both_classes,
    check_samples,
    name_some,
    number_names,
    number_pairs,
)
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.task import BLEND, FAKE

LEAST_FRAMES = 3  # of a person in a video: fewer support no answer about them
_NAME = re.compile(r"(?:(?P<mean>mean)|(?P<max>max)|top(?P<top>[1-9][0-9]*)(?P<frames>frames)?)(?P<margin>_margin)?")


@dataclass(frozen=True)
class Aggregation:
    """A rule that makes one score of many.

    Attributes:
        name: `mean`, `max`, `top10` (mean of the highest 10 %, rounded up) or `top5frames` (mean of the highest 5, or
            of all where there are fewer); with `_margin` at the end (`mean_margin`) the mean of the log-odds
            themselves.

    Raises:
        MetricError: For any other name.
    """

    name: str

    def __post_init__(self) -> None:
        found = _NAME.fullmatch(self.name)
        if found is None or (found["max"] and found["margin"]):  # the maximum is the same either way
            raise MetricError(
                f"{self.name!r} is no rule to aggregate by; known: mean, max, top10 (the highest 10 %), top5frames "
                "(the highest 5), and mean_margin, top10_margin, top5frames_margin (of log-odds, not probabilities)"
            )
        if found["top"] and not found["frames"] and int(found["top"]) > 100:
            raise MetricError(
                f"{self.name!r}: there is no more than 100 % to take; for a number write {self.name}frames"
            )

    @property
    def takes_margins(self) -> bool:
        """Whether log-odds are averaged, not probabilities."""
        return self.name.endswith("_margin")

    def count_kept(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compute how many of the highest of each key's samples are averaged: (C,) -> (C,), 1 or more."""
        found = _NAME.fullmatch(self.name)
        assert found is not None
        if found["mean"]:
            return sizes
        if found["max"]:
            return np.ones_like(sizes)
        top = int(found["top"])
        return np.minimum(sizes, top) if found["frames"] else (sizes * top + 99) // 100


MEAN, MAX, TOP10 = Aggregation("mean"), Aggregation("max"), Aggregation("top10")


def aggregate(margins: NDArray[np.float64], key_of: NDArray[np.int64], how: Aggregation) -> NDArray[np.float64]:
    """Compute one score for each key. The order of the samples does not matter, to the last bit.

    Args:
        margins: Finite log-odds of fake (N,).
        key_of: The key of each sample, 0..C-1 (N,), each key at least once.
        how: The rule to aggregate by.

    Returns:
        Log-odds of each key (C,).
    """
    order = np.lexsort((margins, key_of))
    sizes = np.bincount(key_of)
    kept = how.count_kept(sizes)
    # Ascending within a key: the highest are the last ones.
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(margins))
    chosen = margins[order][left <= np.repeat(kept, sizes)]
    if how.takes_margins or how.name == MAX.name:
        return np.add.reduceat(chosen, np.cumsum(kept) - kept) / kept
    log_fake = _add_exponentials(-np.logaddexp(0.0, -chosen), kept)
    return log_fake - _add_exponentials(-np.logaddexp(0.0, chosen), kept)


def _add_exponentials(values: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute log(sum(exp(values))) of consecutive stretches of these sizes: (sum of sizes,) -> (C,)."""
    starts = np.cumsum(sizes) - sizes
    largest = np.maximum.reduceat(values, starts)
    return largest + np.log(np.add.reduceat(np.exp(values - np.repeat(largest, sizes)), starts))


@dataclass(frozen=True)
class ScoredFrames:
    """Frames with the scores of one model: a row a frame, in any order, N of each column.

    Attributes:
        margins: Log-odds of fake, log(p / (1 - p)), float64; 0 means a probability of one half.
        labels: Real 0, fake 1, int64.
        sample_ids: The names of the frames, unique within a source.
        clip_ids: The names of the videos, unique within a source.
        groups: The person in each frame, or the group of people who appear together.
        sources: The data set of each frame.
        manipulations: The kind of fake of each frame; not read for reals.
        decided: Whether the model gave a score; False where no face was found, and the margin is then not read. By
            default all are True.
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.int64]
    sample_ids: Sequence[str]
    clip_ids: Sequence[str]
    groups: Sequence[str]
    sources: Sequence[str]
    manipulations: Sequence[str]
    decided: NDArray[np.bool_] = None  # type: ignore[assignment]  # made below where it is left out

    def __post_init__(self) -> None:
        if self.decided is None:
            object.__setattr__(self, "decided", np.ones(len(self), np.bool_))
        sizes = {name: len(column) for name, column in vars(self).items()}
        if len(set(sizes.values())) != 1:
            raise MetricError(f"columns of scored frames differ in length: {sizes}")

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, rows: NDArray[np.int64]) -> ScoredFrames:
        """Take some of the frames, by number, in the given order."""

        def pick(column: Any) -> Any:
            return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]

        return ScoredFrames(**{name: pick(column) for name, column in vars(self).items()})


def join_frames(parts: Sequence[ScoredFrames]) -> ScoredFrames:
    """Join the frames of several sets or processes. Metrics do not depend on how the frames were shared out.

    A frame that two parts hold is refused where metrics are computed. Raises MetricError for no parts.
    """
    if not parts:
        raise MetricError("no samples at all: no parts to join")

    def join(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else list(chain.from_iterable(columns))

    return ScoredFrames(**{field.name: join(field.name) for field in fields(ScoredFrames)})


REAL = 0  # the number that stands for "no manipulation" in the column of manipulations


@dataclass(frozen=True)
class FrameTable:
    """Frames or clips as columns of numbers, N of each.

    Attributes:
        margins: Log-odds of fake, 0 where there is no decision.
        labels: Real 0, fake 1.
        decided: Whether there is a score.
        sources: Numbers of the sources.
        manipulations: Numbers of the kinds of fake, REAL for reals.
        people: Numbers of the people; those of different sources differ.
        clips: Numbers of the clips; those of different sources differ.
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

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> FrameTable:
        """Take some of the rows, or all in another order."""
        return FrameTable(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Names:
    """What the numbers of a table stand for.

    Attributes:
        sources: The name of each source, by its number.
        manipulations: The name of each kind of fake, by its number.
    """

    sources: list[str]
    manipulations: list[str]


def build_frame_table(frames: ScoredFrames, *, has_clips: bool = True) -> tuple[FrameTable, Names]:
    """Check frames and turn them into numbers.

    Args:
        frames: The frames of one or more sources.
        has_clips: Whether frames form clips; the frames of a clip must then agree in label, kind of fake and person.

    Returns:
        The table, in an order of its own, and the names of its numbers.

    Raises:
        MetricError: It names samples: for margins that are not finite, one class only, no frame with a decision, or a
            frame that is there twice. With has_clips also for a clip whose frames have different labels, manipulations
            or people.
    """
    decided = _check_decided(frames)
    _check_twice(frames)
    source_names, sources = number_names(frames.sources)
    kind_names, kinds = number_names(frames.manipulations)
    _, clips = number_names(frames.clip_ids)
    people_names, people = number_names(frames.groups)
    labels = np.asarray(frames.labels, np.int64)
    table = FrameTable(
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
        for what, values, value_names in (
            ("label", labels, ["real", "fake"]),
            ("manipulation", table.manipulations, names.manipulations),
            ("person", people, people_names),
        ):
            _check_constant(frames, table.clips, values, what, value_names)
    return table.take(_find_order(table)), names


def _check_constant(
    frames: ScoredFrames, clip_of: NDArray[np.int64], values: NDArray[np.int64], what: str, value_names: Sequence[str]
) -> None:
    """Raise MetricError where the frames of a clip have two values. It names such clips, with a frame of each value.

    Args:
        frames: The N frames.
        clip_of: The number of each frame's clip, 0..C-1 (N,).
        values: A value for each frame (N,).
        what: What the values are, such as `label`.
        value_names: The name of each value, by its number.
    """
    _, first = np.unique(clip_of, return_index=True)
    others = np.flatnonzero(values != values[first][clip_of])
    clips, places = np.unique(clip_of[others], return_index=True)
    if not len(clips):
        return

    def tell(row: int) -> str:
        return f"{frames.sample_ids[row]} {value_names[values[row]]}"

    shown = [
        f"{frames.sources[one]}/{frames.clip_ids[one]} ({tell(one)} and {tell(other)})"
        for one, other in zip(first[clips[:SHOWN]].tolist(), others[places[:SHOWN]].tolist(), strict=True)
    ]
    raise MetricError(
        f"{len(clips)} of {len(first)} clips have more than one {what}: {name_some(shown, of=len(clips))}"
    )


def count_videos(frames: ScoredFrames) -> int:
    """Count the videos: the clips of frames of which any clip has two; 0 for stills."""
    clips = len(set(zip(frames.sources, frames.clip_ids, strict=True)))
    return clips if clips < len(frames) else 0


def find_videos(table: FrameTable) -> FrameTable:
    """Find the frames of the sources that have videos: clips of two frames or more. A still is no video.

    Args:
        table: The table of frames, built with has_clips.

    Returns:
        Those of the rows; none where no source has any.
    """
    clips, sizes = np.unique(table.clips, return_counts=True)
    sources = np.unique(table.sources[np.isin(table.clips, clips[sizes > 1])])
    return table.take(np.isin(table.sources, sources))


def build_clip_table(frames: FrameTable, how: Aggregation) -> FrameTable:
    """Make a row for each clip of the sources that have videos.

    A clip without any frame that has a decision has none itself.

    Args:
        frames: The table of frames, built with has_clips.
        how: The rule that makes one score of a clip's frames.

    Returns:
        The table of the clips.
    """
    frames = find_videos(frames)
    _, first, clips = np.unique(frames.clips, return_index=True, return_inverse=True)
    frames = replace(frames, clips=clips.astype(np.int64))
    scored = frames.take(frames.decided)
    some, of_some = np.unique(scored.clips, return_inverse=True)
    margins, decided = np.zeros(len(first)), np.zeros(len(first), np.bool_)
    if len(some):
        margins[some], decided[some] = aggregate(scored.margins, of_some.astype(np.int64), how), True
    return replace(frames.take(first), margins=margins, decided=decided)


def _find_order(table: FrameTable) -> NDArray[np.int64]:
    """Find a canonical order of the rows: rows that it does not order are equal in every column."""
    columns = (table.manipulations, table.people, table.labels, table.decided, table.margins, table.clips)
    return np.lexsort(columns).astype(np.int64)


def _check_decided(frames: ScoredFrames) -> NDArray[np.bool_]:
    ids = frames.sample_ids
    decided = np.asarray(frames.decided, np.bool_)
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
    counts = Counter(zip(frames.sources, frames.sample_ids, strict=True))
    twice = [f"{source}: {name}" for (source, name), count in counts.items() if count > 1]
    if twice:
        raise MetricError(f"{len(twice)} of {len(frames)} samples are there twice: {name_some(twice)}")


_REAL = re.compile(r"#real\d*$")  # at the end of a row's name: the real face of a blended pair
_VARIANT = re.compile(r"#(?:real|blend)\d*$")


def build_frames(table: Table, *, source: str = "", is_blended: bool = False, has_videos: bool = True) -> ScoredFrames:
    """Make scored frames of the table of a run's validation data.

    A picture that was read twice, as the substitute of an unreadable one, counts once, and so does the real of a face
    that was blended several times. A clip of two pictures or more is a video; blends of one picture are none, and each
    is a clip of its own. Fakes that are blends of the reals of a video are a clip of their own, `CLIP#blend`; labelled
    fakes too, `CLIP#fake`, where the clip has reals. Groups are people, and people whose faces are seen in one clip are
    one group.

    Args:
        table: A table of N rows with the columns of the deepfake task.
        source: The name of the source of all frames.
        is_blended: Whether fakes are blends; read only for tables from before November 2026, which do not say it.
        has_videos: Whether clips may be videos; False where the data is known to have stills alone.

    Returns:
        M <= N frames.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(table["id"].tolist()):
        first.setdefault(_REAL.sub("#real", name), row)
    rows = list(first.values())
    names = table["id"][rows].tolist()
    labels = table["label"][rows].astype(np.int64)
    clips, people = (table[name][rows].tolist() for name in ("clip", "group"))
    kind = BLEND if is_blended else FAKE
    kinds = (
        table["manipulation"][rows].tolist()
        if "manipulation" in table
        else [kind if label == 1 else "" for label in labels.tolist()]
    )
    has_reals = {clip for clip, label in zip(clips, labels.tolist(), strict=True) if label == 0}
    pictures = Counter(clip for clip, _ in {(clip, _VARIANT.sub("", n)) for clip, n in zip(clips, names, strict=True)})
    clip_ids = [
        name
        if not has_videos or pictures[clip] < 2
        else f"{clip}#{'blend' if kind == BLEND else 'fake'}"
        if label == 1 and (kind == BLEND or clip in has_reals)
        else clip
        for name, clip, label, kind in zip(names, clips, labels.tolist(), kinds, strict=True)
    ]
    return ScoredFrames(
        margins=compute_margins(table)[rows],
        labels=labels,
        sample_ids=names,
        clip_ids=clip_ids,
        groups=_join_people(clips, people),
        sources=[source] * len(rows),
        manipulations=kinds,
    )


def _join_people(clips: Sequence[str], people: Sequence[str]) -> list[str]:
    """Find the group of each row (M,). A bystander has another name than the person whom the clip shows."""
    of_clip: dict[str, dict[str, None]] = {}
    for clip, person in zip(clips, people, strict=True):
        of_clip.setdefault(clip, {})[person] = None
    groups = dict(zip(of_clip, find_groups([tuple(names) for names in of_clip.values()]), strict=True))
    return [groups[clip] for clip in clips]
