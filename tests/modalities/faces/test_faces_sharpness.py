"""Sharpness falls with blur, not with size, and looks at the given pixels only."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from sharpstudent.modalities.faces.crop import compute_sharpness


def test_one_colour_has_no_sharpness_and_a_chessboard_much() -> None:
    assert compute_sharpness(np.full((60, 50, 3), 90, np.uint8)) == 0
    # Fields of 10 px: of the 100 rows 18 lie inside beside a border, with second differences of 255 each way.
    board = ((np.indices((100, 100)) // 10).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert compute_sharpness(np.repeat(board[..., None], 3, axis=2)) > 10_000


def test_it_falls_with_every_blur(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    image = drawn[0]
    values = [compute_sharpness(image)] + [
        compute_sharpness(np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)) for sigma in (1, 2, 4, 8)
    ]
    assert all(one > two for one, two in itertools.pairwise(values))


def test_faces_of_different_sizes_compare(photos: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for image, _ in photos[:6]:
        full = compute_sharpness(image)
        half = compute_sharpness(
            np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
        )
        assert 0.8 < half / full < 1.25


def test_any_shape_has_a_finite_sharpness() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 300), (300, 1), (3, 2)):
        value = compute_sharpness(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        assert np.isfinite(value)
