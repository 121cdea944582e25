"""Sequences: closed forms of what is done to them, people held out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_motion import CLASSES, make_motion, write_motion
from sharpstudent.task import UserError
from sharpstudent.tasks.skeleton.graph import SKELETONS
from sharpstudent.tasks.skeleton.motion import Sequences, build_streams, load_motion, resample, rotate
from sharpstudent.tasks.skeleton.section import SkeletonSection


def make_section(path: Path, **more: Any) -> SkeletonSection:
    keys = {"data_source": "npz", "unit": "m", "skeleton": "coco17", "classes": CLASSES, "frames": 8}
    held_out = {"validation_subjects": ("5",), "test_subjects": ("6",)}
    return SkeletonSection(**{**keys, **held_out, "data_root": str(path), **more})


def test_velocity_is_the_next_frame_minus_this_one_and_bone_is_child_minus_parent() -> None:
    skeleton, xyz = SKELETONS["coco17"], np.random.default_rng(1).normal(size=(5, 17, 3))
    streams = build_streams(xyz, skeleton)
    np.testing.assert_allclose(streams["velocity"][0, :, 2, 9], xyz[3, 9] - xyz[2, 9], rtol=1e-5)
    assert not streams["velocity"][0, :, -1].any()
    np.testing.assert_allclose(streams["bone"][0, :, 2, 9], xyz[2, 9] - xyz[2, 7], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(streams["joint"][0, :, 2, 9], xyz[2, 9] - xyz[0, 0], rtol=1e-5, atol=1e-6)


def test_a_straight_movement_is_resampled_exactly() -> None:
    line = np.arange(7.0)[:, None, None] * np.ones((1, 2, 3))
    np.testing.assert_allclose(resample(line, 1.0, 5.5, 4)[:, 0, 0], [1.0, 2.5, 4.0, 5.5])
    np.testing.assert_allclose(resample(line, 0.0, 6.0, 7), line)


def test_a_quarter_turn_leaves_the_height_and_takes_z_to_x() -> None:
    np.testing.assert_allclose(rotate(np.array([[0.0, 2.0, 1.0]]), 90.0), [[1.0, 2.0, 0.0]], atol=1e-12)


def test_people_are_held_out_and_evaluated_samples_do_not_change(tmp_path: Path) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"))
    train, validation, test = (Sequences(load_motion(section), one, section) for one in ("train", "validation", "test"))
    assert [len(one) for one in (train, validation, test)] == [32, 8, 8]
    assert validation.find_groups() == {"subject 5"}
    assert not train.find_groups() & (validation.find_groups() | test.find_groups())
    one, other = (validation.make(0, np.random.default_rng(seed)).inputs["joint"] for seed in (1, 2))
    np.testing.assert_array_equal(one, other)
    one, other = (train.make(0, np.random.default_rng(seed)).inputs["joint"] for seed in (1, 2))
    assert not np.array_equal(one, other)


def change(name: str) -> dict[str, Any]:
    made = make_motion()
    xyz, offsets = made["xyz"].copy(), made["offsets"].copy()
    if name == "nan":
        xyz[3, 2, 1] = np.nan
    elif name == "zero":
        xyz[20] = 0.0
    elif name == "one frame":
        offsets[1] = 1
    elif name == "joints":
        xyz = xyz[:, :15]
    else:
        xyz = xyz * 1000.0
    return {"xyz": xyz, "offsets": offsets}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nan", "the first in sequence 0"),
        ("zero", "frames without a body"),
        ("one frame", "leave out sequences of one frame"),
        ("joints", "has other joints than coco17"),
        ("millimetres", 'write "unit": "mm" in the group data'),
    ],
)
def test_data_that_cannot_be_right_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_motion(make_section(write_motion(tmp_path / "m.npz", **change(name))))


def test_an_object_array_is_refused_without_running_its_code(tmp_path: Path) -> None:
    path = write_motion(tmp_path / "m.npz", subject=np.array([{"a": 1}] * 48, dtype=object))
    with pytest.raises(UserError, match="is no file of sequences"):
        load_motion(make_section(path))


def test_a_person_in_two_splits_is_refused(tmp_path: Path) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"), test_subjects=("5", "6"))
    with pytest.raises(UserError, match="has people of"):
        Sequences(load_motion(section), "test", section)


def test_a_sequence_of_one_frame_is_counted_from_offsets_not_read_past_its_end(tmp_path: Path) -> None:
    made = make_motion()
    with pytest.raises(UserError, match="do not fit together"):
        load_motion(make_section(write_motion(tmp_path / "m.npz", offsets=made["offsets"] + 1)))
