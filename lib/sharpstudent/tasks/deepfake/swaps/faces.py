"""Finds the face of each photo, and chooses which faces are swapped with each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.files import explain
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.splits import find_groups
from sharpstudent.modalities.faces.detect import find_upright
from sharpstudent.modalities.faces.swap.match import FaceLook, LookTable, describe_look
from sharpstudent.modalities.faces.swap.swap import PhotoFace, PointedFace, SwapDraft, UnfitPair, crop_photo, draft_swap
from sharpstudent.tasks.deepfake.sources.face import read_picture
from sharpstudent.tasks.deepfake.sources.face_crops import load_face_models
from sharpstudent.tasks.deepfake.sources.photos import Photo

LEAST_PRESENCE = 0.5  # the mesh's probability of a face
LARGEST_BRIDGE = 7.0  # glasses measured from 7.4 up (thin wire 3.7), bare faces up to 6.7, of 141 portraits
# The NEAREST people are candidates. The seed draws TRIED of them, a swap is drafted for each, and the best is kept.
NEAREST, TRIED = 12, 8
# The largest flaw + distance / 2 of a swap that is kept; found by looking at swaps (docs/swaps.md).
LARGEST_FLAW = 5.5
KEPT_PICTURES = 64  # cropped faces that are cached in memory


@dataclass(frozen=True)
class FoundFace:
    """The face of a photo.

    Attributes:
        photo: The photo.
        group: The group of its person: people who share a file are one group.
        points: The points of the face mesh, float32 (468, 2) [px of the photo].
        box_xyxy: The detector's box, float32 (4,) [px of the photo].
        look: The measurements of the face that matching compares.
    """

    photo: Photo
    group: str
    points: NDArray[np.float32]
    box_xyxy: NDArray[np.float32]
    look: FaceLook


class FaceFinder:
    """Finds the largest face of each photo.

    Attributes:
        left_out: The photos without a usable face, with the reason.
        digests: The sha256 of each photo that was read.
    """

    def __init__(self) -> None:
        self.left_out: dict[Path, str] = {}
        self.digests: dict[Path, str] = {}

    def find(self, photos: Sequence[Photo], say: Callable[[str], None]) -> list[FoundFace]:
        """Find the faces, in the order of the photos.

        Args:
            photos: The photos.
            say: Prints a line for the user.

        Returns:
            The faces; `left_out` names the photos without one.

        Raises:
            UserError: Where the model files are missing.
        """
        detector, mesh = load_face_models()
        found: dict[Path, tuple[NDArray[np.float32], NDArray[np.float32], FaceLook]] = {}
        for number, photo in enumerate(photos, 1):
            try:
                found[photo.path] = self._find_one(photo.path, detector, mesh)
            except UnreadableSample as error:
                self.left_out[photo.path] = error.reason
            if number % 1000 == 0:
                say(f"looked for faces in {number} of {len(photos)} photos")
        # People who share a file are one and the same, under two names.
        first: dict[str, str] = {}
        owners = [first.setdefault(self.digests.get(photo.path, str(photo.path)), photo.person) for photo in photos]
        groups = find_groups([(photo.person, owner) for photo, owner in zip(photos, owners, strict=True)])
        return [
            FoundFace(photo, group, *found[photo.path])
            for photo, group in zip(photos, groups, strict=True)
            if photo.path in found
        ]

    def _find_one(
        self, path: Path, detector: Any, mesh: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], FaceLook]:
        image = read_picture(path)
        try:
            self.digests[path] = compute_sha256(path)
        except OSError as error:
            raise UnreadableSample(str(path), explain(error)) from None
        upright = find_upright(detector, image)
        if not upright.faces or upright.turned:
            reason = upright.doubt or "no face of at least 40 px found"
            if upright.turned:
                reason = f"its face is not upright: turn the photo by {upright.turned} degrees counter-clockwise"
            raise UnreadableSample(str(path), reason)
        faces = upright.faces
        points, presence = mesh.locate(image, faces[0].box_xyxy, roll=faces[0].roll)
        if presence < LEAST_PRESENCE or not np.isfinite(points).all():
            raise UnreadableSample(str(path), "what the detector took for a face has no facial points")
        look = describe_look(image, PointedFace(image, points).landmarks)
        if look.bridge > LARGEST_BRIDGE:
            raise UnreadableSample(str(path), "something lies across the nose's bridge: glasses, hair, a turned head")
        return points, faces[0].box_xyxy, look


class PartnerChoice:
    """The best partners for each face of one split."""

    def __init__(self, faces: Sequence[FoundFace], image_size: int, seed: int) -> None:
        self._faces, self._image_size, self._seed = faces, image_size, seed
        self._table = LookTable([face.look for face in faces])
        self.crop = functools.lru_cache(KEPT_PICTURES)(self._crop)

    def choose(self, index: int, count: int) -> list[tuple[FoundFace, SwapDraft]]:
        """Choose swaps onto one face, the best first, each from another person.

        Args:
            index: The index of the face.
            count: The largest number of swaps.

        Returns:
            The faces that are swapped in, with the drafts.

        Raises:
            UnreadableSample: Where no face fits.
        """
        target = self._faces[index]
        nearest = self._list_nearest(index, max(NEAREST, 3 * count))
        rng = build_generator(self._seed, 0, index)
        tried = rng.permutation(len(nearest))[: max(TRIED, 2 * count)]
        drafts: list[tuple[float, int, SwapDraft]] = []
        reasons: list[str] = []
        for distance, source in (nearest[place] for place in tried):
            try:
                draft = draft_swap(self.crop(source).face, self.crop(index).face)
                drafts.append((draft.flaw + distance / 2, source, draft))
            except UnfitPair as error:
                reasons.append(str(error))
        drafts.sort(key=lambda entry: entry[:2])
        good = [(self._faces[source], draft) for flaw, source, draft in drafts[:count] if flaw <= LARGEST_FLAW]
        if not good:
            would_show = [f"the best of {len(drafts)} would show (flaw {entry[0]:.1f})" for entry in drafts[:1]]
            best = "; ".join(would_show or reasons[:2])
            raise UnreadableSample(str(target.photo.path), f"nobody's face fits: {best or 'nobody else is there'}")
        return good

    def crop_source(self, source: FoundFace) -> PhotoFace:
        """Return the crop of a face that `choose` gave."""
        return self.crop(next(place for place, face in enumerate(self._faces) if face is source))

    def _list_nearest(self, index: int, count: int) -> list[tuple[float, int]]:
        """List the nearest face of each of the nearest people; nobody who has a copy of this very photo."""
        target = self._faces[index]
        distances = self._table.compute_distances(target.look)
        groups = np.array([face.group for face in self._faces])
        excluded = {target.group, *groups[np.isinf(distances)].tolist()}
        nearest: dict[str, tuple[float, int]] = {}
        for source in np.argsort(distances, kind="stable").tolist():
            group = self._faces[source].group
            if group not in excluded and group not in nearest:
                nearest[group] = (float(distances[source]), source)
                if len(nearest) == count:
                    break
        return list(nearest.values())

    def _crop(self, index: int) -> PhotoFace:
        face = self._faces[index]
        return crop_photo(read_picture(face.photo.path), face.points, face.box_xyxy, self._image_size)
