"""A 64-bit perceptual hash: pictures that look alike have hashes that differ in few bits.

The signs of the lowest frequencies of the picture's discrete cosine transform, after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32  # px, what is transformed
LOWEST = 8  # frequencies each way
BITS = 64
LEAST = 0.01  # grey levels; smaller coefficients are rounding, and must not decide bits


def compute_phash(picture: NDArray[np.uint8]) -> int:
    """The hash, 0 .. 2^64 - 1; 0 for a picture of one colour.

    picture: uint8 (H, W, 3) RGB. Each bit tells whether a coefficient is above the median of all 64. The mean of the
    picture is none of them: the hash says nothing of brightness.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))
    chosen = np.append(frequencies[:LOWEST, :LOWEST].ravel()[1:], frequencies[0, LOWEST])
    chosen[np.abs(chosen) < LEAST] = 0
    bits = chosen > np.median(chosen)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def compute_distance(one: int, two: int) -> int:
    """In how many of the 64 bits two hashes differ."""
    return (one ^ two).bit_count()
