import random

import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces.self_blend import BLEND_RATIOS, blend, deform_elastically, self_blend, soften


def test_outside_the_mask_the_fake_equals_the_target_bit_for_bit():
    untouched = 0
    for seed in range(40):
        image, landmarks = draw_face(seed, 160)
        target, fake, mask = self_blend(image, landmarks, np.random.default_rng(seed))
        outside = mask == 0
        assert 0.1 < outside.mean() < 1
        np.testing.assert_array_equal(fake[outside], target[outside])
        untouched += np.array_equal(target, image)
    assert 8 <= untouched <= 32  # the target is the image itself half of the time


def test_at_a_mask_of_one_the_fake_equals_the_source_and_at_a_half_the_mean():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(blend(source, target, np.ones((30, 40), np.float32)), source)
    half = blend(source, target, np.full((30, 40), 0.5, np.float32))
    assert np.abs(half - (source.astype(float) + target) / 2).max() <= 0.51
    np.testing.assert_array_equal(blend(source, target, np.zeros((30, 40), np.float32)), target)


def test_blending_an_image_with_itself_changes_nothing():
    image = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    mask = np.random.default_rng(2).random((50, 50), dtype=np.float32)
    np.testing.assert_array_equal(blend(image, image, mask), image)


def test_masks_are_finite_soft_and_within_their_ratio(drawn):
    highest = []
    for seed in range(60):
        _, fake, mask = self_blend(*drawn, np.random.default_rng(seed))
        assert fake.dtype == np.uint8
        assert fake.shape == drawn[0].shape
        assert mask.dtype == np.float32
        assert np.isfinite(mask).all()
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert ((mask > 0) & (mask < mask.max())).any()
        highest.append(BLEND_RATIOS[np.abs(np.array(BLEND_RATIOS) - mask.max()).argmin()])
        assert mask.max() == pytest.approx(highest[-1], abs=0.05)
    assert set(highest) == set(BLEND_RATIOS)


def test_the_fake_differs_from_the_real_face_where_the_mask_is_strong(drawn):
    for seed in range(20):
        target, fake, mask = self_blend(*drawn, np.random.default_rng(seed))
        assert (fake != target)[mask > 0.2].mean() > 0.3


def test_the_same_generator_gives_the_same_fake_and_another_a_different_one(drawn):
    first, second, other = (self_blend(*drawn, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[0], other[0])


def test_no_global_generator_and_no_input_is_touched(drawn):
    image, landmarks = drawn[0].copy(), drawn[1].copy()
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    for seed in range(10):
        self_blend(image, landmarks, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    np.testing.assert_array_equal(image, drawn[0])
    np.testing.assert_array_equal(landmarks, drawn[1])


DEGENERATE = {
    "one point": np.full((81, 2), 60.0),
    "a line": np.c_[np.linspace(0, 119, 68), np.full(68, 50.0)],
    "all outside": np.full((68, 2), -5000.0),
    "far outside": np.random.default_rng(0).uniform(-1e9, 1e9, (81, 2)),
    "not a number": np.full((81, 2), np.nan),
    "infinite": np.full((68, 2), np.inf),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_landmarks_still_give_a_valid_fake(name):
    image = draw_face(0, 120)[0]
    for seed in range(16):
        _, fake, mask = self_blend(image, DEGENERATE[name], np.random.default_rng(seed))
        assert fake.shape == image.shape
        assert np.isfinite(mask).all()
        assert 0 < mask.max() <= 1
        _, again, _ = self_blend(image, DEGENERATE[name], np.random.default_rng(seed))
        np.testing.assert_array_equal(fake, again)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (7, 9), (16, 16)])
def test_tiny_images_still_give_a_valid_fake(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    landmarks = np.random.default_rng(1).uniform(0, 1, (81, 2)) * (shape[1], shape[0])
    for seed in range(16):
        _, fake, mask = self_blend(image, landmarks, np.random.default_rng(seed))
        assert fake.shape == image.shape
        assert mask.shape == shape
        assert np.isfinite(mask).all()


def test_the_elastic_field_moves_points_by_about_as_much_as_the_full_resolution_field():
    # Uniform noise of variance 1/3 smoothed with sigma s has deviation sqrt(1/3) / (2 sqrt(pi) s), here times alpha:
    # 1.16 px. A straight vertical edge shows the horizontal part of it.
    mask = np.zeros((600, 600), np.uint8)
    mask[100:500, 200:400] = 255
    columns = []
    for seed in range(10):
        deformed = deform_elastically(mask, np.random.default_rng(seed)) / 255
        columns.append(400 - deformed[120:480, 300:].sum(axis=1) - 300)
    assert np.std(columns) == pytest.approx(1.16, rel=0.2)


def test_softening_an_empty_mask_gives_an_empty_mask():
    soft = soften(np.zeros((50, 60), np.uint8), np.random.default_rng(0))
    assert soft.shape == (50, 60)
    assert not soft.any()


def test_softening_shrinks_and_is_strongest_inside():
    mask = np.zeros((224, 224), np.uint8)
    mask[60:160, 60:160] = 255
    for seed in range(20):
        soft = soften(mask, np.random.default_rng(seed))
        assert soft[110, 110] > 0.98
        assert soft[mask == 0].max() < 0.75
