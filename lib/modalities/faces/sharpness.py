"""How sharp a face is: one figure that compares faces of different sizes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 100  # px


def compute_sharpness(face: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of the face, brought to 100 x 100 px in grey [grey levels squared]; 0 for one
    colour.

    face: uint8 (H, W, 3) RGB, the face's box only: a sharp background says nothing of the face. After Pech-Pacheco et
    al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if min(grey.shape) > SIDE else cv2.INTER_LINEAR
    scaled = cv2.resize(grey, (SIDE, SIDE), interpolation=interpolation)
    return float(cv2.Laplacian(scaled, cv2.CV_64F).var())
