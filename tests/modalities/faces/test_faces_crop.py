import numpy as np
import pytest
from sharpstudent.modalities.faces.crop import choose_box, compute_box_margins, compute_iou, compute_loose_box, crop


def _landmarks(left, top, right, bottom, count=68):
    points = np.full((count, 2), ((left + right) / 2, (top + bottom) / 2), np.float32)
    points[0], points[1] = (left, top), (right, bottom)
    return points


def test_iou_of_known_boxes():
    assert compute_iou([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert compute_iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert compute_iou([0, 0, 10, 10], [20, 20, 30, 30]) == 0
    assert compute_iou([5, 5, 5, 5], [5, 5, 5, 5]) == 0


def test_the_loose_box_follows_its_closed_form():
    # w = 100, h = 120: 50 each side, 120 above, 48 below.
    box = compute_loose_box(_landmarks(300, 400, 400, 520), 1000, 1000)
    np.testing.assert_array_equal(box, [250, 280, 450, 568])


def test_the_loose_box_ignores_the_forehead():
    landmarks = _landmarks(300, 400, 400, 520, count=81)
    landmarks[68:] = (350, 350)
    np.testing.assert_array_equal(compute_loose_box(landmarks, 1000, 1000), [250, 280, 450, 568])


def test_the_loose_box_is_clipped_to_the_image():
    np.testing.assert_array_equal(compute_loose_box(_landmarks(10, 20, 110, 140), 150, 130), [0, 0, 130, 150])


def test_the_evaluation_margin_is_exactly_an_eighth_of_the_box_each_side():
    np.testing.assert_array_equal(compute_box_margins([200, 160, 360, 400], 1000, 1000, None), [180, 130, 380, 430])


def test_training_margins_are_independent_and_between_5_and_20_percent():
    rng = np.random.default_rng(0)
    box = np.array([4000, 5000, 6000, 9000])
    drawn = np.array([compute_box_margins(box, 20000, 20000, rng) for _ in range(500)])
    shares = np.abs(drawn - box) / np.array([2000, 4000, 2000, 4000])
    assert shares.min() >= 0.05
    assert shares.max() <= 0.2
    assert shares.min() < 0.055
    assert shares.max() > 0.195
    correlation = np.corrcoef(shares.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.15


@pytest.mark.parametrize("box", [[500, 500, 600, 600], [50, 50, 50, 50], [np.nan, 0, 1, 1], [-90, -90, -50, -50]])
def test_a_box_without_any_pixel_gives_the_whole_image(box):
    np.testing.assert_array_equal(compute_box_margins(box, 80, 90, None), [0, 0, 90, 80])


def test_the_chosen_box_is_among_the_two_largest_the_one_over_the_landmarks():
    landmarks = _landmarks(10, 10, 50, 50)
    small_exact, large_other, medium = [10, 10, 50, 50], [200, 200, 400, 400], [0, 0, 80, 80]
    np.testing.assert_array_equal(choose_box([small_exact, medium, large_other], landmarks), medium)
    np.testing.assert_array_equal(choose_box([small_exact, medium], landmarks), small_exact)


def test_choosing_among_no_boxes_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        choose_box([], _landmarks(0, 0, 1, 1))


def test_a_crop_shifts_landmarks_and_boxes_with_the_pixels(drawn):
    image, landmarks = drawn
    part = crop(image, np.array([20, 30, 150, 190]), landmarks=landmarks, boxes=np.array([[25.0, 35, 100, 120]]))
    assert part.image.shape == (160, 130, 3)
    np.testing.assert_array_equal(part.image[5, 7], image[35, 27])
    np.testing.assert_allclose(part.landmarks + np.array([20, 30]), landmarks, atol=1e-4)
    np.testing.assert_array_equal(part.boxes, [[5, 5, 80, 90]])
