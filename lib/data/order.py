"""In which order an epoch visits its items, as a pure function of (seed, epoch): nothing to save, nothing to
restore.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.random import build_generator


@dataclass(frozen=True)
class ItemKey:
    """Which item, and which randomness: `visit` counts the visits of one index within an epoch, from 0."""

    epoch: int
    index: int
    visit: int = 0


@dataclass(frozen=True)
class TrainOrder:
    """Batches of keys for one epoch: every item `repeats` times, each pass shuffled by itself, the last batch full or
    dropped.

    items, batch_size, repeats >= 1. A set smaller than a batch gives one batch of all there is.
    """

    items: int
    batch_size: int
    repeats: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.items * self.repeats // self.batch_size)

    def batches(self, epoch: int, *, start_step: int = 0) -> Iterator[list[ItemKey]]:
        """Key lists of steps start_step, start_step + 1, ... of an epoch (from 1)."""
        order = [
            ItemKey(epoch, int(index), visit)
            for visit in range(self.repeats)
            for index in build_generator(self.seed, epoch, visit, "order").permutation(self.items)
        ]
        for step in range(start_step, self.steps_per_epoch):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]


def evaluation_batches(items: int, batch_size: int) -> Iterator[list[ItemKey]]:
    """Every item once, in order, always with the randomness of epoch 0: each evaluation sees the same pictures."""
    for start in range(0, items, batch_size):
        yield [ItemKey(0, index) for index in range(start, min(start + batch_size, items))]
