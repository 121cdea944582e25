import random

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces import sample
from sharpstudent.modalities.faces.crop import compute_box_margins, compute_landmark_box, compute_loose_box, crop
from sharpstudent.modalities.faces.picture_parts import Window
from sharpstudent.modalities.faces.sample import make_pair, make_single
from sharpstudent.modalities.faces.self_blend import DrawnBlend


def draw_nothing(height, width, landmarks, rng, form=None):
    return DrawnBlend((), False, np.eye(2, 3), np.zeros((height, width), np.float32), Window(0, 0, 0, 0))


def _pairs_equal(one, two):
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ("real", "fake", "mask"))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [64, 112])
def test_a_pair_has_the_promised_shapes_and_types(train, size, drawn):
    pair = make_pair(*drawn, np.random.default_rng(0), size, train=train)
    for image in (pair.real, pair.fake):
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
    assert pair.mask.shape == (size, size)
    assert pair.mask.dtype == np.float32
    assert 0 < pair.mask.max() <= 1


def test_evaluation_crops_exactly_the_box_with_an_eighth_each_side(monkeypatch):
    image, landmarks = draw_face(1, 400)
    box = np.array([120.0, 100, 280, 300], np.float32)
    monkeypatch.setattr(sample, "draw_blend", draw_nothing)
    pair = make_pair(image, landmarks, np.random.default_rng(0), 112, train=False, boxes=[box])
    loose = compute_loose_box(landmarks, 400, 400)
    assert (loose[:2] < (100, 75)).all()
    assert (loose[2:] > (300, 325)).all()
    np.testing.assert_array_equal(pair.real, cv2.resize(image[75:325, 100:300], (112, 112)))


def test_recolouring_never_separates_the_fake_from_the_real_face():
    """Where nothing was blended in, both are the same pixels: a detector cannot pass by spotting a recoloured
    picture.
    """
    recoloured = 0
    for seed in range(30):
        image, landmarks = draw_face(seed, 200)
        pair = make_pair(image, landmarks, np.random.default_rng(seed), 96, train=False)
        outside = cv2.dilate(pair.mask, np.ones((5, 5))) == 0
        assert outside.mean() > 0.05
        np.testing.assert_array_equal(pair.real[outside], pair.fake[outside])
        itself = make_single(image, compute_landmark_box(landmarks), np.random.default_rng(0), 96, train=False)
        recoloured += not np.array_equal(pair.real, itself)
    assert 7 <= recoloured <= 23


@pytest.mark.parametrize("train", [True, False])
def test_the_same_generator_gives_the_same_pair_and_another_a_different_one(train, drawn):
    one, two, other = (make_pair(*drawn, np.random.default_rng(seed), 96, train=train) for seed in (3, 3, 4))
    assert _pairs_equal(one, two)
    assert not _pairs_equal(one, other)


def test_a_pair_depends_on_its_own_generator_only(drawn):
    expected = make_pair(*drawn, np.random.default_rng(9), 96, train=True)
    for seed in range(5):
        make_pair(*drawn, np.random.default_rng(seed), 96, train=True)
    np.random.seed(1)
    random.seed(1)
    assert _pairs_equal(make_pair(*drawn, np.random.default_rng(9), 96, train=True), expected)


def test_real_and_fake_share_flip_crop_and_augmentation(drawn, monkeypatch):
    monkeypatch.setattr(sample, "draw_blend", draw_nothing)
    for seed in range(60):
        pair = make_pair(*drawn, np.random.default_rng(seed), 64, train=True)
        np.testing.assert_array_equal(pair.real, pair.fake)


def test_half_of_the_training_pairs_are_flipped_and_the_blend_gets_flipped_landmarks(drawn, monkeypatch):
    seen = []

    class Remembering(DrawnBlend):
        def render(self, image, window):
            seen[-1] = (image, seen[-1])
            return super().render(image, window)

    def remember(height, width, landmarks, rng, form):
        seen.append(landmarks)
        return Remembering(**vars(draw_nothing(height, width, landmarks, rng)))

    monkeypatch.setattr(sample, "draw_blend", remember)
    image, landmarks = drawn
    straight = crop(image, compute_loose_box(landmarks, 200, 200), landmarks=landmarks, boxes=np.empty((0, 4)))
    flips = 0
    for seed in range(200):
        make_pair(image, landmarks, np.random.default_rng(seed), 32, train=True)
        given, points = seen.pop()
        flips += not np.array_equal(given, straight.image)
        assert points[0, 0] < points[16, 0]
        for eye in (points[36:42], points[42:48]):
            x, y = np.rint(eye.mean(axis=0)).astype(int)
            assert given[y, x].mean() < 100
    assert 70 <= flips <= 130


def test_boxes_far_from_the_face_and_degenerate_landmarks_still_give_a_pair(drawn):
    for boxes in ([[900, 900, 950, 950]], [[10, 10, 10, 10]], [], None):
        assert make_pair(*drawn, np.random.default_rng(0), 48, train=True, boxes=boxes).real.shape == (48, 48, 3)
    for landmarks in (np.full((68, 2), 40.0), np.full((81, 2), -900.0), np.full((81, 2), np.nan)):
        for train in (True, False):
            pair = make_pair(drawn[0], landmarks, np.random.default_rng(0), 48, train=train)
            assert np.isfinite(pair.mask).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (12, 40)])
def test_tiny_images_give_a_pair(shape):
    image = np.full((*shape, 3), 120, np.uint8)
    landmarks = np.random.default_rng(0).uniform(0, 1, (81, 2)) * (shape[1], shape[0])
    for seed in range(8):
        assert make_pair(image, landmarks, np.random.default_rng(seed), 32, train=True).fake.shape == (32, 32, 3)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
def test_another_kind_of_image_is_refused(image, drawn):
    with pytest.raises(ValueError, match="uint8"):
        make_pair(image, drawn[1], np.random.default_rng(0), 32, train=True)


def test_a_single_face_in_evaluation_is_cropped_like_the_real_one_of_a_pair(drawn):
    image, _ = drawn
    box = np.array([70.0, 60, 130, 140])
    alone = make_single(image, box, np.random.default_rng(0), 80, train=False)
    left, top, right, bottom = compute_box_margins(box, 200, 200, None)
    np.testing.assert_array_equal(alone, cv2.resize(image[top:bottom, left:right], (80, 80)))
    whole = make_single(image, None, np.random.default_rng(0), 80, train=False)
    np.testing.assert_array_equal(whole, cv2.resize(image, (80, 80)))


def test_a_single_face_in_training_varies_with_the_generator_and_repeats(drawn):
    box = compute_landmark_box(drawn[1])
    results = [make_single(drawn[0], box, np.random.default_rng(seed), 64, train=True) for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(results[0], results[1])
    assert len({result.tobytes() for result in results}) == 4
