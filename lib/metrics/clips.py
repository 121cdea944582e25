"""Clips as samples: one score and one label each, from those of their frames. Legend: N frames, C clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.metrics.aggregation import Aggregation, aggregate
from lib.metrics.checks import SHOWN, MetricError, check_samples, name_some
from lib.metrics.names import number_names


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
