"""Samples for the tests of the loader: every pixel says which sample and which draw it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from sharpstudent.core.types import Batch, Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.data.loader import collate, pictures_to_tensor


def collate_pictures(samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
    """As a task of pictures does: float32 (R, 3, S, S) in 0..1."""
    batch = collate(samples, groups)
    return replace(batch, inputs={"image": pictures_to_tensor(batch.inputs["image"])})


class MadeSamples(Samples):
    """Pairs of 4 x 4 pictures: the first channel is the index, the second the label, the third is drawn."""

    def __init__(self, count: int, *, broken: Collection[int] = (), sizes: tuple[int, ...] = (2,)) -> None:
        self._count, self._broken, self._sizes = count, frozenset(broken), sizes

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"photos/{index}.jpg"

    def group(self, index: int) -> str:
        return f"person {index}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        if index in self._broken:
            raise UnreadableSample(self.name(index), "is empty (0 bytes)")
        k = self._sizes[index % len(self._sizes)]
        images = np.zeros((k, 4, 4, 3), np.uint8)
        images[..., 0] = index
        images[..., 1] = np.arange(k)[:, None, None]
        images[..., 2] = rng.integers(256, size=(k, 4, 4))
        return Sample(
            inputs={"image": images},
            targets={"label": np.array([int(i > 0) for i in range(k)], np.int64)},
            rows={
                "id": tuple(f"{index}#{i}" for i in range(k)),
                "clip": (f"clip {index}",) * k,
                "mask": np.full((k, 4, 4), index / 100, np.float32),
            },
        )


class Crashing(MadeSamples):
    """Its worker raises an exception that is a defect of this project, or dies."""

    def __init__(self, count: int, *, dies: bool) -> None:
        super().__init__(count)
        self._dies = dies

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        if self._dies:
            os._exit(9)
        raise ZeroDivisionError("a defect")
