"""H.264 recompression: a real stream, real losses, and a clear message if the package is absent."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces import corruptions as recompress
from sharpstudent.modalities.faces.corruptions import compress_jpeg, explain_no_h264, recompress_h264

IDR, SEQUENCE, PICTURE = 5, 7, 8  # types of NAL units, ITU-T H.264 table 7-1


@pytest.fixture(scope="module")
def face():
    pytest.importorskip("av", reason="H.264 needs the extra `video`")
    if explain_no_h264() is not None:
        pytest.skip(explain_no_h264() or "")
    return draw_face(3, 200)[0]


def list_units(stream):
    """The types of the units of an H.264 byte stream (Annex B)."""
    parts = stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    return [part[0] & 31 for part in parts]


def test_the_picture_is_coded_by_itself_as_a_group_of_pictures_begins(face):
    for crf in (23, 40):
        units = list_units(b"".join(recompress._encode(face, crf)))
        assert {SEQUENCE, PICTURE, IDR} <= set(units)
        assert not {1, 2, 3, 4} & set(units)  # nothing that is predicted from another frame


def test_a_higher_factor_takes_fewer_bytes(face):
    sizes = [sum(map(len, recompress._encode(face, crf))) for crf in (0, 23, 28, 35, 40)]
    assert all(after < 0.9 * before for before, after in pairwise(sizes))


def test_the_decoded_picture_is_the_same_face_and_differs_from_jpeg(face):
    made = recompress_h264(face, 28)
    assert np.abs(made.astype(int) - face).mean() < 8
    # No quality of JPEG gives these pixels: the nearest is still as far as the two losses are.
    nearest = min(np.abs(made.astype(int) - compress_jpeg(face, q)).mean() for q in range(10, 100, 10))
    assert nearest > 0.5 * np.abs(made.astype(int) - face).mean()


def test_colours_keep_their_place_and_range(face):
    for colour in ((255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (90, 160, 40)):
        flat = np.full((64, 64, 3), colour, np.uint8)
        assert np.abs(recompress_h264(flat, 23).astype(int) - colour).max() <= 6


@pytest.mark.parametrize("shape", [(1, 1), (17, 30), (30, 17), (33, 35)])
def test_odd_sides_keep_their_length_and_the_picture_its_place(face, shape):
    picture = np.ascontiguousarray(face[60 : 60 + shape[0], 60 : 60 + shape[1]])
    made = recompress_h264(picture, 10)
    assert made.shape == picture.shape
    assert made.flags.c_contiguous
    assert np.abs(made.astype(int) - picture).mean() < 6


def test_the_same_picture_gives_the_same_bytes(face):
    first = recompress_h264(face, 35)
    recompress_h264(face[::-1].copy(), 23)
    np.testing.assert_array_equal(recompress_h264(face, 35), first)


def test_without_the_package_the_reason_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install torchcodec~=" in (explain_no_h264() or "")
    with pytest.raises(UserError, match=r"av~=\d"):
        recompress_h264(np.zeros((8, 8, 3), np.uint8), 23)


def test_a_package_without_the_encoder_gives_a_reason_too(monkeypatch):
    av = pytest.importorskip("av", reason="H.264 needs the extra `video`")
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    assert "libx264" in (explain_no_h264() or "")
