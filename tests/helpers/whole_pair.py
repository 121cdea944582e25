"""Self-blended pairs made of whole pictures: every step on the whole loose crop, by albumentations and OpenCV alone.

This is how pairs were made before only what the final crop shows was computed, and what their bits are compared with.
"""

from __future__ import annotations

import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from sharpstudent.modalities.faces import augment, self_blend
from sharpstudent.modalities.faces.crop import (
    choose_box,
    compute_box_margins,
    compute_landmark_box,
    compute_loose_box,
    crop,
)
from sharpstudent.modalities.faces.landmarks import check_landmarks, flip_box, flip_landmarks
from sharpstudent.modalities.faces.sample import FLIP_P, FacePair


def make_whole_pair(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.generic],
    rng: np.random.Generator,
    size: int,
    *,
    train: bool,
    boxes: Any = None,
) -> FacePair:
    """What `make_pair` makes of the same arguments."""
    points, width = check_landmarks(landmarks), image.shape[1]
    box = compute_landmark_box(points) if boxes is None else choose_box(boxes, points)
    if train and rng.random() < FLIP_P:
        image, points, box = image[:, ::-1], flip_landmarks(points, width), flip_box(box, width)
    loose = crop(image, compute_loose_box(points, *image.shape[:2]), landmarks=points, boxes=box[None])
    real, fake, mask = blend_whole(np.ascontiguousarray(loose.image), loose.landmarks, rng)
    if train:
        real, fake = run(augment._PIPELINES.shared, rng, image=real, fake=fake)
    left, top, right, bottom = compute_box_margins(loose.boxes[0], *real.shape[:2], rng if train else None)
    return FacePair(*(cv2.resize(one[top:bottom, left:right], (size, size)) for one in (real, fake, mask)))


def make_whole_single(
    image: NDArray[np.uint8], box_xyxy: NDArray[np.generic] | None, rng: np.random.Generator, size: int
) -> NDArray[np.uint8]:
    """What `make_single` makes of the same arguments in training."""
    (height, width), box = image.shape[:2], box_xyxy
    if rng.random() < FLIP_P:
        image, box = image[:, ::-1], None if box is None else flip_box(box, width)
    if box is not None:
        left, top, right, bottom = compute_box_margins(box, height, width, rng)
        image = image[top:bottom, left:right]
    (image,) = run(augment._PIPELINES.shared, rng, image=np.ascontiguousarray(image))
    return cv2.resize(image, (size, size))


def run(pipeline: A.Compose, rng: np.random.Generator, **images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Let albumentations draw and apply a whole pipeline."""
    pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return list(pipeline(**images).values())


def blend_whole(
    image: NDArray[np.uint8], points: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """What `self_blend` makes of the same arguments."""
    height, width = image.shape[:2]
    if rng.random() < self_blend.DROP_FOREHEAD_P:
        points = points[:68]
    kind = self_blend.HULL_KINDS[rng.integers(len(self_blend.HULL_KINDS))]
    source, target = image, image
    shifts_source = rng.random() < self_blend.SHIFT_SOURCE_P
    shifted = run(augment._PIPELINES.color_shift, rng, image=image)[0] if min(height, width) >= 8 else image
    source, target = (shifted, target) if shifts_source else (source, shifted)
    matrix = self_blend._draw_affine(rng, height, width)
    source = cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    moved = (points * matrix.diagonal() + matrix[:, 2]).astype(np.float32)
    mask = self_blend.draw_hull(kind, moved, height, width)
    if not mask.any():
        mask = self_blend._draw_fallback(height, width)
    soft = soften_whole(deform_whole(mask, rng), rng) * np.float32(rng.choice(self_blend.BLEND_RATIOS))
    fake = target.copy()
    left, top, box_width, box_height = cv2.boundingRect((soft > 0).view(np.uint8))
    if box_width:
        inside = np.s_[top : top + box_height, left : left + box_width]
        fake[inside] = cv2.blendLinear(source[inside], target[inside], soft[inside], 1 - soft[inside])
    return target, fake, soft


def deform_whole(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What `deform_elastically` makes of the same arguments."""
    (height, width), reach, step = mask.shape, self_blend.ELASTIC_REACH, self_blend.ELASTIC_STEP
    left, top, box_width, box_height = cv2.boundingRect(mask)
    right, bottom = min(left + box_width + reach, width), min(top + box_height + reach, height)
    left, top = max(left - reach, 0), max(top - reach, 0)
    if right <= left or bottom <= top:
        return mask
    size = (right - left, bottom - top)
    noise = 2 * rng.random((size[1] // step + 2, size[0] // step + 2, 2), dtype=np.float32) - 1
    field = cv2.GaussianBlur(noise, (0, 0), self_blend.ELASTIC_SIGMA / step)
    field = cv2.resize(field, size, interpolation=cv2.INTER_LINEAR) * np.float32(self_blend.ELASTIC_ALPHA / step)
    map_x = field[..., 0] + np.arange(left, right, dtype=np.float32)
    map_y = field[..., 1] + np.arange(top, bottom, dtype=np.float32)[:, None]
    deformed = np.zeros_like(mask)
    deformed[top:bottom, left:right] = cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return deformed


def soften_whole(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """What `soften` makes of the same arguments."""
    height, width = mask.shape
    low, high = self_blend.SOFTEN_SIDES
    size = (int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1)))
    first, second = (int(kernel) for kernel in rng.choice(self_blend.BLUR_KERNELS, size=2))
    sigma = rng.uniform(*self_blend.SECOND_BLUR_SIGMA)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
    plateau = cv2.erode(small, np.ones((first, first), np.uint8), borderType=cv2.BORDER_REFLECT_101) == 255
    if not plateau.any() and small.any():
        blurred = cv2.GaussianBlur(small.astype(np.float32), (first, first), 0)
        plateau = blurred >= blurred.max()
    soft = cv2.GaussianBlur(plateau.astype(np.float32), (second, second), sigma)
    if soft.max() > 0:
        soft *= 1 / float(soft.max())
    return np.clip(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
