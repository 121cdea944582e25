"""Faces to judge as items that a loader leaves in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lib.data.items import Item
from lib.tasks.deepfake.items import LabelledFaces
from lib.tasks.deepfake.sources.face import Face


class FacesInOrder:
    """An item of one picture a face, to the same pixels as in validation (`LabelledFaces`, train=False).

    Every item says label 0: the loader sorts a batch by labels, and a stand-in for an unreadable face may have another
    label than it. So score i is always that of face i, and the true labels stay with the set.
    """

    def __init__(self, faces: Sequence[Face], *, image_size: int) -> None:
        self._items = LabelledFaces(faces, image_size=image_size, train=False)

    def __len__(self) -> int:
        return len(self._items)

    def name_of(self, index: int) -> str:
        return self._items.name_of(index)

    def make(self, index: int, rng: np.random.Generator) -> Item:
        return replace(self._items.make(index, rng), labels=(0,))
