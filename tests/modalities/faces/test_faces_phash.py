"""The perceptual hash: stable against what happens to copies, different for different pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from numpy.typing import NDArray
from sharpstudent.modalities.faces.crop import compute_phash

Image = NDArray[np.uint8]


def compress(image: Image) -> Image:
    content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB), np.uint8)


CHANGES = {
    "JPEG 60": compress,
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "double": lambda image: cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
}


def test_a_hash_has_64_bits_half_of_them_set() -> None:
    for seed in range(8):
        value = compute_phash(draw_face(seed, 96)[0])
        assert 0 <= value < 2**64
        assert value.bit_count() == 32


@pytest.mark.parametrize("level", [0, 17, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (100, 37)])
def test_a_picture_of_one_colour_has_the_hash_0(level: int, shape: tuple[int, int]) -> None:
    assert compute_phash(np.full((*shape, 3), level, np.uint8)) == 0


def test_a_pattern_sets_the_bit_of_its_frequency() -> None:
    """The cosine of frequency 1 along x has one large coefficient, row 0 and column 1: the first bit."""
    wave = 128 + 100 * np.cos(np.pi * (2 * np.arange(32) + 1) / 64)
    image = np.repeat(np.tile(wave, (32, 1))[..., None], 3, axis=2).round().astype(np.uint8)
    assert compute_phash(image) >> 63 == 1
    assert compute_phash(image[:, ::-1]) >> 63 == 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_a_drawn_face_stays_near(change: str) -> None:
    for seed in range(12):
        image = draw_face(seed, 160)[0]
        assert (compute_phash(image) ^ compute_phash(CHANGES[change](image))).bit_count() <= 6


def test_real_faces_are_nearer_to_their_copies_than_to_each_other(photos: list[tuple[Image, np.ndarray]]) -> None:
    hashes = [compute_phash(image) for image, _ in photos]
    for change in CHANGES.values():
        for value, (image, _) in zip(hashes, photos, strict=True):
            assert (value ^ compute_phash(change(image))).bit_count() <= 6
    between = [(one ^ two).bit_count() for i, one in enumerate(hashes) for two in hashes[:i]]
    assert np.median(between) > 12
