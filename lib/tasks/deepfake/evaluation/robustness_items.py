"""Faces with all their disturbed variants, as items: a face is read and cut once for all of them.

Legend: n chosen faces of a set, V variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lib.data.items import Item
from lib.modalities.faces.disturb import Disturbance, disturb
from lib.modalities.faces.disturb_cut import cut_face
from lib.tasks.deepfake.sources.face import Face


@dataclass(frozen=True)
class Variant:
    """A disturbance at one of its strengths; level: its place among them."""

    disturbance: Disturbance
    level: int


def list_variants(disturbances: Sequence[Disturbance]) -> list[Variant]:
    """The undisturbed picture, once for all, then every disturbance at each of its strengths."""
    return [Variant(disturbances[0], 0)] + [
        Variant(disturbance, level) for disturbance in disturbances for level in range(1, len(disturbance.strengths))
    ]


class DisturbedFaces:
    """An item of V pictures a face: uint8 (V, S, S, 3) RGB in the variants' order.

    chosen: int64 (n,), numbers of faces in `faces`: the key of a face's randomness is its number there, so that it does
    not depend on which others were chosen. The pixels of the undisturbed variant are those of validation, cut around
    the detector's first box where there is one (`LabelledFaces`). Every item says label 0, so that a loader leaves them
    in their order.
    """

    def __init__(
        self, faces: Sequence[Face], chosen: Sequence[int], variants: Sequence[Variant], *, image_size: int, seed: int
    ) -> None:
        self._faces, self._chosen, self._variants = faces, chosen, variants
        self._image_size, self._seed = image_size, seed

    def __len__(self) -> int:
        return len(self._chosen)

    def name_of(self, index: int) -> str:
        return self._faces[self._chosen[index]].name

    def make(self, index: int, rng: np.random.Generator) -> Item:
        """The generator of the item's place is not drawn from. Raises UnreadableItem as the face's own loading does."""
        number = self._chosen[index]
        face = self._faces[number]
        loaded = face.load()
        cut = cut_face(loaded.image, None if loaded.boxes is None else loaded.boxes[0])
        side = self._image_size
        images = np.empty((len(self._variants), side, side, 3), np.uint8)
        for place, variant in enumerate(self._variants):
            picture = disturb(cut, variant.disturbance, variant.level, seed=self._seed, index=number)
            # Bilinear, with no smoothing before it: as all items are resized.
            images[place] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
        count = len(self._variants)
        return Item(images, (0,) * count, (face.name,) * count, face.clip_id, face.identity)
