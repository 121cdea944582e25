"""What happens to pictures on their way: JPEG, loss of resolution, blur, noise, light, and a sharing platform's chain.

Every function takes and gives uint8 (H, W, 3) RGB; sizes in pixels are those of the picture that it is given.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# One pass through a sharing platform: sent at half the size, shown as large as before and sharper, saved again.
SHARED_SIDE, SHARED_QUALITY, SAVED_QUALITY = 0.5, 60, 70
SHARPEN_SIGMA, SHARPEN_SHARE = 1.5, 0.6


def compress_jpeg(picture: Picture, quality: float) -> Picture:
    """JPEG at a quality of libjpeg's scale, 100 best, colour at half the resolution (4:2:0)."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    wanted = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    wanted += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, content = cv2.imencode(".jpg", bgr, wanted)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB), np.uint8)


def lose_resolution(picture: Picture, share: float) -> Picture:
    """Down to a share of each side, 0..1, by area means, and up again bicubically."""
    height, width = picture.shape[:2]
    return _enlarge(_shrink(picture, share), height, width)


def blur(picture: Picture, share: float) -> Picture:
    """Gaussian blur; its sigma is a share of the side, of a square with the picture's area."""
    sigma = share * math.sqrt(picture.shape[0] * picture.shape[1])
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def add_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise, independent in each pixel and colour; sigma [levels of 255]."""
    levels = rng.standard_normal(picture.shape, dtype=np.float32)
    levels *= np.float32(sigma)
    levels += picture
    return _to_uint8(levels)


def change_light(picture: Picture, gain: float) -> Picture:
    """Every level times a gain, cut off at 255: what is too bright is lost, as on a sensor."""
    levels = _to_uint8(np.arange(256, dtype=np.float32) * np.float32(gain))
    return np.asarray(cv2.LUT(picture, levels), np.uint8)


def share_online(picture: Picture, passes: float) -> Picture:
    """So many times through a platform: down to half the side, JPEG 60, up again, sharpened, JPEG 70."""
    height, width = picture.shape[:2]
    for _ in range(round(passes)):
        sent = compress_jpeg(_shrink(picture, SHARED_SIDE), SHARED_QUALITY)
        shown = _enlarge(sent, height, width)
        soft = cv2.GaussianBlur(shown, (0, 0), SHARPEN_SIGMA)
        sharper = cv2.addWeighted(shown, 1 + SHARPEN_SHARE, soft, -SHARPEN_SHARE, 0)
        picture = compress_jpeg(np.asarray(sharper, np.uint8), SAVED_QUALITY)
    return picture


def _shrink(picture: Picture, share: float) -> Picture:
    size = [max(1, round(share * side)) for side in (picture.shape[1], picture.shape[0])]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarge(picture: Picture, height: int, width: int) -> Picture:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _to_uint8(levels: NDArray[np.float32]) -> Picture:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
