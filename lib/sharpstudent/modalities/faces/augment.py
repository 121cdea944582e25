"""The adapter to albumentations: the augmentation that real and fake share, and the colour shift of self-blending.

albumentations draws from generators of its own. Before every call they are replaced by ones that are derived from the
caller's generator, so that the same generator state gives the same bytes and no global state is touched.
(`set_random_seed` will not do: it gives every transform the same seed, so that all of them would be applied, or none.)
"""

from __future__ import annotations

import os
import random
import threading

# Without this variable, importing albumentations asks PyPI whether there is a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

RGB_SHIFT = (-20, 20)  # of 255
# In OpenCV's units (hue 0-180, saturation and value 0-255), as in the SBI reference: a shift of at most 0.3 units, not
# of 30 %, so that it changes almost nothing.
HSV_SHIFT = (-0.3, 0.3)
JPEG_QUALITY = (40, 100)
SHARPEN_ALPHA, SHARPEN_LIGHTNESS = (0.2, 0.5), (0.5, 1.0)


class _Pipelines(threading.local):
    """The two pipelines, built once a thread, because they hold the generator of the call that uses them."""

    def __init__(self) -> None:
        # Both images have one size by contract; checking it again costs time.
        self.shared = A.Compose(
            [
                A.RGBShift(RGB_SHIFT, RGB_SHIFT, RGB_SHIFT, p=0.3),
                A.HueSaturationValue(HSV_SHIFT, HSV_SHIFT, HSV_SHIFT, p=0.3),
                A.RandomBrightnessContrast((-0.3, 0.3), (-0.3, 0.3), p=0.3),
                A.ImageCompression(quality_range=JPEG_QUALITY, compression_type="jpeg", p=0.5),
            ],
            additional_targets={"fake": "image"},
        )
        self.color_shift = A.Compose(
            [
                A.RGBShift(RGB_SHIFT, RGB_SHIFT, RGB_SHIFT, p=0.3),
                A.HueSaturationValue(HSV_SHIFT, HSV_SHIFT, HSV_SHIFT, p=1),
                A.RandomBrightnessContrast((-0.1, 0.1), (-0.1, 0.1), p=1),
                # A member's p is its weight among the alternatives: downscaling 1/2, shared by its two factors.
                A.OneOf(
                    [
                        _build_downscale(1 / 2, 0.5),
                        _build_downscale(1 / 4, 0.5),
                        A.Sharpen(alpha=SHARPEN_ALPHA, lightness=SHARPEN_LIGHTNESS, p=1.0),
                    ],
                    p=1,
                ),
            ]
        )


def _build_downscale(scale: float, weight: float) -> A.Downscale:
    return A.Downscale(
        scale_range=(scale, scale),
        interpolation_pair={"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR},
        p=weight,
    )


_PIPELINES = _Pipelines()


def _seed(pipeline: A.Compose, rng: np.random.Generator) -> A.Compose:
    pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return pipeline


def augment_pair(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Augment two images with the same parameters: RGB shift, HSV shift, brightness and contrast, JPEG.

    Args:
        real: uint8 (H, W, 3) RGB.
        fake: An image of the same shape.
        rng: Draws the parameters.

    Returns:
        Two new images of that shape.
    """
    out = _seed(_PIPELINES.shared, rng)(image=real, fake=fake)
    return out["image"], out["fake"]


def augment_single(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Augment one image as `augment_pair` does; the same generator state draws the same parameters.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: Draws the parameters.

    Returns:
        A new image of that shape.
    """
    return _seed(_PIPELINES.shared, rng)(image=image)["image"]


def color_shift_source(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change the colour and sharpness of one side of a self-blend, so that its statistics differ from the other side's.

    RGB shift with probability 0.3, HSV shift, brightness and contrast, and then either a loss of resolution or
    sharpening.

    Args:
        image: uint8 (H, W, 3) RGB. With a side below 8 px it is too small for this and comes back unchanged.
        rng: Draws the parameters.

    Returns:
        A new image of that shape.
    """
    if min(image.shape[:2]) < 8:
        return image.copy()
    return _seed(_PIPELINES.color_shift, rng)(image=image)["image"]
