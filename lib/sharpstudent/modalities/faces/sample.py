"""Samples of faces: a real face and the fake blended from it, or one labelled face, processed alike.

Legend: S side of the pictures that come out [px].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.augment import apply_drawn, draw_shared, find_input, find_output, name_drawn
from sharpstudent.modalities.faces.crop import (
    LOOSE_SIDE,
    MARGIN_SHARE,
    TRAIN_MARGIN_RANGE,
    Crop,
    choose_box,
    compute_box_margins,
    compute_landmark_box,
    compute_loose_box,
    crop,
    expand_box,
)
from sharpstudent.modalities.faces.landmarks import check_landmarks, flip_box, flip_landmarks
from sharpstudent.modalities.faces.operations import PairScene, Step, apply_steps
from sharpstudent.modalities.faces.picture_parts import PicturePart, Window, flatten_view, get_whole, take_whole
from sharpstudent.modalities.faces.self_blend import OWN_FORM, BlendForm, draw_blend, self_blend

FLIP_P = 0.5

Pixel = TypeVar("Pixel", np.uint8, np.float32)
# Makes a real face and a fake of a loose crop, its landmarks and a generator: both pictures, uint8 (H, W, 3), and the
# blended-in share of each pixel, float32 (H, W).
BlendFunction = Callable[
    [NDArray[np.uint8], NDArray[np.float32], np.random.Generator],
    tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]],
]


@dataclass(frozen=True)
class FacePair:
    """A real face and the fake made of it.

    Attributes:
        real: uint8 (S, S, 3) RGB.
        fake: uint8 (S, S, 3) RGB.
        mask: Share of the blended-in face in each pixel of the fake, 0..1, float32 (S, S).
        applied: The operations of the augmentation that were applied, for people to read.
    """

    real: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    mask: NDArray[np.float32]
    applied: tuple[str, ...] = ()


def make_pair(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.generic],
    rng: np.random.Generator,
    image_size: int,
    *,
    train: bool,
    boxes: Sequence[NDArray[np.generic]] | NDArray[np.generic] | None = None,
    steps: Sequence[Step] | None = None,
    blend: BlendForm | BlendFunction = OWN_FORM,
) -> FacePair:
    """Make a real and a blended face from one image. The blend is always random.

    Args:
        image: A frame or a stored loose crop, uint8 (H, W, 3) RGB.
        landmarks: The landmarks of the face, (68 or 81, 2) [px].
        rng: Draws everything that is random.
        image_size: The side S of the pictures that come out [px].
        train: Whether to flip and augment the pair and to draw the crop's margins, as published (`sbi`). Otherwise
            none of this is done, and the margins are 12.5 %.
        boxes: The detector's boxes in this image, (n, 4). Without one, the box of the landmarks is used.
        steps: The operations of an augmentation that is a list, in place of the published one; None for none.
        blend: The form of the self-blend, or what makes another fake.

    Returns:
        The pair.

    Raises:
        ValueError: For another shape of image or landmarks.
    """
    _check_image(image)
    points = check_landmarks(landmarks)
    box = compute_landmark_box(points) if boxes is None or len(boxes) == 0 else choose_box(boxes, points)
    width = image.shape[1]
    is_flipped = bool(train and steps is None and rng.random() < FLIP_P)
    if is_flipped:
        image, points, box = image[:, ::-1], flip_landmarks(points, width), flip_box(box, width)
    loose = crop(image, compute_loose_box(points, *image.shape[:2]), landmarks=points, boxes=box[None])
    flip = ("flip",) if is_flipped else ()
    if steps is None and isinstance(blend, BlendForm):
        return _render_pair(loose, rng, image_size, train=train, form=blend, applied=flip)
    make = partial(self_blend, form=blend) if isinstance(blend, BlendForm) else blend
    real, fake, mask = make(flatten_view(loose.image), loose.landmarks, rng)
    scene = PairScene([real, fake], mask, loose.boxes[0], applied=[*flip])
    if steps is not None:
        apply_steps(scene, steps, rng)
    elif train:
        _augment_as_published(scene, rng)
    return _cut_pair(scene, image_size)


def _augment_as_published(scene: PairScene, rng: np.random.Generator) -> None:
    """Do to whole loose crops what `_render_pair` does to parts of them."""
    shared = draw_shared(rng)
    scene.change(lambda picture: apply_drawn(take_whole(picture), shared, get_whole(picture)))
    scene.margins = MARGIN_SHARE * rng.uniform(*TRAIN_MARGIN_RANGE, size=4)
    scene.applied += name_drawn(shared)


def _cut_pair(scene: PairScene, image_size: int) -> FacePair:
    """Cut the final crop of a real face and its fake."""
    final = Window(*scene.find_final_box().tolist())
    real, fake = (_resize(final.cut(picture), image_size) for picture in scene.pictures)
    assert scene.mask is not None
    return FacePair(real, fake, _resize(final.cut(scene.mask), image_size), tuple(scene.applied))


def _render_pair(
    loose: Crop,
    rng: np.random.Generator,
    image_size: int,
    *,
    train: bool,
    form: BlendForm,
    applied: tuple[str, ...],
) -> FacePair:
    """Draw everything, and compute what the final crop shows."""
    height, width = loose.image.shape[:2]
    blend = draw_blend(height, width, loose.landmarks, rng, form)
    shared = draw_shared(rng) if train else ()
    final = Window(*compute_box_margins(loose.boxes[0], height, width, rng if train else None).tolist())
    whole = Window(0, 0, width, height)
    needed = find_input(shared, final, whole)
    target, blended = (PicturePart(pixels, needed, whole) for pixels in blend.render(loose.image, needed))
    real = apply_drawn(target, shared, final)
    fake = real.copy()
    changed = find_output(shared, blend.box, whole).intersect(final)
    if not changed.is_empty:
        changed.move_into(final).cut(fake)[...] = apply_drawn(blended, shared, changed)
    real, fake = (_resize(picture, image_size) for picture in (real, fake))
    return FacePair(real, fake, _resize(final.cut(blend.mask), image_size), applied + name_drawn(shared))


def make_single(
    image: NDArray[np.uint8],
    box_xyxy: NDArray[np.generic] | None,
    rng: np.random.Generator,
    image_size: int,
    *,
    train: bool,
    steps: Sequence[Step] | None = None,
) -> NDArray[np.uint8]:
    """Prepare one labelled face: the same flip, augmentation, crop and resize as in `make_pair`, without blending.

    Args:
        image: uint8 (H, W, 3) RGB.
        box_xyxy: The box to crop around, with margins, (4,) [px]; None to take the image as it is.
        rng: Draws everything that is random.
        image_size: The side S of the pictures that come out [px].
        train: Whether to flip and augment the face and to draw the crop's margins.
        steps: The operations of the augmentation; None for the published one (`sbi`).

    Returns:
        The face, uint8 (S, S, 3) RGB.

    Raises:
        ValueError: For another shape of image.
    """
    return prepare_single(image, box_xyxy, rng, image_size, train=train, steps=steps)[0]


def prepare_single(
    image: NDArray[np.uint8],
    box_xyxy: NDArray[np.generic] | None,
    rng: np.random.Generator,
    image_size: int,
    *,
    train: bool,
    steps: Sequence[Step] | None = None,
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Prepare one labelled face as `make_single` does, and list the operations that were applied."""
    _check_image(image)
    height, width = image.shape[:2]
    box = None if box_xyxy is None else np.asarray(box_xyxy, np.float32)
    if steps is not None:
        scene = _cut_loosely(image, box)
        apply_steps(scene, steps, rng)
        final = Window(*scene.find_final_box().tolist())
        return _resize(final.cut(scene.pictures[0]), image_size), tuple(scene.applied)
    applied: tuple[str, ...] = ()
    if train and rng.random() < FLIP_P:
        image, box = image[:, ::-1], None if box is None else flip_box(box, width)
        applied = ("flip",)
    if box is not None:
        left, top, right, bottom = compute_box_margins(box, height, width, rng if train else None)
        image = image[top:bottom, left:right]
    image = flatten_view(image)
    shared = draw_shared(rng) if train else ()
    changed = apply_drawn(take_whole(image), shared, get_whole(image))
    return _resize(changed, image_size), applied + name_drawn(shared)


def _cut_loosely(image: NDArray[np.uint8], box: NDArray[np.float32] | None) -> PairScene:
    """Cut a face with half of its box around it, so that operations need not change a whole frame."""
    if box is None:
        return PairScene([flatten_view(image)])
    loose = Window(*expand_box(box, np.full(4, LOOSE_SIDE), *image.shape[:2]).tolist())
    return PairScene([flatten_view(loose.cut(image))], box=box - np.array([loose.left, loose.top] * 2, np.float32))


def _check_image(image: NDArray[np.generic]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 (H, W, 3) RGB, got {image.dtype} {image.shape}")


def _resize(image: NDArray[Pixel], size: int) -> NDArray[Pixel]:
    """Resize bilinearly to (size, size), also downwards, with no smoothing before it, as the reference does."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), image.dtype)
