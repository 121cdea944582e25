"""How the face of a swap is put into the target's picture: Poisson, feathered, hard, or in frequency bands.

Legend: face and own uint8 (h, w, 3) RGB, the source's face in its place and the target's pixels; region uint8 (h, w),
0 or 255; a share is the source's part of a pixel, float32 (h, w).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.swap.colour import to_lab

# A Poisson blend that changes the colour of the face's middle by more than this [CIELAB units] has hair or background
# at its border and drags their colour in; feathering does not.
LARGEST_DRIFT = 9.0
# OpenCV blends bands in whole numbers of 16 bits, and rounds in each: with this many steps a level that is not seen.
STEPS = 64
POISSON, FEATHERED, HARD, MULTIBAND = "poisson", "feather", "hard", "multiband"


def mix(one: NDArray[np.uint8], other: NDArray[np.uint8], share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Mix two pictures.

    Args:
        one: uint8 (h, w, 3).
        other: uint8 (h, w, 3).
        share: The first's share of each pixel.

    Returns:
        share * one + (1 - share) * other, uint8 (h, w, 3); it is the other bit for bit where share is 0.
    """
    part = share[..., None]
    return np.where(part > 0, np.rint(part * one + (1 - part) * other), other).astype(np.uint8)


def blend_poisson(
    face: NDArray[np.uint8], own: NDArray[np.uint8], region: NDArray[np.uint8], share: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], str]:
    """Keep the face's gradients, and take the colour at the region's border from the target (Pérez et al. 2003).

    Args:
        face: The source's face.
        own: The target's pixels.
        region: Where the gradients are the source's.
        share: What the picture will be mixed with; where it is 1 the blend must not have drifted.

    Returns:
        The blended picture, and `poisson`; the face as it is, and `feather`, where the blend drags colour in.
    """
    left, top, width, height = cv2.boundingRect(region)
    middle = (left + width // 2, top + height // 2)
    # seamlessClone writes into the mask that it is given.
    blended = np.asarray(cv2.seamlessClone(face, own, region.copy(), middle, cv2.NORMAL_CLONE), np.uint8)
    inner = share >= 1
    drift = np.abs(to_lab(blended)[inner] - to_lab(face)[inner]).max(axis=1)
    if drift.size == 0 or float(np.percentile(drift, 95)) > LARGEST_DRIFT:
        return face, FEATHERED
    return blended, POISSON


def blend_bands(
    face: NDArray[np.uint8], own: NDArray[np.uint8], region: NDArray[np.uint8], reach: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blend each frequency band over a width that fits it (Burt & Adelson, "A Multiresolution Spline", 1983).

    Colour and light change slowly over the region's border, and skin texture within a pixel or two.

    Args:
        face: The source's face.
        own: The target's pixels.
        region: What is the source's.
        reach: How far beyond the region the blend may change pixels [px].

    Returns:
        The blended picture uint8 (h, w, 3), equal to the target where the second is 0; and the share of the lowest
        band, which reaches furthest.
    """
    bands = max(1, math.floor(math.log2(max(2.0, reach / 2))))  # the lowest reaches about 2 ** (bands + 1) pixels
    blended = np.clip(np.rint(_run_blender(face, own, region, bands)), 0, 255).astype(np.uint8)
    white, black = np.full_like(face, 255), np.zeros_like(own)
    # A picture of one level has nothing but the lowest band.
    share = np.clip(_run_blender(white, black, region, bands)[..., 0] / np.float32(255), 0, 1).astype(np.float32)
    return np.where(share[..., None] > 0, blended, own), share


def _run_blender(
    one: NDArray[np.uint8], other: NDArray[np.uint8], region: NDArray[np.uint8], bands: int
) -> NDArray[np.float32]:
    height, width = region.shape
    blender = cv2.detail.MultiBandBlender(0, bands)
    blender.prepare((0, 0, width, height))
    for picture, mask in ((one, region), (other, cv2.bitwise_not(region))):
        blender.feed(picture.astype(np.int16) * STEPS, mask, (0, 0))
    found, _ = blender.blend(np.zeros(0, np.int16), np.zeros(0, np.uint8))
    return (np.asarray(found) / STEPS).astype(np.float32)
