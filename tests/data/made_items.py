"""An item source for the tests of the loader: every pixel says which item and which draw it is."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import numpy as np
from sharpstudent.data.dataset import Item, UnreadableItem


class MadeItems:
    """Pairs of 4 x 4 pictures: the first channel is the index, the second the label, the third is drawn."""

    def __init__(self, items: int, *, broken: Collection[int] = (), sizes: tuple[int, ...] = (2,)) -> None:
        self._items, self._broken, self._sizes = items, frozenset(broken), sizes

    def __len__(self) -> int:
        return self._items

    def name_of(self, index: int) -> str:
        return f"photos/{index}.jpg"

    def make(self, index: int, rng: np.random.Generator) -> Item:
        if index in self._broken:
            raise UnreadableItem(self.name_of(index), "is empty (0 bytes)")
        k = self._sizes[index % len(self._sizes)]
        images = np.zeros((k, 4, 4, 3), np.uint8)
        images[..., 0] = index
        images[..., 1] = np.arange(k)[:, None, None]
        images[..., 2] = rng.integers(256, size=(k, 4, 4))
        labels = tuple(int(i > 0) for i in range(k))
        ids = tuple(f"{index}#{i}" for i in range(k))
        masks = np.full((k, 4, 4), index / 100, np.float32)
        return Item(images, labels, ids, f"clip {index}", f"person {index}", masks)


class Crashing(MadeItems):
    """Its worker raises something that is nobody's mistake but ours, or dies."""

    def __init__(self, items: int, *, dies: bool) -> None:
        super().__init__(items)
        self._dies = dies

    def make(self, index: int, rng: np.random.Generator) -> Item:
        if self._dies:
            time.sleep(0.3)  # or torch has not noted the worker's number yet, and polls for it every 5 s
            os._exit(9)
        raise ZeroDivisionError("a defect")
