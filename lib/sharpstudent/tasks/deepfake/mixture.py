"""Samples whose fakes are of several kinds, drawn by shares: the key `fakes` as a group.

Each sample is a real face beside one fake of a kind that its generator draws. Partners are other people of the same
split, so that nobody crosses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.blend_other import BlendResult, NearestFaces, blend_other, swap_faces
from sharpstudent.modalities.faces.sample import FacePair, make_pair, prepare_single
from sharpstudent.modalities.faces.self_blend import OWN_FORM, PUBLISHED_FORM, self_blend
from sharpstudent.modalities.faces.swap.colour import is_grey
from sharpstudent.tasks.deepfake.samples import BlendedPairs, DrawnSample, build_sample
from sharpstudent.tasks.deepfake.section import FAKE_NAMES
from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace

MOST_PARTNERS = 2048  # faces of a split, evenly spread over it, that others are blended with
NEAREST, TRIED = 8, 3  # the nearest people are candidates; so many of those who fit in colour are tried
LARGEST_FLAW = 5.5  # of a swap that is made, as make_swaps.py keeps them at most


class Partners:
    """Faces of a split that can be blended into those of other people."""

    def __init__(self, faces: Sequence[Face]) -> None:
        """Read the landmarks of at most MOST_PARTNERS faces.

        Args:
            faces: The faces of one split.

        Raises:
            UserError: Where fewer than two people have landmarks.
        """
        places = np.unique(np.linspace(0, len(faces) - 1, MOST_PARTNERS).round().astype(int)).tolist()
        self._faces: list[Face] = []
        points: list[NDArray[np.generic]] = []
        for place in places:
            try:
                found = faces[place].read_points()
            except UnreadableSample:  # named where it is drawn as a sample
                continue
            if found is not None:
                self._faces.append(faces[place])
                points.append(found)
        people = [face.identity for face in self._faces]
        if len({*people}) < 2:
            raise UserError.about(
                "fakes",
                "blends faces of two people, and a split has landmarks of fewer",
                got=f"{len({*people})} of {len(faces)} faces",
                remedy="give more people, or leave blend_other and swap out",
            )
        self._nearest = NearestFaces(points, people)

    def __len__(self) -> int:
        return len(self._faces)

    def choose(self, landmarks: NDArray[np.generic], person: str, rng: np.random.Generator) -> list[Face]:
        """Choose the NEAREST faces of other people, in a random order."""
        nearest = self._nearest.find(landmarks, person, NEAREST)
        return [self._faces[int(place)] for place in rng.permutation(nearest)]


@dataclass(frozen=True)
class MixedPair:
    """A real face and a fake of a kind that was drawn.

    Attributes:
        pair: Both.
        kind: The kind of fake, a key of FAKE_NAMES: the one that was made, where the one that was drawn could not be.
        fake: The face that the fake is, where the set has it.
    """

    pair: FacePair
    kind: str
    fake: Face | None = None


class MixedPairs(BlendedPairs):
    """Samples that are pairs of a real face and a fake of one of several kinds."""

    def __init__(
        self, faces: Sequence[Face], *, shares: Mapping[str, float], fakes: Sequence[Face] = (), **options: Any
    ) -> None:
        """Keep the faces, and read the landmarks of partners.

        Args:
            faces: Real faces.
            shares: The share of each kind, a key of FAKE_NAMES; the sum is 1.
            fakes: The fakes of the set, for the kind `labels`.
            **options: As for `BlendedPairs`.

        Raises:
            UserError: Where there are too few people to blend with each other.
        """
        super().__init__(faces, **options)
        self._kinds, self._shares, self._fakes = [*shares], [*shares.values()], fakes
        self._partners = Partners(faces) if {"blend_other", "swap"} & {*shares} else None

    def describe(self) -> str:
        """Say what the fakes are, by their shares, and how many faces serve as partners."""
        told = ", ".join(f"{share:.0%} {kind}" for kind, share in zip(self._kinds, self._shares, strict=True))
        return f"fakes: {told}" + (f"; {len(self._partners):,} faces as partners" if self._partners else "")

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make one pair, or a further fake of a face; its column `manipulation` names the kind."""
        time, place = divmod(index, len(self._faces))
        face, made = self._faces[place], self.make_mixed(index, rng)
        number, other, pair = "" if self._train else str(time), made.fake or face, made.pair
        images, masks = np.stack([pair.real, pair.fake]), np.stack([np.zeros_like(pair.mask), pair.mask])
        ids = (f"{face.name}#real{number}", f"{other.name}#{'blend' if made.fake is None else 'fake'}{number}")
        kept = slice(0 if self._train or time == 0 else 1, 2)
        return build_sample(
            face,
            images[kept],
            labels=(0, 1)[kept],
            ids=ids[kept],
            mask=masks[kept],
            clip=(face.clip_id, other.clip_id)[kept],
            group=(face.identity, other.identity)[kept],
            manipulation=("", FAKE_NAMES[made.kind])[kept],
        )

    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        """Draw the pair of a sample; its kind is told first."""
        made = self.make_mixed(index, rng)
        mask = None if made.fake else made.pair.mask
        return DrawnSample((made.pair.real, made.pair.fake), (0, 1), (FAKE_NAMES[made.kind], *made.pair.applied), mask)

    def make_mixed(self, index: int, rng: np.random.Generator) -> MixedPair:
        """Draw a kind of fake, and make a real face and such a fake.

        Args:
            index: The sample's number.
            rng: Draws everything that is random.

        Returns:
            Both, and what was made.

        Raises:
            UnreadableSample: If the face cannot be read or blended.
        """
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
        face = self._faces[index % len(self._faces)]
        loaded = face.read()
        if loaded.landmarks is None:
            raise UnreadableSample(face.name, "has no landmarks")
        if kind == "labels":
            place = int(rng.integers(len(self._fakes))) if self._train else index % len(self._fakes)
            return self._pair_with(loaded, self._fakes[place], rng)
        tried: list[str] = []
        forms = {"self_blend": OWN_FORM, "sbi_published": PUBLISHED_FORM}
        blend = forms.get(kind) or partial(self._blend_two, kind=kind, person=face.identity, tried=tried)
        options = {"train": self._train, "boxes": loaded.boxes, "steps": self._steps}
        try:
            pair = make_pair(loaded.image, loaded.landmarks, rng, self._image_size, blend=blend, **options)
        except ValueError as error:  # landmarks or picture of a form that no face has
            raise UnreadableSample(face.name, str(error)) from None
        return MixedPair(pair, tried[-1] if tried else kind)

    def _pair_with(self, loaded: LoadedFace, fake: Face, rng: np.random.Generator) -> MixedPair:
        """Prepare a real face and a fake of the set with the same draws."""
        key, found = int(rng.integers(2**63)), fake.read()
        parts = [
            prepare_single(
                one.image,
                None if one.boxes is None else one.boxes[0],
                np.random.default_rng(key),
                self._image_size,
                train=self._train,
                steps=self._steps,
            )
            for one in (loaded, found)
        ]
        (real, applied), (other, _) = parts
        return MixedPair(FacePair(real, other, np.zeros(real.shape[:2], np.float32), applied), "labels", fake)

    def _blend_two(
        self,
        image: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        kind: str,
        person: str,
        tried: list[str],
    ) -> BlendResult:
        """Make a fake of two people; what can be made of no partner is made of the next kind.

        A swap that no partner fits becomes a blend, and a blend that none fits a self-blend. The last of `tried` is
        what was made. A black and white face is never blended into a picture in colour: grey skin in colour would give
        the fake away.
        """
        assert self._partners is not None
        partners = list(islice(self._load_partners(landmarks, person, rng, colour=not is_grey(image)), TRIED))
        makers: dict[str, Callable[[LoadedFace], BlendResult]] = {
            "swap": lambda other: swap_faces(
                image, landmarks, other.image, _get_points(other), largest_flaw=LARGEST_FLAW
            ),
            "blend_other": lambda other: blend_other(image, landmarks, other.image, _get_points(other), rng),
        }
        for name in ("swap", "blend_other") if kind == "swap" else ("blend_other",):
            tried.append(name)
            for partner in partners:
                with suppress(ValueError):  # the two do not fit
                    return makers[name](partner)
        tried.append("self_blend")
        return self_blend(image, landmarks, rng)

    def _load_partners(
        self, landmarks: NDArray[np.float32], person: str, rng: np.random.Generator, *, colour: bool
    ) -> Iterator[LoadedFace]:
        assert self._partners is not None
        for face in self._partners.choose(landmarks, person, rng):
            with suppress(UnreadableSample):  # named where it is drawn as a sample
                loaded = face.read()
                if not (colour and is_grey(loaded.image)):
                    yield loaded


def _get_points(face: LoadedFace) -> NDArray[np.generic]:
    assert face.landmarks is not None  # partners are faces with landmarks
    return face.landmarks
