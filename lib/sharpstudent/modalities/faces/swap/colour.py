"""Matching the pixels of one face to another's: colour and shading in CIELAB, then sharpness.

Legend: picture uint8 (H, W, 3) RGB; lab float32 (H, W, 3), L 0..100; skin bool (H, W), where both pictures show skin;
face_width [px]. Lengths are shares of the face's width.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SPREAD_LIMITS = (0.7, 1.4)  # how much the spread of L, a, b may be changed
LEAST_SPREAD = 0.3
STRETCHED = 3.0  # spreads
GREY_CHROMA = 1.5  # a picture whose skin has less, and no more spread of it, is black and white
GREY_LEVELS = 3.0  # mean difference of the largest and the smallest of R, G, B; below it a picture has no colour
SHADING_SIGMA = 0.16
SHADING_SHARE = 0.75  # of the difference of light and shade that is taken over
SHADING_STEP = 4  # the shading is computed on a grid this much coarser
WHITES_SHARE = 0.35  # of the change of colour that reaches eyeballs and teeth
# Skin: within this many spreads of the cheeks' colour, plus what light and shade add to each of L, a, b.
SKIN_SPREADS = 6.6
SKIN_SLACK = (14.0, 8.0, 8.0)
SKIN_BLUR = 0.008
DETAIL_SIGMA = 1.0  # px
BLUR_SIGMAS = (0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.5)  # px
SHARPEN_SHARES, SHARPEN_SIGMA = (0.25, 0.5, 0.75, 1.0, 1.3, 1.6), 1.2  # stronger sharpening would only add noise


def to_lab(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert a picture to CIELAB."""
    return np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def is_grey(picture: NDArray[np.uint8]) -> bool:
    """Say whether a picture is black and white, by every eighth of its rows and columns."""
    return float(np.ptp(picture[::8, ::8].astype(np.int16), axis=-1).mean()) < GREY_LEVELS


def find_covered(picture: NDArray[np.uint8], cheeks: NDArray[np.bool_], face_width: float) -> NDArray[np.bool_]:
    """Find where a picture does not have the colour of its cheeks.

    Args:
        picture: uint8 (H, W, 3) RGB.
        cheeks: Where the cheeks are, bool (H, W), at least a pixel.
        face_width: The distance of the jaw's two ends [px].

    Returns:
        bool (H, W).
    """
    blurred = cv2.GaussianBlur(to_lab(picture), (0, 0), max(0.5, SKIN_BLUR * face_width))
    lab = np.asarray(blurred, np.float32)
    middle, spread = _measure_colour(lab[cheeks])
    away = (lab - middle) / (SKIN_SPREADS * spread + np.array(SKIN_SLACK, np.float32))
    return np.square(away).sum(axis=-1) > 1


def match_colour(
    face: Picture, like: Picture, skin: NDArray[np.bool_], whites: NDArray[np.bool_], face_width: float
) -> Picture:
    """Give a face the skin colour and the soft light and shade of another.

    Median and spread of L, a and b over the skin are matched, and then the blurred difference that is left.

    Args:
        face: uint8 (H, W, 3) RGB.
        like: The other face, of the same shape.
        skin: Where both show skin, bool (H, W).
        whites: Eyeballs and teeth, which are changed less, bool (H, W).
        face_width: The distance of the jaw's two ends [px].

    Returns:
        The changed face, uint8 (H, W, 3).
    """
    own, wanted = to_lab(face), to_lab(like)
    (middle, spread), (wanted_middle, wanted_spread) = _measure_colour(own[skin]), _measure_colour(wanted[skin])
    ratio = np.clip((wanted_spread + LEAST_SPREAD) / (spread + LEAST_SPREAD), *SPREAD_LIMITS)
    # The spread is the skin's; brows and highlights far outside it are moved along, not stretched.
    reach = np.maximum(STRETCHED * spread, LEAST_SPREAD)
    change = wanted_middle - middle + (ratio - 1) * np.clip(own - middle, -reach, reach)
    change += SHADING_SHARE * _blur_within(wanted - own - change, skin, SHADING_SIGMA * face_width)
    # A cast of light tints what is dark (brows, lashes, pupils) less than the skin.
    change[..., 1:] *= np.clip(own[..., :1] / max(float(middle[0]), 1.0), 0, 1)
    soft = cv2.GaussianBlur(whites.astype(np.float32), (0, 0), max(0.5, 0.01 * face_width))[..., None]
    matched = own + change * (1 - (1 - WHITES_SHARE) * soft)
    if np.abs(wanted_middle[1:]).max() < GREY_CHROMA and wanted_spread[1:].max() < GREY_CHROMA:
        matched[..., 1:] = wanted_middle[1:]
    return _to_rgb(matched)


def match_sharpness(face: NDArray[np.uint8], like: NDArray[np.uint8], skin: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Blur or sharpen a face until its skin has as much fine detail as another's.

    Args:
        face: uint8 (H, W, 3) RGB.
        like: The other face, of the same shape.
        skin: Where both show skin, bool (H, W).

    Returns:
        The changed face, uint8 (H, W, 3).
    """
    wanted = measure_detail(like, skin)
    candidates = [face]
    if measure_detail(face, skin) > wanted:
        candidates += [np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8) for sigma in BLUR_SIGMAS]
    else:
        soft = cv2.GaussianBlur(face, (0, 0), SHARPEN_SIGMA)
        candidates += [
            np.asarray(cv2.addWeighted(face, 1 + share, soft, -share, 0), np.uint8) for share in SHARPEN_SHARES
        ]
    return min(candidates, key=lambda candidate: abs(measure_detail(candidate, skin) - wanted))


def measure_detail(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Measure the median size of the fine texture. Stubble, freckles and edges do not change it.

    Args:
        picture: uint8 (H, W, 3) RGB.
        where: Pixels that count, bool (H, W).

    Returns:
        The size [grey levels of 255].
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA))
    return float(np.median(fine[where]))


def _measure_colour(lab: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute median and median absolute deviation of (n, 3) colours; beard and highlights do not change them."""
    middle = np.median(lab, axis=0)
    return middle, np.median(np.abs(lab - middle), axis=0)


def _blur_within(values: NDArray[np.floating], where: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Compute the Gaussian mean of values (H, W, 3) over the chosen pixels only, at every pixel."""
    height, width = where.shape
    step = SHADING_STEP if sigma >= 2 * SHADING_STEP else 1
    size = (max(1, width // step), max(1, height // step))
    weight = where.astype(np.float32)[..., None]
    small = cv2.resize(np.dstack([values * weight, weight]), size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / step, borderType=cv2.BORDER_CONSTANT)
    mean = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
    return np.asarray(cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _to_rgb(lab: NDArray[np.floating]) -> NDArray[np.uint8]:
    rgb = cv2.cvtColor(np.asarray(lab, np.float32), cv2.COLOR_LAB2RGB)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
