"""Files of others: NTU RGB+D and its splits, MIB, CTR-GCN and pyskl; all of them give the motion that was written."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_motion import CLASSES, list_sequences, write_ctrgcn, write_mib, write_ntu, write_pyskl
from sharpstudent.task import UnreadableSample, UserError
from sharpstudent.tasks.skeleton.formats import load_motion
from sharpstudent.tasks.skeleton.graph import SKELETONS
from sharpstudent.tasks.skeleton.ntu import (
    COUNTS,
    Name,
    count_parts,
    read_skeleton_file,
    read_skip_list,
    write_skeleton,
)
from sharpstudent.tasks.skeleton.packages import read_plain_pickle
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.sequences import Sequences
from workplace import ROOT

COCO = SKELETONS["coco17"]
NAMES = os.environ.get("NTU_NAMES")  # the official list of all names, one a line


def make_section(source: str, path: Path, **more: Any) -> SkeletonSection:
    keys = {"data_source": source, "data_root": str(path), "unit": "m", "skeleton": "coco17", "classes": CLASSES}
    return SkeletonSection(**{**keys, "frames": 8, **more})


def test_what_is_written_as_a_skeleton_file_is_read_again_with_both_bodies(tmp_path: Path) -> None:
    bodies = np.random.default_rng(1).normal(size=(2, 5, 25, 3))
    bodies[1] *= 0.1  # moves less, so it is the second
    bodies[1, 3] = 0.0
    (tmp_path / "a.skeleton").write_text(write_skeleton(bodies))
    found = read_skeleton_file(tmp_path / "a.skeleton")
    np.testing.assert_allclose(found[0], bodies[0], rtol=1e-6)
    np.testing.assert_allclose(found[1, 4], bodies[1, 4], rtol=1e-6)
    np.testing.assert_array_equal(found[1, 3], found[1, 2])  # absent in one frame, it keeps its place


def test_a_skeleton_file_that_is_cut_off_or_shows_nobody_is_refused(tmp_path: Path) -> None:
    path, text = tmp_path / "a.skeleton", write_skeleton(np.ones((1, 3, 25, 3)))
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UnreadableSample, match=r"ends too early|three finite"):
        read_skeleton_file(path)
    path.write_text("2\n0\n0\n")
    with pytest.raises(UnreadableSample, match="shows no body"):
        read_skeleton_file(path)


@pytest.mark.parametrize(
    ("protocol", "train", "test"),
    [
        ("xsub60", "S001C001P002R001A001", "S001C001P003R001A001"),
        ("xview60", "S001C003P003R001A001", "S001C001P002R001A001"),
        ("xsub120", "S018C001P103R001A120", "S018C001P104R001A120"),
        ("xset120", "S018C001P104R001A120", "S017C001P103R001A001"),
    ],
)
def test_official_splits_divide_by_person_camera_or_setup(protocol: str, train: str, test: str) -> None:
    found = [Name.read(text) for text in (train, test)]
    assert [one.find_part(protocol) for one in found if one] == ["train", "test"]
    assert [str(one) for one in found] == [train, test]
    late = Name.read("S001C001P001R001A061")
    assert late is not None
    assert (late.find_part(protocol) is None) == protocol.endswith("60")


def test_generated_names_are_counted_as_the_rules_of_the_papers_say() -> None:
    names = [
        f"S{s:03}C{c:03}P{p:03}R001A{a:03}" for s in (1, 2) for c in (1, 2, 3) for p in range(1, 41) for a in (1, 61)
    ]
    assert count_parts(names, "xsub60") == (2 * 3 * 20, 2 * 3 * 20)
    assert count_parts(names, "xview60") == (2 * 2 * 40, 2 * 1 * 40)
    assert count_parts(names, "xset120") == (1 * 3 * 40 * 2, 1 * 3 * 40 * 2)
    assert count_parts(names, "xsub60", frozenset({"S001C001P001R001A001"})) == (2 * 3 * 20 - 1, 2 * 3 * 20)


@pytest.mark.skipif(NAMES is None, reason="the published counts are not checked: NTU_NAMES names no official list")
@pytest.mark.parametrize("protocol", COUNTS)
def test_the_published_counts_follow_from_the_official_list(protocol: str) -> None:
    assert NAMES is not None
    assert count_parts(Path(NAMES).read_text().split(), protocol) == COUNTS[protocol]


@pytest.mark.parametrize(
    ("source", "write"), [("ntu", write_ntu), ("mib", write_mib), ("ctrgcn", write_ctrgcn), ("pyskl", write_pyskl)]
)
def test_each_form_gives_the_motion_that_was_written(
    source: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    section = make_section(source, write(tmp_path))
    motion = load_motion(section, COCO)
    expected = {tuple(xyz[0, 9].round(4).tolist()): label for _, label, xyz in list_sequences()}
    for number, label in enumerate(motion.labels.tolist()):
        bodies = motion.read(number)
        assert expected[tuple(bodies[0, 0, 9].astype(np.float32).round(4).tolist())] == label
    assert set(motion.parts) == {"train", "test"}
    train, validation, test = (Sequences(motion, one, section, COCO) for one in ("train", "validation", "test"))
    assert len(train) + len(validation) + len(test) == 48
    assert not train.find_groups() & (validation.find_groups() | test.find_groups())


def test_two_bodies_become_six_streams_and_the_second_is_zero_where_nobody_is(tmp_path: Path) -> None:
    section = make_section("ntu", write_ntu(tmp_path), bodies=2)
    motion = load_motion(section, COCO)
    train = Sequences(motion, "train", section, COCO)
    shown = [
        bool(train.make(index, np.random.default_rng(0)).inputs["second_joint"].any()) for index in range(len(train))
    ]
    assert sum(shown) == 1


def test_names_of_a_skip_list_are_left_out_and_said(tmp_path: Path) -> None:
    folder = write_ntu(tmp_path)
    (tmp_path / "skip.txt").write_text(f"302 samples are incomplete\n{list_sequences()[0][0]}\n")
    assert len(read_skip_list(tmp_path / "skip.txt")) == 1
    motion = load_motion(make_section("ntu", folder, skip_list=str(tmp_path / "skip.txt")), COCO)
    assert len(motion.labels) == 47
    assert "1 file left out" in motion.notes[0]
    assert "not the published 40,091 and 16,487" in motion.notes[1]


def test_positions_in_pixels_become_a_person_who_stands_upright(tmp_path: Path) -> None:
    motion = load_motion(make_section("pyskl", write_pyskl(tmp_path, axes=2)), COCO)
    bodies, xyz = motion.read(0), list_sequences()[0][2]
    assert not bodies[..., 2].any()
    ratio = bodies[0, 0, :, 1] / -xyz[0, :, 1]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_a_stored_stream_that_its_joints_do_not_give_is_refused(tmp_path: Path) -> None:
    write_mib(tmp_path)
    np.save(tmp_path / "train_bone.npy", np.load(tmp_path / "train_joint.npy"))
    with pytest.raises(UserError, match="is not the stream of its joints"):
        load_motion(make_section("mib", tmp_path), COCO)


class Code:
    """What a hostile pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


def test_a_pickle_with_code_is_refused_and_nothing_in_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(([Code()], [1])))
    with pytest.raises(UserError, match="nothing in it was run"):
        read_plain_pickle(path)
    assert not (tmp_path / "RAN").exists()


def test_labels_beyond_the_classes_and_another_layout_are_refused(tmp_path: Path) -> None:
    write_mib(tmp_path)
    with pytest.raises(UserError, match="name all classes"):
        load_motion(make_section("mib", tmp_path, classes=CLASSES[:2]), COCO)
    with pytest.raises(UserError, match="coco17 has 17"):
        load_motion(make_section("mib", tmp_path, skeleton="ntu25"), SKELETONS["ntu25"])


def test_real_motion_becomes_skeleton_files_with_official_names_and_25_joints(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from demo.skeleton.write_ntu import HERE, write_files

    assert write_files(tmp_path, most=8) == 8
    own = SkeletonSection(data_root=str(HERE))
    section = SkeletonSection(data_source="ntu", data_root=str(tmp_path), unit="m", skeleton="ntu25")
    found = load_motion(section, SKELETONS["ntu25"])
    known = load_motion(own, SKELETONS["uiprmd22"])
    assert found.names[0] == "S001C001P001R001A002"  # a deep squat that is done right
    assert set(found.labels.tolist()) <= set(range(20))
    assert found.labels[0] == known.labels[0]
    written, read = known.read(0)[0] / 1000.0, found.read(0)[0]
    for ntu, uiprmd in ((0, 0), (13, 15), (8, 11), (20, 2), (24, 13)):  # waist, left knee, right shoulder, chest, thumb
        assert read[:, ntu] == pytest.approx(written[:, uiprmd], abs=1e-6)
