"""Several faces in a frame: which of them count, and how their scores become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_clips import draw_blocks, write_picture
from block_sets import LARGE, SMALL, TWO_FACES, make_face, prepare, use_block_networks, write_clip, write_tree
from prepared_set import write_set
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.evaluation.crops_set import CACHE
from sharpstudent.tasks.deepfake.evaluation.datasets import open_sets
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet
from sharpstudent.tasks.deepfake.evaluation.set_request import FacesRule, SetRequest, Split
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings


@pytest.fixture(autouse=True)
def block_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_block_networks(monkeypatch)


def open_one(path: Path, *, split: Split = "all", faces: FacesRule = "largest") -> LabelledFaceSet:
    (found,) = open_sets([SetRequest(path, split=split, faces=faces)], say=lambda _: None)
    return found


def to_margin(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


@pytest.mark.parametrize(
    ("faces", "of_pair", "of_other"),
    [("largest", 0.4, None), ("max", 0.8, 0.3), ("mean", 0.6, 0.3)],
)
def test_faces_of_a_frame_are_combined_by_the_rule(
    tmp_path: Path, faces: FacesRule, of_pair: float, of_other: float | None
) -> None:
    write_set(tmp_path / "set", TWO_FACES)
    found = open_one(tmp_path / "set", split="test", faces=faces)
    said = {"alone": 0.1, "pair": 0.4} if faces == "largest" else {}
    margins = [to_margin(p) for p in (said.values() if said else (0.1, 0.4, 0.8, 0.3))]
    frames = found.build_frames(np.array(margins), {})
    assert frames.sample_ids == ["alone/000004", "pair/000000", "pair/000007"]
    assert frames.decided.tolist() == [True, True, of_other is not None]
    probabilities = 1 / (1 + np.exp(-frames.margins))
    np.testing.assert_allclose(probabilities[:2], [0.1, of_pair], rtol=0, atol=1e-15)
    if of_other is None:
        assert found.about.without_decision == {"the clip's largest person is not in it": 1}
    else:
        np.testing.assert_allclose(probabilities[2], of_other, rtol=0, atol=1e-15)


def test_a_frame_has_a_decision_as_long_as_one_of_its_faces_is_readable(tmp_path: Path) -> None:
    write_set(tmp_path / "set", TWO_FACES)
    found = open_one(tmp_path / "set", split="test", faces="max")
    names = found.name_faces()
    margins = np.array([to_margin(p) for p in (0.1, 0.4, 0.8, 0.3)])
    frames = found.build_frames(margins, {names[2]: "is no picture", names[3]: "is no picture"})
    assert frames.decided.tolist() == [True, True, False]
    assert frames.margins[1] == margins[1]
    assert found.describe({}, {names[2]: "is no picture"}).without_decision == {}
    assert found.describe({}, {names[3]: "is no picture", "of another set": "gone"}).without_decision == {
        "is no picture": 1
    }


def test_all_faces_unreadable_leave_no_decision_at_all(tmp_path: Path) -> None:
    write_set(tmp_path / "set", TWO_FACES)
    found = open_one(tmp_path / "set", split="test", faces="mean")
    frames = found.build_frames(np.zeros(4), dict.fromkeys(found.name_faces(), "is empty"))
    assert not frames.decided.any()
    assert found.describe({}, dict.fromkeys(found.name_faces(), "is empty")).without_decision == {"is empty": 3}


def test_both_faces_are_cropped_if_all_count_and_one_if_only_the_largest_does(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "videos")
    assert (len(open_one(source)), len(open_one(source, faces="mean"))) == (11, 14)
    prepare(source, tmp_path / "set", crop=CropSettings(faces="largest"))
    assert any("--faces largest" in note for note in open_one(tmp_path / "set", faces="max").about.notes)
    (note,) = open_one(tmp_path / "set").about.notes
    assert "in 1 fake clip of several people" in note  # --faces largest may have taken the bystander


def test_two_largest_faces_and_two_labels_in_a_frame_are_refused_by_name(tmp_path: Path) -> None:
    real = make_face(0, 0, "other", 0, 0)
    twice = [make_face(1, 1, "pair", 3, 0), make_face(2, 1, "pair", 3, 0), real]
    write_set(tmp_path / "twice", twice)
    with pytest.raises(UserError, match=r"more than one largest face(.|\n)*pair/000003"):
        open_one(tmp_path / "twice", split="test")
    write_set(tmp_path / "both", [make_face(1, 1, "pair", 3, 0), make_face(2, 0, "pair", 3, 1), real])
    with pytest.raises(UserError, match=r"real and fake at once(.|\n)*pair/000003"):
        open_one(tmp_path / "both", split="test")


def test_a_reason_for_a_frame_that_has_a_face_is_a_remark_and_no_missing_decision(tmp_path: Path) -> None:
    source = tmp_path / "mixed"
    write_clip(source / "real/ann/a.avi", "BB")
    write_picture(source / "fake/ben/b.png", draw_blocks(LARGE, SMALL))
    (found,) = open_sets([SetRequest(source, faces="max", min_face=65)], say=lambda _: None)
    quarantine = next(CACHE.glob("*/quarantine.csv")).read_text()
    assert quarantine.count("1 more below 65 px") == 3
    assert (len(found), len(found.frames), found.about.without_decision) == (3, 3, {})


PEOPLE = [  # the second person of `fake` is the one who is fake
    *(make_face(frame, 1, "fake", frame, 0) for frame in range(4)),
    *(make_face(10 + frame, 1, "fake", frame, 1) for frame in range(1, 4)),
    make_face(20, 1, "fake", 3, 2),  # a bystander, seen once
    *(make_face(30 + frame, 0, "real", frame, 0) for frame in range(3)),
]


def test_people_are_followed_and_the_likeliest_fake_one_stands_for_the_clip(tmp_path: Path) -> None:
    write_set(tmp_path / "set", PEOPLE)
    found = open_one(tmp_path / "set", split="test", faces="person")
    said = {"fake/0": [0.5, 0.9, 0.1, 0.1], "fake/1": [0.7, 0.7, 0.7], "fake/2": [0.99], "real/0": [0.2, 0.3, 0.4]}
    places = {key: iter(values) for key, values in said.items()}
    assert found.people_of is not None
    people = zip(found.labels.tolist(), (found.people_of % 2**32).tolist(), strict=True)
    margins = [to_margin(next(places[f"{'fake' if label else 'real'}/{person}"])) for label, person in people]
    frames = found.build_frames(np.array(margins), {})
    assert frames.decided.all()
    # The frame without the second person has the score of whoever is there; the bystander of one frame never counts.
    probabilities = 1 / (1 + np.exp(-frames.margins))
    np.testing.assert_allclose(probabilities, [0.5, 0.7, 0.7, 0.7, 0.2, 0.3, 0.4], rtol=0, atol=1e-12)
    assert "most likely fake by the mean of their frames" in found.faces_rule


def test_where_a_clip_shows_one_person_following_changes_nothing(tmp_path: Path) -> None:
    write_set(tmp_path / "set", PEOPLE[:4] + PEOPLE[-3:])
    margins = np.linspace(-1, 1, 7)
    one, two = (
        open_one(tmp_path / "set", split="test", faces=rule).build_frames(margins, {}) for rule in ("largest", "person")
    )
    np.testing.assert_array_equal(one.margins, two.margins)
