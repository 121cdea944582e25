"""Many scores made one: those of a clip's frames, or of a frame's faces. The rule is part of every figure's name.

Scores are log-odds of fake, log(p / (1 - p)). Unless its name says `margin` a rule takes the mean of probabilities, as
the field does, and gives its log-odds: worked out in logarithms, so that neither ranks nor losses suffer where
probabilities round to 0 or 1. Legend: N samples, C keys (clips).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.metrics.checks import MetricError

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
