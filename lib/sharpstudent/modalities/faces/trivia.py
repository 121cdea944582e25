"""Trivial statistics of a picture of a face: what a detector of fakes must not be able to live on.

None of them looks at a face. Where they tell fakes from real faces, it is by compression, resizing, noise or colour,
and a network learns the same shortcut.

Legend: picture uint8 (H, W, 3) RGB, grey float32 (H, W) 0..255; residual: what a 3 x 3 median takes away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

RINGS = 6  # of the Fourier spectrum, of equal width up to half of the sampling frequency
BLOCK = 8  # px, of JPEG and H.264
FILE_QUALITY = 90


def measure_trivia(picture: NDArray[np.uint8]) -> dict[str, float]:
    """Measure a picture.

    Args:
        picture: uint8 (H, W, 3) RGB, at least 16 x 16 px.

    Returns:
        The statistics by name, in the same order for every picture; all are finite.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    levels = grey.astype(np.float32)
    residual = levels - cv2.medianBlur(grey, 3)
    laplacian = cv2.Laplacian(levels, cv2.CV_32F)
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    parts = (
        _measure_channels(picture),
        _measure_sharpness(levels, laplacian, residual),
        _measure_rings(levels),
        _measure_blocks(levels),
        _compare_centre(laplacian, residual, hsv[..., 1]),
        _measure_colour(hsv),
        _measure_coding(picture, grey),
    )
    return dict(itertools.chain(*parts))


def _measure_channels(picture: NDArray[np.uint8]) -> Iterator[tuple[str, float]]:
    for place, name in enumerate(("red", "green", "blue")):
        values = picture[..., place].astype(np.float64)
        mean, deviation = float(values.mean()), float(values.std())
        yield f"mean of {name}", mean
        yield f"deviation of {name}", deviation
        yield f"skewness of {name}", float(((values - mean) ** 3).mean()) / max(deviation, 1e-3) ** 3
        yield f"share of {name} at 0", float((values == 0).mean())
        yield f"share of {name} at 255", float((values == 255).mean())


def _measure_sharpness(
    levels: NDArray[np.float32], laplacian: NDArray[np.generic], residual: NDArray[np.float32]
) -> Iterator[tuple[str, float]]:
    gradient = np.hypot(cv2.Sobel(levels, cv2.CV_32F, 1, 0), cv2.Sobel(levels, cv2.CV_32F, 0, 1))
    yield "variance of the Laplacian", float(laplacian.var())
    yield "mean gradient", float(gradient.mean())
    yield "deviation of the gradient", float(gradient.std())
    yield "deviation of the residual", float(residual.std())


def _measure_rings(levels: NDArray[np.float32]) -> Iterator[tuple[str, float]]:
    """Measure the logarithm of the mean energy in rings of the spectrum, without its mean."""
    energy = np.abs(np.fft.rfft2(levels - levels.mean())) ** 2 / levels.size
    rows, columns = np.fft.fftfreq(levels.shape[0])[:, None], np.fft.rfftfreq(levels.shape[1])[None]
    ring = np.minimum((2 * RINGS * np.hypot(rows, columns)).astype(int), RINGS - 1)
    sums = np.bincount(ring.ravel(), energy.ravel(), RINGS) / np.maximum(np.bincount(ring.ravel(), minlength=RINGS), 1)
    for number, value in enumerate(sums.tolist(), 1):
        yield f"energy in ring {number}", float(np.log(value + 1e-6))


def _measure_blocks(levels: NDArray[np.float32]) -> Iterator[tuple[str, float]]:
    """Measure steps between neighbours at every eighth place, by its phase, against those at all places."""
    for name, axis in (("across", 1), ("down", 0)):
        steps = np.abs(np.diff(levels, axis=axis)).mean(axis=1 - axis)
        whole = float(steps.mean()) + 1e-3
        for phase in range(BLOCK):
            yield f"blocks {name}, phase {phase}", float(steps[phase::BLOCK].mean()) / whole


def _compare_centre(
    laplacian: NDArray[np.generic], residual: NDArray[np.float32], saturation: NDArray[np.generic]
) -> Iterator[tuple[str, float]]:
    """Compare the middle half of each side with what is around it."""
    height, width = residual.shape
    is_centre = np.zeros((height, width), bool)
    is_centre[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    pairs = {
        "variance of the Laplacian": (laplacian[is_centre].var(), laplacian[~is_centre].var()),
        "deviation of the residual": (residual[is_centre].std(), residual[~is_centre].std()),
        "mean saturation": (saturation[is_centre].mean(), saturation[~is_centre].mean()),
    }
    for name, (centre, border) in pairs.items():
        yield f"{name}, centre against border", float(np.log((centre + 1e-3) / (border + 1e-3)))


def _measure_colour(hsv: NDArray[np.generic]) -> Iterator[tuple[str, float]]:
    for place, name in ((0, "hue"), (1, "saturation")):
        yield f"mean {name}", float(hsv[..., place].mean())
        yield f"deviation of {name}", float(hsv[..., place].std())


def _measure_coding(picture: NDArray[np.uint8], grey: NDArray[np.generic]) -> Iterator[tuple[str, float]]:
    shares = np.bincount(np.asarray(grey, np.uint8).ravel(), minlength=256) / grey.size
    present = shares[shares > 0]
    yield "entropy", float(-(present * np.log2(present)).sum())
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, FILE_QUALITY])
    yield f"bytes a pixel as JPEG {FILE_QUALITY}", len(content) / grey.size
