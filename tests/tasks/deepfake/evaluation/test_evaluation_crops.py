"""Face crops as a data set: pictures as they are, whose people their folders or a table of swaps name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from block_sets import write_crops
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.evaluation.datasets import open_sets
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.report.from_frames import choose_rules


def open_one(path: Path, *, clips: bool = False) -> LabelledFaceSet:
    (found,) = open_sets([SetRequest(path, crops=True, clips=clips)], say=lambda _: None)
    return found


CROPS = ("real/ann/1.png", "real/ann/2.png", "real/alone.png", "fake/ann/1.png", "fake/x/deep/2.jpg")


def test_moved_crops_have_the_same_fingerprint_and_one_byte_gives_another(tmp_path: Path) -> None:
    write_crops(tmp_path / "crops", CROPS)
    shutil.copytree(tmp_path / "crops", tmp_path / "elsewhere" / "copy")
    first, moved = (open_one(tmp_path / name).about.fingerprint for name in ("crops", "elsewhere/copy"))
    assert first == moved
    changed = tmp_path / "crops" / CROPS[1]
    content = bytearray(changed.read_bytes())
    content[-20] ^= 1
    changed.write_bytes(content)
    assert open_one(tmp_path / "crops").about.fingerprint != first
    (tmp_path / "elsewhere/copy/real/alone.png").rename(tmp_path / "elsewhere/copy/fake/alone.png")
    assert open_one(tmp_path / "elsewhere/copy").about.fingerprint != first


# --- Face crops -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [False, True])
def test_crops_are_taken_whole_with_their_folders_as_people_and_where_the_user_says_so_as_videos(
    tmp_path: Path, clips: bool
) -> None:
    found = open_one(write_crops(tmp_path / "crops", CROPS), clips=clips)
    frames = found.build_frames(np.arange(5.0), {})
    columns = dict(zip(frames.sample_ids, zip(frames.clip_ids, frames.groups, frames.labels, strict=True), strict=True))
    expected = {
        "real/alone.png": ("real/alone.png", "real/alone", 0),
        "real/ann/1.png": ("real/ann", "ann", 0),
        "real/ann/2.png": ("real/ann", "ann", 0),
        "fake/ann/1.png": ("fake/ann", "ann", 1),
        "fake/x/deep/2.jpg": ("fake/x/deep", "x", 1),
    }
    assert columns == (expected if clips else {name: (name, *more) for name, (_, *more) in expected.items()})
    assert (found.about.videos, found.about.people, found.about.manipulations) == (4 * clips, 3, {"fake": 2})
    assert bool(choose_rules(frames)) == clips
    assert all(face.load().boxes is None for face in found.faces)
    assert found.open(24).make(0, np.random.default_rng(0)).inputs["image"].shape == (1, 24, 24, 3)
    assert [face.label for face in found.faces] == found.labels.tolist()
    compute_set_metrics(frames)  # nobody's clip is real and fake at once


def test_equal_pictures_of_a_class_count_once_and_frames_of_a_video_all(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "crops", CROPS)
    for copy in ("real/ann/3.png", "real/ben/1.png"):
        (root / copy).parent.mkdir(exist_ok=True)
        shutil.copy(root / "real/ann/1.png", root / copy)
    shutil.copy(root / "real/ann/1.png", root / "fake/ann/1.png")
    found = open_one(root)
    assert found.frames.sample_ids == open_one(write_crops(tmp_path / "plain", CROPS)).frames.sample_ids
    assert any(note.startswith("2 pictures are copies of others") for note in found.about.notes)
    assert len(open_one(root, clips=True)) == len(CROPS) + 2


def test_an_unreadable_crop_is_a_frame_without_decision(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "crops", CROPS)
    (root / CROPS[0]).write_bytes(b"no picture")
    found = open_one(root)
    with pytest.raises(UnreadableSample):
        found.faces[found.name_faces().index(CROPS[0])].read()
    unreadable = {CROPS[0]: "is no picture, or is cut off"}
    frames = found.build_frames(np.zeros(len(found)), unreadable)
    assert [frames.sample_ids[i] for i in np.flatnonzero(~frames.decided).tolist()] == [CROPS[0]]
    assert found.describe({}, unreadable).without_decision == {"is no picture, or is cut off": 1}


SWAPS = """file,label,split,source_person,target_person,source_file,target_file,method,seed
fake/ann/1__ben.png,fake,test,ben,ann,b.jpg,a.jpg,poisson,0
real/ann/1.png,real,test,,ann,,a.jpg,,0
fake/ben/2__ann.png,fake,val,ann,ben,a.jpg,b.jpg,feather,0
real/ben/2.png,real,val,,ben,,b.jpg,,0
"""


def test_swaps_are_grouped_by_the_person_of_the_photo_and_each_is_a_clip_of_its_own(tmp_path: Path) -> None:
    names = ["fake/ann/1__ben.png", "real/ann/1.png", "fake/ben/2__ann.png", "real/ben/2.png", "fake/zoe/3.png"]
    root = write_crops(tmp_path / "swaps", names)
    (root / "swaps.csv").write_text(SWAPS)
    found = open_one(root)
    frames = found.build_frames(np.zeros(5), {})
    columns = dict(zip(frames.sample_ids, zip(frames.groups, frames.manipulations, strict=True), strict=True))
    assert columns == {
        "fake/ann/1__ben.png": ("ann", "swap-poisson"),
        "real/ann/1.png": ("ann", ""),
        "fake/ben/2__ann.png": ("ben", "swap-feather"),
        "real/ben/2.png": ("ben", ""),
        "fake/zoe/3.png": ("zoe", "fake"),
    }
    assert found.about.videos == 0
    assert any("test: 2, val: 2" in note for note in found.about.notes)
    assert any("fake/zoe/3.png" in note for note in found.about.notes)


def test_a_table_of_swaps_without_its_columns_is_refused(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "swaps", CROPS)
    (root / "swaps.csv").write_text("file,label\nreal/ann/1.png,real\n")
    with pytest.raises(UserError, match=r"swaps\.csv.*(.|\n)*target_person"):
        open_one(root)
