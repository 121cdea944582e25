"""Only what the final crop shows is computed, and its bits are those of whole pictures."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces import augment, picture_parts
from sharpstudent.modalities.faces.augment import DrawnTransform, apply_drawn, draw_color_shift, find_input
from sharpstudent.modalities.faces.picture_parts import (
    PicturePart,
    Window,
    find_warp_input,
    flatten_view,
    get_whole,
    take_whole,
    warp_part,
)
from sharpstudent.modalities.faces.sample import make_pair, make_single
from sharpstudent.modalities.faces.self_blend import draw_blend, self_blend
from whole_pair import blend_whole, make_whole_pair, make_whole_single, run

SIDES = ((200, 200), (161, 240), (97, 83), (320, 257))  # heights and widths, even and odd


def draw_picture(seed, height, width):
    """Noise over a gradient, of all colours: what makes a wrong bit show."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 255, height)[:, None, None] * rng.random(3) + np.linspace(0, 120, width)[
        :, None
    ] * rng.random(3)
    return np.clip(slope + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)


def draw_window(rng, height, width):
    left, top = rng.integers(width), rng.integers(height)
    return Window(left, top, rng.integers(left, width) + 1, rng.integers(top, height) + 1)


def assert_pairs_equal(one, two):
    for name in ("real", "fake", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.mark.parametrize("points", [68, 81])
@pytest.mark.parametrize("train", [True, False])
def test_a_pair_has_the_bits_of_one_made_of_whole_pictures(train, points):
    for seed in range(24):
        image, landmarks = draw_face(seed, (150, 201, 256, 333)[seed % 4])
        boxes = None if seed % 3 else [np.r_[landmarks[:68].min(0) - 5, landmarks[:68].max(0) + 9]]
        arguments = (image[: len(image) - seed % 7], landmarks[:points])
        whole = make_whole_pair(*arguments, np.random.default_rng(seed), 96, train=train, boxes=boxes)
        assert_pairs_equal(make_pair(*arguments, np.random.default_rng(seed), 96, train=train, boxes=boxes), whole)


def test_a_face_at_the_picture_s_border_has_the_bits_of_whole_pictures():
    image, landmarks = draw_face(5, 240)
    for seed, (x, y) in enumerate([(0, 0), (90, 0), (0, 110), (90, 110), (130, 60), (-1, -1)] * 4):
        part = image[max(y, 0) :, max(x, 0) :]
        points = landmarks - (max(x, 0), max(y, 0))
        whole = make_whole_pair(part, points, np.random.default_rng(seed), 64, train=True)
        assert_pairs_equal(make_pair(part, points, np.random.default_rng(seed), 64, train=True), whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3), (7, 9), (8, 8), (16, 31)])
def test_a_tiny_picture_has_the_bits_of_whole_pictures(shape):
    image = draw_picture(0, *shape)
    landmarks = np.random.default_rng(1).uniform(0, 1, (81, 2)) * shape[::-1]
    for seed in range(10):
        whole = make_whole_pair(image, landmarks, np.random.default_rng(seed), 24, train=True)
        assert_pairs_equal(make_pair(image, landmarks, np.random.default_rng(seed), 24, train=True), whole)


def test_a_single_face_has_the_bits_of_albumentations():
    for seed in range(60):
        image = draw_picture(seed, *SIDES[seed % 4])
        box = None if seed % 3 == 0 else np.array([20, 25, 70, 75], np.float32)
        single = make_single(image, box, np.random.default_rng(seed), 64, train=True)
        np.testing.assert_array_equal(single, make_whole_single(image, box, np.random.default_rng(seed), 64))


def test_a_self_blend_of_a_whole_picture_has_the_same_bits_and_leaves_the_generator_where_it_was():
    for seed in range(30):
        image, landmarks = draw_face(seed, 180 + seed)
        one, two = np.random.default_rng(seed), np.random.default_rng(seed)
        for mine, whole in zip(self_blend(image, landmarks, one), blend_whole(image, landmarks, two), strict=True):
            np.testing.assert_array_equal(mine, whole)
        assert one.random() == two.random()


def test_any_window_of_a_blend_is_cut_of_the_whole():
    image, landmarks = draw_face(2, 260)
    for seed in range(60):
        drawn = draw_blend(260, 260, landmarks, np.random.default_rng(seed))
        whole = drawn.render(image, get_whole(image))
        window = draw_window(np.random.default_rng(seed), 260, 260)
        for part, full in zip(drawn.render(image, window), whole, strict=True):
            np.testing.assert_array_equal(part, window.cut(full))


@pytest.mark.parametrize("pipeline", ["shared", "color_shift"])
def test_any_window_of_what_a_pipeline_makes_is_cut_of_the_whole(pipeline):
    for seed in range(100):
        image, rng = draw_picture(seed, *SIDES[seed % 4]), np.random.default_rng(seed)
        (whole,) = run(getattr(augment._PIPELINES, pipeline), np.random.default_rng(seed), image=image)
        drawn = augment._draw(getattr(augment._PIPELINES, pipeline), np.random.default_rng(seed))
        window = draw_window(rng, *image.shape[:2])
        np.testing.assert_array_equal(apply_drawn(take_whole(image), drawn, window), window.cut(whole))
        given = find_input(drawn, window, get_whole(image))
        part = PicturePart(given.cut(image), given, get_whole(image))
        inner = Window(rng.integers(window.left, window.right), window.top, window.right, window.bottom)
        for one in (window, inner):
            np.testing.assert_array_equal(apply_drawn(part, drawn, one), one.cut(whole))


def test_a_window_of_a_jpeg_needs_its_squares_and_two_pixels_around_at_every_quality():
    image = draw_picture(3, 151, 203)
    coding = A.ImageCompression(compression_type="jpeg", quality_range=(1, 100))
    rng = np.random.default_rng(0)
    for quality in range(5, 101):
        drawn = [DrawnTransform(coding, {"quality": quality, "image_type": ".jpg"})]
        whole, window = coding.apply(image, quality, ".jpg"), draw_window(rng, 151, 203)
        np.testing.assert_array_equal(apply_drawn(take_whole(image), drawn, window), window.cut(whole))


def test_chroma_of_a_jpeg_does_reach_over_its_squares():
    """The planted fault: without the pixels around, some windows have other bits."""
    image = draw_picture(3, 151, 203)
    whole = A.ImageCompression(compression_type="jpeg", quality_range=(1, 100)).apply(image, 60, ".jpg")
    window = Window(32, 48, 96, 112)
    alone = cv2.imdecode(
        cv2.imencode(".jpg", window.cut(image), (cv2.IMWRITE_JPEG_QUALITY, 60))[1], cv2.IMREAD_UNCHANGED
    )
    assert not np.array_equal(alone, window.cut(whole))
    np.testing.assert_array_equal(alone[1:-1, 1:-1], window.cut(whole)[1:-1, 1:-1])


def test_every_colour_keeps_its_bits_in_the_hsv_shift_wherever_its_pixel_lies():
    """All 2^24 colours would take long; every seventh, in rows whose length leaves a remainder to any vector."""
    colours = np.arange(0, 2**24, 7, dtype=np.uint32)[: 1541 * 1555]
    image = np.ascontiguousarray(colours.view(np.uint8).reshape(-1, 4)[:, :3]).reshape(-1, 1555, 3)
    shift = A.HueSaturationValue((-0.3, 0.3), (-0.3, 0.3), (-0.3, 0.3), p=1)
    for hue in (-0.3, -1e-9, 0.0, 0.2):
        params = {"hue_shift": hue, "sat_shift": -0.2, "val_shift": 0.3}
        expected = shift.apply(image, **params)
        np.testing.assert_array_equal(DrawnTransform(shift, params).apply(image), expected)
        window = Window(3, 0, 4, len(image))
        np.testing.assert_array_equal(
            apply_drawn(take_whole(image), [DrawnTransform(shift, params)], window), window.cut(expected)
        )


def test_a_larger_hsv_shift_is_left_to_albumentations():
    image = draw_picture(0, 30, 40)
    shift = A.HueSaturationValue((-20, 20), (-20, 20), (-20, 20), p=1)
    params = {"hue_shift": 9.0, "sat_shift": -12.0, "val_shift": 15.0}
    np.testing.assert_array_equal(DrawnTransform(shift, params).apply(image), shift.apply(image, **params))


@pytest.mark.parametrize("has_other_rounding", [False, True])
def test_any_window_of_a_warp_is_cut_of_the_whole_however_the_processor_rounds(has_other_rounding, monkeypatch):
    if has_other_rounding:
        monkeypatch.setattr(picture_parts, "_is_located_right", lambda: False)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        height, width = SIDES[seed % 4]
        image, window = draw_picture(seed, height, width), draw_window(rng, height, width)
        scale, x, y = rng.uniform(0.9, 1.1), rng.uniform(-0.2, 0.2) * width, rng.uniform(-0.2, 0.2) * height
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        whole = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        needed = find_warp_input(matrix, window, get_whole(image))
        part = PicturePart(needed.cut(image), needed, get_whole(image))
        np.testing.assert_array_equal(warp_part(part, matrix, window), window.cut(whole))


def test_a_mirrored_view_is_flattened_to_the_same_pixels():
    image = draw_picture(0, 31, 44)
    flat = flatten_view(image[:, ::-1][3:20, 5:40])
    np.testing.assert_array_equal(flat, image[:, ::-1][3:20, 5:40])
    assert flat.flags.c_contiguous


def test_what_is_drawn_does_not_depend_on_the_picture_and_is_nothing_for_a_tiny_one():
    rng = np.random.default_rng(0)
    assert draw_color_shift(7, 400, rng) == ()
    assert rng.random() == np.random.default_rng(0).random()
    for seed in range(20):
        one, two = np.random.default_rng(seed), np.random.default_rng(seed)
        run(augment._PIPELINES.color_shift, one, image=draw_picture(seed, 90, 120))
        assert [bool(t.params) for t in augment._PIPELINES.color_shift.transforms[:3]][1:] == [True, True]
        draw_color_shift(90, 120, two)
        assert one.random() == two.random()


def test_no_global_generator_is_touched(drawn):
    states = np.random.get_state()[1].copy(), random.getstate()
    make_pair(*drawn, np.random.default_rng(0), 64, train=True)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
