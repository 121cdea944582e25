"""The contract between a task's raw material and the loader: items, and sources that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Item:
    """What one index gives: k images that belong together (a real face and the fake made of it, or one labelled
    picture).

    images: uint8 (k, S, S, 3) RGB; labels: k of them, real 0 and fake 1; masks: float32 (k, S, S) or None.
    """

    images: NDArray[np.uint8]
    labels: tuple[int, ...]
    sample_ids: tuple[str, ...]
    clip_id: str
    identity: str
    masks: NDArray[np.float32] | None = None


class ItemSource(Protocol):
    """A set of items by index. The same (index, generator state) must give the same bytes in any process."""

    def __len__(self) -> int: ...

    def name_of(self, index: int) -> str:
        """What the user calls this item: its path."""
        ...

    def make(self, index: int, rng: np.random.Generator) -> Item:
        """The item; raises UnreadableItem when its files cannot be used."""
        ...


class UnreadableItem(Exception):
    """A file that cannot be used, with the reason. The loader replaces the item and reports it once."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableItem], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # exceptions with two arguments do not cross processes otherwise
