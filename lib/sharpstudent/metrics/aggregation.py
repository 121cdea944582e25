"""Many scores made one: those of a clip's frames, or of a frame's faces; and clips as samples.

Many scores made one: those of a clip's frames, or of a frame's faces. The rule is part of every figure's name.

Scores are log-odds of fake, log(p / (1 - p)). Unless its name says `margin` a rule takes the mean of probabilities, as
the field does, and gives its log-odds: worked out in logarithms, so that neither ranks nor losses suffer where
probabilities round to 0 or 1. Legend: N samples, C keys (clips).

Clips as samples: one score and one label each, from those of their frames. Legend: N frames, C clips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.checks import SHOWN, MetricError, check_samples, name_some, number_names

_NAME = re.compile(r"(?:(?P<mean>mean)|(?P<max>max)|top(?P<top>[1-9][0-9]*)(?P<frames>frames)?)(?P<margin>_margin)?")


@dataclass(frozen=True)
class Aggregation:
    """A rule by its name: `mean`, `max`, `top10` (mean of the highest 10 %, rounded up), `top5frames` (mean of the
    highest 5, of fewer all); `mean_margin` and so on: the mean of the log-odds themselves. Other names: MetricError.
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
        """How many of the highest of each key's samples are averaged: (C,) -> (C,), 1 or more."""
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
    """Log-odds of each key, (C,); margins: finite log-odds (N,), key_of: 0..C-1 (N,), each of them at least once.

    The order of the samples does not matter, to the last bit.
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
    """log(sum(exp(values))) of each stretch of so many values: (sum of sizes,) -> (C,)."""
    starts = np.cumsum(sizes) - sizes
    largest = np.maximum.reduceat(values, starts)
    return largest + np.log(np.add.reduceat(np.exp(values - np.repeat(largest, sizes)), starts))


@dataclass(frozen=True)
class ClipScores:
    """C clips in the order of their names: margins float64 (C,), log-odds of fake; labels int64 (C,)."""

    clip_ids: tuple[str, ...]
    margins: NDArray[np.float64]
    labels: NDArray[np.int64]


def aggregate_clips(
    margins: ArrayLike,
    labels: ArrayLike,
    clip_ids: Sequence[str],
    how: Aggregation,
    *,
    sample_ids: Sequence[str] | None = None,
) -> ClipScores:
    """Of frames with a decision: margins (N,), log-odds of fake, labels (N,), and the N frames' clips.

    Raises MetricError as `check_samples` does, and for a clip whose frames have different labels.
    """
    margin_array, label_array = check_samples(margins, labels, sample_ids=sample_ids)
    if len(clip_ids) != len(margin_array):
        raise MetricError(f"{len(clip_ids)} clips for {len(margin_array)} samples")
    names, clip_of = number_names(clip_ids)
    label_of_clip = find_constant(
        label_array, clip_of, names, "label", ("real", "fake"), sample_ids=sample_ids or _number(len(clip_ids))
    )
    return ClipScores(tuple(names), aggregate(margin_array, clip_of, how), label_of_clip)


def find_constant(
    values: NDArray[np.int64],
    clip_of: NDArray[np.int64],
    clip_names: Sequence[str],
    what: str,
    value_names: Sequence[str],
    *,
    sample_ids: Sequence[str],
) -> NDArray[np.int64]:
    """The one value (C,) that the frames of each clip share; values, clip_of (N,). A MetricError names the clips that
    have two, with a frame of each; what: of what; value_names: what the values are called.
    """
    lowest = np.full(len(clip_names), np.iinfo(np.int64).max)
    highest = np.full(len(clip_names), np.iinfo(np.int64).min)
    np.minimum.at(lowest, clip_of, values)
    np.maximum.at(highest, clip_of, values)
    bad = np.flatnonzero(lowest != highest).tolist()
    if not bad:
        return lowest

    def tell(clip: int) -> str:
        frames = [int(np.flatnonzero((clip_of == clip) & (values == of[clip]))[0]) for of in (lowest, highest)]
        return f"{clip_names[clip]} ({' and '.join(f'{sample_ids[i]} {value_names[values[i]]}' for i in frames)})"

    told = name_some([tell(clip) for clip in bad[:SHOWN]], of=len(bad))
    raise MetricError(f"{len(bad)} of {len(clip_names)} clips have more than one {what}: {told}")


def _number(samples: int) -> list[str]:
    return [f"sample {i}" for i in range(samples)]
