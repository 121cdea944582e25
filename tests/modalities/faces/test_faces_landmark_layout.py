import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces import landmarks as layout


@pytest.mark.parametrize("count", [68, 81])
def test_flipping_landmarks_twice_gives_them_back(count):
    landmarks = np.random.default_rng(0).integers(0, 300, (count, 2)).astype(np.float32)
    flipped = layout.flip_landmarks(landmarks, 300)
    assert not np.array_equal(flipped, landmarks)
    np.testing.assert_array_equal(layout.flip_landmarks(flipped, 300), landmarks)


@pytest.mark.parametrize("order", [layout.FLIP_ORDER_68, layout.FLIP_ORDER_81])
def test_the_flip_order_is_a_permutation(order):
    np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))


def test_flipping_leaves_the_given_landmarks_alone(drawn):
    before = drawn[1].copy()
    layout.flip_landmarks(drawn[1], 200)
    np.testing.assert_array_equal(drawn[1], before)


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_landmark_lies_on_the_same_part_of_the_flipped_face(seed):
    image, landmarks = draw_face(seed, 320)
    mirrored, flipped = image[:, ::-1], layout.flip_landmarks(landmarks, 320)
    # The viewer's left stays left and the order inside each row stays left to right
    # (a rolled jaw may turn in at its ends).
    for row in (layout.JAW[1:-1], layout.BROWS, layout.NOSE_BASE, layout.FOREHEAD, np.r_[48:55], np.r_[60:65]):
        assert (np.diff(landmarks[row, 0]) > 0).all()
        assert (np.diff(flipped[row, 0]) > 0).all()
    # Under both eyes' centres lies the drawn pupil, and the lips' middle is lip-coloured, in either image.
    for eye in (layout.LEFT_EYE, layout.RIGHT_EYE):
        for picture, points in ((image, landmarks), (mirrored, flipped)):
            x, y = np.rint(points[eye].mean(axis=0)).astype(int)
            assert picture[y - 1 : y + 2, x - 1 : x + 2].mean() < 90
    # Upper lids above lower lids: a swap of lids would turn these round.
    assert (flipped[[37, 38, 43, 44], 1] < flipped[[41, 40, 47, 46], 1]).all()
    # The brow's outer end belongs to the outer end of the mirrored other brow.
    np.testing.assert_allclose(flipped[17], (319 - landmarks[26, 0], landmarks[26, 1]), rtol=1e-6)
    np.testing.assert_allclose(flipped[36], (319 - landmarks[45, 0], landmarks[45, 1]), rtol=1e-6)


def test_a_flipped_box_stays_a_box_around_the_flipped_landmarks(drawn):
    box = np.r_[drawn[1].min(axis=0), drawn[1].max(axis=0)]
    flipped = layout.flip_landmarks(drawn[1], 200)
    np.testing.assert_allclose(layout.flip_box(box, 200), np.r_[flipped.min(axis=0), flipped.max(axis=0)], rtol=1e-6)


def test_the_mesh_gives_81_distinct_points_and_an_even_forehead():
    angle = np.linspace(np.pi, 0, 13)
    mesh = np.random.default_rng(1).uniform(0, 1, (468, 2))
    mesh[layout.MESH_OVAL_TOP] = np.c_[np.cos(angle), -np.sin(angle)]
    landmarks = layout.convert_mesh_to_81(mesh)
    assert len(np.unique(landmarks, axis=0)) == 81
    forehead = landmarks[layout.FOREHEAD]
    assert (np.diff(forehead[:, 0]) > 0).all()
    np.testing.assert_allclose(forehead[6], (0, -1), atol=1e-6)
    np.testing.assert_allclose(forehead[:, 0], -forehead[::-1, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(67, 2), (81, 3), (2, 68), (0, 2)])
def test_another_layout_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(68, 2\) or \(81, 2\)"):
        layout.flip_landmarks(np.zeros(shape), 100)
