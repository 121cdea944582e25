import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.modalities.faces.landmarks import NOSE_BRIDGE, OUTER_MOUTH
from sharpstudent.modalities.faces.self_blend import HULL_KINDS, draw_hull


def _at(mask, points):
    x, y = np.rint(points).astype(int).T
    return mask[y, x]


@pytest.mark.parametrize("kind", HULL_KINDS)
@pytest.mark.parametrize("count", [68, 81])
def test_every_region_covers_nose_and_mouth_and_leaves_the_corners(kind, count):
    for seed in range(5):
        landmarks = draw_face(seed, 240)[1][:count]
        mask = draw_hull(kind, landmarks, 240, 240)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert (_at(mask, landmarks[NOSE_BRIDGE][1:]) == 255).all()
        assert (_at(mask, landmarks[OUTER_MOUTH].mean(axis=0)[None]) == 255).all()
        assert not mask[:12].any()
        assert not mask[-12:].any()


def test_the_four_regions_differ(drawn):
    masks = [draw_hull(kind, drawn[1], 200, 200) for kind in HULL_KINDS]
    assert len({mask.tobytes() for mask in masks}) == 4


@pytest.mark.parametrize("kind", ["full", "parts"])
def test_the_forehead_points_raise_the_region(kind, drawn):
    tops = [np.flatnonzero(draw_hull(kind, drawn[1][:count], 200, 200).any(axis=1))[0] for count in (68, 81)]
    assert tops[1] < tops[0]


def test_the_extended_region_reaches_above_the_brows_without_forehead_points(drawn):
    full, extended = (draw_hull(kind, drawn[1][:68], 200, 200) for kind in ("full", "extended"))
    assert np.flatnonzero(extended.any(axis=1))[0] < np.flatnonzero(full.any(axis=1))[0]


def test_the_parts_region_has_no_hole(drawn):
    import cv2

    for seed in range(8):
        mask = draw_hull("parts", draw_face(seed, 240)[1], 240, 240)
        outside = mask.copy()
        cv2.floodFill(outside, None, (0, 0), 128)
        assert not (outside == 0).any()


@pytest.mark.parametrize("kind", HULL_KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
def test_wild_landmarks_neither_crash_nor_hang(kind, value, drawn):
    landmarks = drawn[1].copy()
    landmarks[5] = value
    assert draw_hull(kind, landmarks, 60, 50).shape == (60, 50)


def test_an_unknown_region_is_refused(drawn):
    with pytest.raises(ValueError, match="whole"):
        draw_hull("whole", drawn[1], 10, 10)
