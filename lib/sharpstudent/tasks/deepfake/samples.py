"""Items of the deepfake task: a real face and the fake blended from it, or one labelled face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sharpstudent.data.dataset import Item, UnreadableItem
from sharpstudent.modalities.faces.item import make_pair, make_single
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace


class BlendedPairs:
    """Each face gives a pair: itself (label 0) and a self-blended fake of it (label 1)."""

    def __init__(self, faces: Sequence[Face], *, image_size: int, train: bool) -> None:
        self._faces, self._image_size, self._train = faces, image_size, train

    def __len__(self) -> int:
        return len(self._faces)

    def name_of(self, index: int) -> str:
        return self._faces[index].name

    def make(self, index: int, rng: np.random.Generator) -> Item:
        face = self._faces[index]
        loaded = face.load()
        landmarks = _require_landmarks(face, loaded)
        try:
            pair = make_pair(loaded.image, landmarks, rng, self._image_size, train=self._train, boxes=loaded.boxes)
        except ValueError as error:  # landmarks or picture of a form that no face has
            raise UnreadableItem(face.name, str(error)) from None
        return Item(
            images=np.stack([pair.real, pair.fake]),
            labels=(0, 1),
            sample_ids=(f"{face.name}#real", f"{face.name}#blend"),
            clip_id=face.clip_id,
            identity=face.identity,
            masks=np.stack([np.zeros_like(pair.mask), pair.mask]),
        )


class RepeatedBlends:
    """Validation: `repeats` different pairs of each face; always the same ones, since the keys are constant."""

    def __init__(self, faces: Sequence[Face], *, image_size: int, repeats: int) -> None:
        self._pairs = BlendedPairs(faces, image_size=image_size, train=False)
        self._repeats = repeats

    def __len__(self) -> int:
        return len(self._pairs) * self._repeats

    def name_of(self, index: int) -> str:
        return self._pairs.name_of(index % len(self._pairs))

    def make(self, index: int, rng: np.random.Generator) -> Item:
        repeat, face = divmod(index, len(self._pairs))
        item = self._pairs.make(face, rng)
        return replace(item, sample_ids=tuple(f"{name}{repeat}" for name in item.sample_ids))


class LabelledFaces:
    """Faces with labels of their own: no blending, the same augmentation. Cut around the detector's first box, where
    there is one.
    """

    def __init__(self, faces: Sequence[Face], *, image_size: int, train: bool) -> None:
        self._faces, self._image_size, self._train = faces, image_size, train

    def __len__(self) -> int:
        return len(self._faces)

    def name_of(self, index: int) -> str:
        return self._faces[index].name

    def make(self, index: int, rng: np.random.Generator) -> Item:
        face = self._faces[index]
        loaded = face.load()
        box = None if loaded.boxes is None else loaded.boxes[0]
        image = make_single(loaded.image, box, rng, self._image_size, train=self._train)
        return Item(
            images=image[None],
            labels=(face.label,),
            sample_ids=(face.name,),
            clip_id=face.clip_id,
            identity=face.identity,
        )


def _require_landmarks(face: Face, loaded: LoadedFace) -> np.ndarray:
    if loaded.landmarks is None:
        raise UnreadableItem(face.name, "has no landmarks")
    return loaded.landmarks
