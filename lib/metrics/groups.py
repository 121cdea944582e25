"""Draws of whole groups, people or clips, with replacement: how often each is in a resample.

A round draws as many groups as there are. Legend: N samples, G groups, R rounds in blocks of B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.metrics.checks import MetricError
from lib.metrics.names import number_names

# How often each group was drawn (B, G): whole numbers, no wider than they need be, for the tables that samples look
# their group up in are read N times a round.
Counts = NDArray[np.unsignedinteger[Any] | np.int64]
OnBlock = Callable[[Counts], NDArray[np.float64]]  # (B, G) -> (B,): a figure of each of B draws
BLOCK_CELLS = 2**18  # of a block of rounds over all samples: memory does not grow with the rounds


def number_groups(groups: Sequence[str], *, samples: int) -> NDArray[np.int64]:
    """Group names (N,) as numbers 0..G-1 in the names' order, so that the order of the samples does not matter.

    Raises MetricError for another number of samples, and for one group: one person says nothing about people.
    """
    if len(groups) != samples:
        raise MetricError(f"{len(groups)} groups for {samples} samples")
    names, numbers = number_names(groups)
    if len(names) < 2:
        raise MetricError(f"an interval over people needs two of them or more, all samples are of {names[0]!r}")
    return numbers


def draw_counts(
    group_of: NDArray[np.int64], labels: NDArray[np.int64], *, rounds: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """R times: how often each group was drawn (G,). Draws that hold one class only are drawn again."""
    generator = np.random.default_rng(seed)
    size = int(group_of.max()) + 1
    of_reals, of_fakes = (np.unique(group_of[labels == c]) for c in (0, 1))
    for _ in range(rounds):
        while True:
            counts = np.bincount(generator.integers(size, size=size), minlength=size)
            if _holds_any(counts, of_reals) and _holds_any(counts, of_fakes):
                break
        yield counts


def draw_blocks(group_of: NDArray[np.int64], labels: NDArray[np.int64], *, rounds: int, seed: int) -> Iterator[Counts]:
    """The same draws as `draw_counts`, B of them at a time: (B, G)."""
    most = max(1, BLOCK_CELLS // max(len(group_of), int(group_of.max()) + 1))
    waiting: list[Counts] = []
    for done, counts in enumerate(draw_counts(group_of, labels, rounds=rounds, seed=seed), start=1):
        waiting.append(counts.astype(np.uint16) if counts.max() < 2**16 else counts)
        if len(waiting) == most or done == rounds:
            yield np.stack(waiting)
            waiting.clear()


def _holds_any(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> bool:
    """Whether any of the groups was drawn; the first few tell of nearly every draw."""
    return bool(counts[groups[:64]].any()) or bool(counts[groups].any())
