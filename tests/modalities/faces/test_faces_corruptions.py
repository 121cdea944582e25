"""Corruptions of a face crop: what each does, at which severity, and that it does so everywhere alike."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces.corruptions import (
    CORRUPTIONS,
    BoxedCrop,
    add_noise,
    blur,
    change_light,
    corrupt,
    explain_no_h264,
    find_evaluation_crop,
    lose_resolution,
    share_online,
)
from sharpstudent.modalities.faces.sample import make_single

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
needs_h264 = pytest.mark.skipif(explain_no_h264() is not None, reason=explain_no_h264() or "")
EVERY = [pytest.param(d, id=d.name, marks=[needs_h264] if d.name == "h264" else []) for d in CORRUPTIONS]
ROOT = Path(__file__).resolve().parents[3]
PRINT_SUMS = """
import json, sys
sys.path[:0] = ["tests/helpers", "tests/modalities/faces"]
from test_faces_corruptions import sum_up
print(json.dumps(sum_up(reverse=True)))
"""


def crop_drawn_face(seed=3, side=200):
    image, landmarks = draw_face(seed, side)
    return find_evaluation_crop(image, np.concatenate([landmarks[:68].min(axis=0), landmarks[:68].max(axis=0)]))


def sum_up(*, reverse):
    """sha256 of every variant of two faces that this machine can make, made in one order or in the other."""
    wanted = [d for d in CORRUPTIONS if d.name != "h264" or explain_no_h264() is None]
    keys = [(d, level, index) for d in wanted for level in range(len(d.severities)) for index in (0, 7)]
    face = crop_drawn_face()
    sums = {}
    for corruption, level, index in reversed(keys) if reverse else keys:
        picture = corrupt(face, corruption, level, seed=5, index=index)
        sums[f"{corruption.name} {level} {index}"] = hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()
    return sums


def measure_psnr(picture, other):
    return 10 * np.log10(255**2 / np.square(picture.astype(np.float64) - other).mean())


@pytest.mark.parametrize("corruption", EVERY)
def test_no_severity_is_the_crop_itself_and_every_other_a_changed_picture_of_its_shape(corruption):
    face = crop_drawn_face()
    before = face.image.copy()
    np.testing.assert_array_equal(corrupt(face, corruption, 0, seed=0, index=0), face.picture)
    for level in range(1, len(corruption.severities)):
        picture = corrupt(face, corruption, level, seed=0, index=0)
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous
        if corruption.name != "crop_jitter":  # crops a box of another size
            assert picture.shape == face.picture.shape
            assert (picture != face.picture).any()
    np.testing.assert_array_equal(face.image, before)


@pytest.mark.parametrize("corruption", [d for d in EVERY if d.id in ("jpeg", "h264", "resize", "blur", "noise")])
@pytest.mark.parametrize("seed", [3, 11])
def test_more_severity_loses_more_of_the_picture(corruption, seed):
    face = crop_drawn_face(seed, 300)
    levels = range(1, len(corruption.severities))
    found = [measure_psnr(corrupt(face, corruption, level, seed=0, index=0), face.picture) for level in levels]
    assert (np.diff(found) < -0.5).all()  # dB: each step is more than rounding
    assert 15 < found[-1] < found[0] < 50


def test_the_crop_is_that_of_evaluation():
    image, landmarks = draw_face(3, 200)
    box = np.concatenate([landmarks[:68].min(axis=0), landmarks[:68].max(axis=0)])
    for given in (box, None):
        side = find_evaluation_crop(image, given).picture
        alone = make_single(side, None, np.random.default_rng(0), 64, train=False)
        np.testing.assert_array_equal(alone, make_single(image, given, np.random.default_rng(0), 64, train=False))


def test_the_same_key_gives_the_same_bytes_in_another_process_and_order():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_SUMS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == sum_up(reverse=False)


@pytest.mark.parametrize("name", ["noise", "crop_jitter"])
def test_face_seed_and_severity_each_draw_afresh(name):
    drawn, face = BY_NAME[name], crop_drawn_face()

    def sum_one(level, seed, index):
        return corrupt(face, drawn, level, seed=seed, index=index).tobytes()

    keys = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]
    assert len({sum_one(*key) for key in keys}) == len(keys)
    if name == "noise":  # another severity is no scaled copy of the same noise
        grey = BoxedCrop(np.full((64, 64, 3), 128, np.uint8), np.array([0, 0, 64, 64]))
        weak, strong = (corrupt(grey, drawn, level, seed=0, index=0).astype(float) - 128 for level in (1, 2))
        assert abs(np.corrcoef(weak.ravel(), strong.ravel())[0, 1]) < 0.05


def test_names_and_labels_of_severities_are_unique():
    assert len(BY_NAME) == len(CORRUPTIONS)
    for corruption in CORRUPTIONS:
        labels = [corruption.name_severity(level) for level in range(len(corruption.severities))]
        assert labels[0] == "none"
        assert len(set(labels)) == len(labels) >= 4


def test_noise_has_the_wanted_spread_in_every_colour():
    grey = np.full((200, 200, 3), 128, np.uint8)
    found = add_noise(grey, 20, np.random.default_rng(0)).astype(np.float64) - 128
    # Four standard errors of a standard deviation of 40,000 draws: 4 * 20 / sqrt(80,000).
    np.testing.assert_allclose(found.std(axis=(0, 1)), 20, atol=0.3)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), 0, atol=0.4)
    assert np.abs(np.corrcoef(found.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_brightness_multiplies_and_is_clipped():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for gain in (0.2, 0.8, 1.0, 1.8):
        expected = np.minimum(np.rint(levels * gain), 255)
        assert np.abs(change_light(levels, gain - 1).astype(int) - expected).max() <= (0 if gain == 1.0 else 1)


@pytest.mark.parametrize("side", [101, 301])
def test_blur_spreads_a_point_by_a_share_of_the_side(side):
    point = np.zeros((side, side, 3), np.uint8)
    middle, share = side // 2, 0.03
    point[middle - 3 : middle + 4, middle - 3 : middle + 4] = 255  # a point alone would be lost in rounding
    column = blur(point, share)[..., 0].sum(axis=0, dtype=np.float64)
    places = np.arange(side) - middle
    variance = (column * places**2).sum() / column.sum()
    own = (7**2 - 1) / 12  # of seven equal pixels
    assert variance - own == pytest.approx((share * side) ** 2, rel=0.08)


def test_lost_resolution_keeps_what_is_smooth_and_loses_what_is_fine():
    flat = np.full((64, 48, 3), (10, 120, 250), np.uint8)
    np.testing.assert_array_equal(lose_resolution(flat, 0.25), flat)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(lose_resolution(stripes, 0.5).astype(int)) <= 1


def test_each_upload_to_a_platform_recompresses_once_more():
    picture = crop_drawn_face().picture
    np.testing.assert_array_equal(share_online(picture, 2), share_online(share_online(picture, 1), 1))


def test_jitter_moves_and_scales_the_box_by_exactly_its_share():
    x, y = np.meshgrid(np.arange(240), np.arange(250))
    where = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)  # a pixel's colour is its place
    box = np.array([80, 90, 180, 170])
    for share in (0.05, 0.2):
        scales, angles = [], []
        for index in range(60):
            moved = BoxedCrop(where, box).jitter(share, np.random.default_rng(index))
            height, width = moved.shape[:2]
            scales.append(width / 100)
            assert height / 80 == pytest.approx(width / 100, abs=0.02)
            centre = moved.reshape(-1, 3)[:, :2].mean(axis=0) + 0.5
            moved = (centre - (130, 130)) / (100, 80)
            assert np.hypot(*moved) == pytest.approx(share, abs=0.013)  # whole pixels
            angles.append(np.arctan2(*moved))
        assert set(np.round(scales, 2)) == {1 + share, round(1 / (1 + share), 2)}
        assert 15 <= sum(scale > 1 for scale in scales) <= 45
        assert np.histogram(angles, bins=4, range=(-np.pi, np.pi))[0].min() >= 5


def test_jitter_of_a_picture_taken_as_it_is_shows_its_mirror_image_beyond_the_border():
    x = np.arange(100, dtype=np.uint8)[None, :, None].repeat(100, axis=0).repeat(3, axis=2)
    face = find_evaluation_crop(x, None)
    wide = [moved for i in range(40) if (moved := face.jitter(0.2, np.random.default_rng(i))).shape[1] == 120]
    assert wide
    for moved in wide:
        row = moved[0, :, 0].astype(int)
        start = row[0] if row[1] > row[0] else -row[0]  # of the box, in the picture's own pixels
        expected = [99 - abs(abs(place) - 99) for place in range(start, start + 120)]
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 40)])
def test_the_smallest_pictures_are_corrupted_too(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for corruption in CORRUPTIONS:
        if corruption.name == "h264" and explain_no_h264() is not None:
            continue
        for level in range(len(corruption.severities)):
            assert 0 not in corrupt(find_evaluation_crop(image, None), corruption, level, seed=0, index=0).shape
