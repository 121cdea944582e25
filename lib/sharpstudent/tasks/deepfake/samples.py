"""Makes the samples of the deepfake task: a real face and the fake blended from it, or one labelled face.

Legend: k rows of a sample, S side of the pictures [px]. Inputs `image` uint8 (k, S, S, 3) RGB; target `label` int64,
real 0 and fake 1; columns `id` and `clip`, and `mask` float32 (k, S, S) in 0..1 where a blend is known.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.modalities.faces.operations import Step
from sharpstudent.modalities.faces.sample import FacePair, make_pair, prepare_single
from sharpstudent.modalities.faces.views import list_views, make_views
from sharpstudent.tasks.deepfake.sources.face import Face


@dataclass(frozen=True)
class DrawnSample:
    """The pictures of one sample, for people to look at.

    Attributes:
        pictures: uint8 (S, S, 3) RGB each.
        labels: Real 0, fake 1, of each picture.
        told: What was done to them.
        mask: Of a real face and its fake, the blended-in share of each pixel, float32 (S, S); else None.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    labels: tuple[int, ...]
    told: tuple[str, ...]
    mask: NDArray[np.float32] | None = None


class FaceSamples(Samples):
    """The base of all samples of faces: their names and people."""

    def __init__(
        self,
        faces: Sequence[Face],
        *,
        image_size: int,
        train: bool,
        times: int = 1,
        steps: Sequence[Step] | None = None,
    ) -> None:
        """Keep the faces; nothing is read yet.

        Args:
            faces: The faces.
            image_size: Side of the pictures [px].
            train: Whether pictures are augmented.
            times: How many samples each face gives.
            steps: The operations of the augmentation; None for the published one (`sbi`).
        """
        self._faces, self._image_size, self._train, self._times = faces, image_size, train, times
        self._steps = steps

    def __len__(self) -> int:
        return len(self._faces) * self._times

    def name(self, index: int) -> str:
        """Return the name of a sample's face."""
        return self._faces[index % len(self._faces)].name

    def group(self, index: int) -> str:
        """Return the person in a sample."""
        return self._faces[index % len(self._faces)].identity

    def without_augmentation(self) -> Self:
        """Return the same samples as validation would make them."""
        plain = copy(self)
        plain._train, plain._steps = False, None
        return plain

    @abstractmethod
    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        """Make the pictures of a sample as `make` does, and say what was done to them."""
        ...

    def find_groups(self) -> frozenset[str]:
        """Return all people; those of a prepared set are read by column, not face by face."""
        find = getattr(self._faces, "find_identities", None)
        return super().find_groups() if find is None else find()

    def has_videos(self) -> bool:
        """Say whether any clip has two pictures; the clips of a prepared set are read by column, too."""
        count = getattr(self._faces, "count_clips", None)
        clips = len({face.clip_id for face in self._faces}) if count is None else count()
        return clips < len(self._faces)


class BlendedPairs(FaceSamples):
    """Samples that are pairs: a face (label 0) and a self-blended fake of it (label 1).

    In validation they are always the same pairs, since the keys of the generator are constant. Where a face is blended
    several times there, the samples after its first pair are of the fake alone: the real face is one picture, and
    counts once in every metric and threshold.
    """

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make one pair, or a further fake of a face.

        Args:
            index: The sample's number.
            rng: Draws the blend and the augmentation.

        Returns:
            The pair, or the fake, with the mask among the rows.

        Raises:
            UnreadableSample: If the face cannot be read or blended.
        """
        time, place = divmod(index, len(self._faces))
        face, pair = self._faces[place], self.make_faces(index, rng)
        number = "" if self._train else str(time)
        images, masks = np.stack([pair.real, pair.fake]), np.stack([np.zeros_like(pair.mask), pair.mask])
        ids = (f"{face.name}#real{number}", f"{face.name}#blend{number}")
        kept = slice(0 if self._train or time == 0 else 1, 2)
        return build_sample(face, images[kept], labels=(0, 1)[kept], ids=ids[kept], mask=masks[kept])

    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        """Draw the pair of a sample, in validation also where `make` leaves the real face out."""
        pair = self.make_faces(index, rng)
        return DrawnSample((pair.real, pair.fake), (0, 1), pair.applied, pair.mask)

    def make_faces(self, index: int, rng: np.random.Generator) -> FacePair:
        """Make the real face and the fake of one sample.

        Args:
            index: The sample's number.
            rng: Draws the blend and the augmentation.

        Returns:
            The two faces.

        Raises:
            UnreadableSample: If the face cannot be read or blended.
        """
        face = self._faces[index % len(self._faces)]
        loaded = face.read()
        if loaded.landmarks is None:
            raise UnreadableSample(face.name, "has no landmarks")
        options = {"train": self._train, "boxes": loaded.boxes, "steps": self._steps}
        try:
            return make_pair(loaded.image, loaded.landmarks, rng, self._image_size, **options)
        except ValueError as error:  # landmarks or picture of a form that no face has
            raise UnreadableSample(face.name, str(error)) from None


class LabelledFaces(FaceSamples):
    """Faces with labels of their own: no blending, the same augmentation.

    The picture is cropped around the detector's first box, where there is one.
    """

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make one sample of one picture.

        Args:
            index: The sample's number.
            rng: Draws the augmentation.

        Returns:
            The sample.

        Raises:
            UnreadableSample: If the face cannot be read.
        """
        face = self._faces[index]
        return build_sample(face, self.draw(index, rng).pictures[0][None], labels=(face.label,), ids=(face.name,))

    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        """Draw the one picture of a sample."""
        face = self._faces[index]
        loaded = face.read()
        box = None if loaded.boxes is None else loaded.boxes[0]
        image, applied = prepare_single(loaded.image, box, rng, self._image_size, train=self._train, steps=self._steps)
        return DrawnSample((image,), (face.label,), applied)


class ViewedFaces(LabelledFaces):
    """Labelled faces in V views each: the input `image` is uint8 (1, V, S, S, 3), the first view that of the base."""

    def __init__(self, faces: Sequence[Face], *, image_size: int, views: str) -> None:
        """Keep the faces; nothing is read yet.

        Args:
            faces: The faces.
            image_size: Side of the pictures [px].
            views: The name of the views, a key of `VIEWS`.
        """
        super().__init__(faces, image_size=image_size, train=False)
        self._views = list_views(views)

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make the views of one picture; the arguments are those of `LabelledFaces.make`."""
        face = self._faces[index]
        loaded = face.read()
        box = None if loaded.boxes is None else loaded.boxes[0]
        images = make_views(loaded.image, box, self._image_size, self._views)
        return build_sample(face, images[None], labels=(face.label,), ids=(face.name,))


def build_sample(
    face: Face, images: NDArray[np.uint8], *, labels: Sequence[int], ids: Sequence[str], **rows: Any
) -> Sample:
    """Build the sample of one face.

    Args:
        face: The face.
        images: uint8 (k, S, S, 3) RGB, or views of them (k, V, S, S, 3).
        labels: Real 0, fake 1, k of them.
        ids: A name for each row.
        **rows: Further columns, k values each.

    Returns:
        The sample.
    """
    shared = {"clip": (face.clip_id,) * len(labels), "group": (face.identity,) * len(labels)}
    return Sample(
        inputs={"image": images},
        targets={"label": np.array(labels, np.int64)},
        rows={"id": tuple(ids), **shared, **rows},
    )
