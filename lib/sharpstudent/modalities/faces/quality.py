"""How sharp a face is, and a perceptual hash of it.

A 64-bit perceptual hash: pictures that look alike have hashes that differ in few bits.

The signs of the lowest frequencies of the picture's discrete cosine transform, after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010).

How sharp a face is: one figure that compares faces of different sizes.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 32  # px, what is transformed
LOWEST = 8  # frequencies each way
BITS = 64
LEAST = 0.01  # grey levels; smaller coefficients are rounding, and must not decide bits


def compute_phash(picture: NDArray[np.uint8]) -> int:
    """The hash, 0 .. 2^64 - 1; 0 for a picture of one colour.

    picture: uint8 (H, W, 3) RGB. Each bit tells whether a coefficient is above the median of all 64. The mean of the
    picture is none of them: the hash says nothing of brightness.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))
    chosen = np.append(frequencies[:LOWEST, :LOWEST].ravel()[1:], frequencies[0, LOWEST])
    chosen[np.abs(chosen) < LEAST] = 0
    bits = chosen > np.median(chosen)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def compute_distance(one: int, two: int) -> int:
    """In how many of the 64 bits two hashes differ."""
    return (one ^ two).bit_count()


SHARPNESS_SIDE = 100  # px


def compute_sharpness(face: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of the face, brought to 100 x 100 px in grey [grey levels squared]; 0 for one
    colour.

    face: uint8 (H, W, 3) RGB, the face's box only: a sharp background says nothing of the face. After Pech-Pacheco et
    al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if min(grey.shape) > SHARPNESS_SIDE else cv2.INTER_LINEAR
    scaled = cv2.resize(grey, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=interpolation)
    return float(cv2.Laplacian(scaled, cv2.CV_64F).var())
