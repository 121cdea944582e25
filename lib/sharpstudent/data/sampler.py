"""The sampler: the order in which an epoch visits its samples, as a pure function of (seed, epoch).

There is no state to save and restore, and memory does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.random import build_generator

ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # splitmix64 (Steele et al. 2014)


@dataclass(frozen=True)
class SampleKey:
    """Identifies a sample and its random draws.

    Attributes:
        epoch: The epoch, from 1; 0 for evaluated samples.
        index: The number of the sample.
        visit: Counts the visits of one index within an epoch, from 0.
    """

    epoch: int
    index: int
    visit: int = 0


@dataclass(frozen=True)
class TrainSampler:
    """Batches of keys for one epoch.

    Each pass over the samples has a permutation of its own. An incomplete last batch is dropped, but a data set smaller
    than a batch gives one batch of all samples.

    Attributes:
        items: Number of samples in the set, at least 1.
        batch_size: Number of samples in a batch, at least 1.
        repeats: Passes over the samples in an epoch, at least 1.
        seed: The seed of the run.
    """

    items: int
    batch_size: int
    repeats: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return max(1, self.items * self.repeats // self.batch_size)

    def batches(self, epoch: int, *, start_step: int = 0) -> Iterator[list[SampleKey]]:
        """Yield the keys of each batch of an epoch.

        Args:
            epoch: The epoch, from 1.
            start_step: The first batch that is wanted, from 0.
        """
        visits = self.items * self.repeats
        for step in range(start_step, self.steps_per_epoch):
            places = np.arange(step * self.batch_size, min((step + 1) * self.batch_size, visits))
            yield [
                SampleKey(epoch, index, visit)
                for visit in np.unique(places // self.items).tolist()
                for index in self._shuffle(epoch, visit)(places[places // self.items == visit] % self.items)
            ]

    def _shuffle(self, epoch: int, visit: int) -> Shuffle:
        return Shuffle(self.items, build_generator(self.seed, epoch, visit, "order"))


class Shuffle:
    """A pseudo-random permutation of 0..size-1, computed element by element in constant memory.

    It is a Feistel network over the next power of 4, applied until the result is below `size` (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains", section 3).
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        """Draw the keys of the network.

        Args:
            size: 1 to 2^62.
            rng: The generator that the keys are drawn from.

        Raises:
            ValueError: For another size.
        """
        if not 1 <= size <= 2**62:
            raise ValueError(f"size must lie between 1 and 2^62, got {size}")
        self._size = np.uint64(size)
        self._half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))  # bits in each half of a number
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = rng.integers(0, 2**64, size=ROUNDS, dtype=np.uint64)

    def __call__(self, places: NDArray[np.integer]) -> list[int]:
        """Find the indices at these places (n,), each 0..size-1."""
        found = self._permute(places.astype(np.uint64))
        while (outside := found >= self._size).any():
            found[outside] = self._permute(found[outside])
        return found.tolist()

    def _permute(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def evaluation_batches(items: int, batch_size: int) -> Iterator[list[SampleKey]]:
    """Yield the keys of each batch of an evaluation: every sample once, in order, always with the same draws.

    Args:
        items: Number of samples in the set.
        batch_size: Number of samples in a batch.
    """
    for start in range(0, items, batch_size):
        yield [SampleKey(0, index) for index in range(start, min(start + batch_size, items))]


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each number, so that every input bit affects the whole result; arithmetic is modulo 2^64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    return numbers ^ (numbers >> np.uint64(31))
