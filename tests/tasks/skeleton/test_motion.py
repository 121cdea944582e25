"""Sequences: closed forms of what is done to them, people held out, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_motion import CLASSES, LAYOUT, make_motion, write_motion
from sharpstudent.task import UnreadableSample, UserError
from sharpstudent.tasks.skeleton.formats import load_motion
from sharpstudent.tasks.skeleton.graph import SKELETONS, build_skeleton
from sharpstudent.tasks.skeleton.motion import read_checked
from sharpstudent.tasks.skeleton.movements import augment, build_streams, cut, mirror, resample, reverse, rotate
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.sequences import Sequences
from workplace import ROOT

COCO = SKELETONS["coco17"]


def make_section(path: Path, **more: Any) -> SkeletonSection:
    keys = {"data_source": "npz", "unit": "m", "skeleton": "coco17", "classes": CLASSES, "frames": 8}
    held_out = {"validation_subjects": ("5",), "test_subjects": ("6",)}
    return SkeletonSection(**{**keys, **held_out, "data_root": str(path), **more})


def test_velocity_is_the_next_frame_minus_this_one_and_bone_is_child_minus_parent() -> None:
    skeleton, xyz = SKELETONS["coco17"], np.random.default_rng(1).normal(size=(5, 17, 3))
    streams = build_streams(xyz[None], skeleton)
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


def test_part_of_both_ends_is_cut_off_and_the_rest_is_evenly_resampled(tmp_path: Path) -> None:
    section = make_section(tmp_path, crop=0.5)
    line = np.arange(41.0)[None, :, None, None] * np.ones((2, 1, 17, 3))
    found = [cut(line, section, np.random.default_rng(seed))[:, :, 0, 0] for seed in range(50)]
    for times in found:
        np.testing.assert_allclose(times[0], np.linspace(times[0, 0], times[0, -1], 8))
        np.testing.assert_array_equal(times[0], times[1])  # both bodies at the same times
    ends = np.array([(times[0, 0], times[0, -1]) for times in found])
    assert ends.min() >= 0.0
    assert ends.max() <= 40.0
    assert 20.0 <= np.ptp(ends, axis=1).min() < 22.0  # half of it may go
    assert np.ptp(ends[:, 0]) > 10.0  # at either end
    np.testing.assert_allclose(cut(line, section, None)[0, :, 0, 0], np.linspace(0.0, 40.0, 8))


def test_scale_multiplies_every_position_by_one_number_and_a_turn_keeps_every_distance(tmp_path: Path) -> None:
    bodies = np.random.default_rng(6).normal(size=(2, 6, 17, 3))
    section = make_section(tmp_path, rotation=0.0, scale=0.3, noise=0.0)
    drawn = [augment(bodies, COCO, section, np.random.default_rng(seed)) / bodies for seed in range(60)]
    assert max(np.ptp(one) for one in drawn) < 1e-9
    factors = [one.mean() for one in drawn]
    assert 0.7 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.3
    section = make_section(tmp_path, rotation=90.0, scale=0.0, noise=0.0)
    turned = augment(bodies, COCO, section, np.random.default_rng(1))
    np.testing.assert_allclose(turned[..., 1], bodies[..., 1])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(bodies, axis=-1))


def test_noise_of_joints_has_the_deviation_of_the_config_and_is_drawn_for_each(tmp_path: Path) -> None:
    bodies = np.ones((1, 100, 17, 3))
    section = make_section(tmp_path, rotation=0.0, scale=0.0, noise=0.02)
    noise = augment(bodies, COCO, section, np.random.default_rng(7)) - bodies
    assert noise.std() == pytest.approx(0.02, rel=0.05)
    assert abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[0, :, 0, 0], noise[0, :, 1, 0])[0, 1]) < 0.3
    section = make_section(tmp_path, rotation=0.0, scale=0.0, noise=0.0)
    np.testing.assert_array_equal(augment(bodies, COCO, section, np.random.default_rng(7)), bodies)


def test_a_mirror_swaps_left_and_right_and_mirrored_twice_nothing_has_changed() -> None:
    xyz = np.random.default_rng(2).normal(size=(4, 17, 3))
    found = mirror(xyz, COCO)
    np.testing.assert_array_equal(found[:, 9], xyz[:, 10] * [-1.0, 1.0, 1.0])  # the left wrist is where the right was
    np.testing.assert_array_equal(found[:, 0], xyz[:, 0] * [-1.0, 1.0, 1.0])  # the nose stays in the middle
    np.testing.assert_array_equal(mirror(found, COCO), xyz)


@pytest.mark.parametrize("name", SKELETONS)
def test_the_mirror_of_a_layout_has_the_bones_of_the_layout(name: str) -> None:
    skeleton = SKELETONS[name]
    places, parents = skeleton.mirror, skeleton.parents
    bones = {frozenset((joint, parent)) for joint, parent in enumerate(parents) if joint != parent}
    assert {frozenset(places[joint] for joint in bone) for bone in bones} == bones


def test_a_reversed_movement_has_negated_velocities_and_the_same_bones() -> None:
    xyz = np.random.default_rng(3).normal(size=(1, 6, 17, 3))
    forth, back = (build_streams(one, COCO) for one in (xyz, reverse(xyz)))
    np.testing.assert_allclose(back["velocity"][0, :, :-1], -forth["velocity"][0, :, -2::-1], atol=1e-6)
    np.testing.assert_allclose(back["bone"], forth["bone"][:, :, ::-1], atol=1e-6)


def test_a_second_body_that_is_absent_stays_absent_and_moves_with_the_first_where_it_is_there(tmp_path: Path) -> None:
    section = make_section(tmp_path, mirror=1.0, reverse=1.0, noise=0.0)
    bodies = np.random.default_rng(4).normal(size=(2, 6, 17, 3))
    bodies[1, :2] = 0.0
    moved = augment(bodies, COCO, section, np.random.default_rng(5))
    assert not moved[1, -2:].any()
    between, before = moved[1, 0] - moved[0, 0], bodies[1, -1] - bodies[0, -1]
    scale = np.linalg.norm(between) / np.linalg.norm(before)
    assert 0.9 <= scale <= 1.1
    np.testing.assert_allclose(between[:, 1], scale * before[COCO.mirror, 1], rtol=1e-9)
    streams = build_streams(moved, COCO)
    assert not streams["second_joint"][0, :, -2:].any()
    assert not streams["second_velocity"][0, :, 3:].any()


def test_people_are_held_out_and_evaluated_samples_do_not_change(tmp_path: Path) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"))
    train, validation, test = (
        Sequences(load_motion(section, COCO), one, section, COCO) for one in ("train", "validation", "test")
    )
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
        ("nan", "sequence 0 has positions that are not finite"),
        ("zero", "frame without a body"),
        ("one frame", "leave out sequences of one frame"),
        ("joints", "has other joints than the layout coco17"),
        ("millimetres", "--set data.unit=mm"),
    ],
)
def test_data_that_cannot_be_right_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_motion(make_section(write_motion(tmp_path / "m.npz", **change(name))), COCO)


def test_a_layout_of_ones_own_is_read_from_a_file_and_loose_joints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(LAYOUT))
    mine = build_skeleton(str(path))
    assert (mine.parents, mine.root, mine.mirror) == ((0, 0, 0, 0), 0, [0, 2, 1, 3])
    assert build_skeleton(mine.to_json()) == mine
    path.write_text(json.dumps({**LAYOUT, "bones": LAYOUT["bones"][:2]}))
    with pytest.raises(UserError, match="no bone connects with the root"):
        build_skeleton(str(path))


def test_the_lines_of_the_docs_make_data_of_ones_own_with_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/skeleton.md").read_text()
    layout, code = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("json", "python"))
    (tmp_path / "mine.json").write_text(layout[0])
    skeleton, made = build_skeleton(str(tmp_path / "mine.json")), make_motion()
    monkeypatch.chdir(tmp_path)
    given = {"positions": made["xyz"][:, [0, 13, 14, 9]], "offsets": made["offsets"], "labels": made["label"]}
    exec(code[0], {**given, "people": made["subject"]})
    section = make_section(tmp_path / "mine.npz", skeleton="mine.json")
    train, test = (Sequences(load_motion(section, skeleton), one, section, skeleton) for one in ("train", "test"))
    assert (len(train), len(test)) == (32, 8)
    assert train.make(0, np.random.default_rng(1)).inputs["bone"].shape == (1, 3, 8, 4)


def test_an_object_array_is_refused_without_running_its_code(tmp_path: Path) -> None:
    path = write_motion(tmp_path / "m.npz", subject=np.array([{"a": 1}] * 48, dtype=object))
    with pytest.raises(UserError, match="is no file of sequences"):
        load_motion(make_section(path), COCO)


def test_one_sequence_in_another_unit_is_named(tmp_path: Path) -> None:
    made = make_motion()
    xyz = made["xyz"].copy()
    xyz[made["offsets"][5] : made["offsets"][6]] *= 1000.0
    with pytest.raises(UserError, match=r"sequence 5.*another unit"):
        load_motion(make_section(write_motion(tmp_path / "m.npz", xyz=xyz)), COCO)


def test_a_file_in_another_unit_that_turns_up_during_a_run_is_named(tmp_path: Path) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"))
    motion = load_motion(section, COCO)
    odd = replace(motion, read=lambda number: motion.read(number) * (1000.0 if number == 3 else 1.0))
    assert read_checked(odd, 2, COCO, "m").shape[2:] == (17, 3)
    with pytest.raises(UnreadableSample, match="another unit than m"):
        read_checked(odd, 3, COCO, "m")


def test_a_person_in_two_splits_is_refused(tmp_path: Path) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"), test_subjects=("5", "6"))
    with pytest.raises(UserError, match="has people of"):
        Sequences(load_motion(section, COCO), "test", section, COCO)


@pytest.mark.parametrize("key", ["validation_subjects", "test_subjects"])
def test_a_mistyped_person_is_refused_before_the_right_one_is_trained_on(tmp_path: Path, key: str) -> None:
    section = make_section(write_motion(tmp_path / "m.npz"), **{key: ("4", "66")})
    with pytest.raises(UserError, match=f"{key}: names people whom the data does not have") as raised:
        Sequences(load_motion(section, COCO), "train", section, COCO)
    assert "66" in str(raised.value)


def test_a_sequence_of_one_frame_is_counted_from_offsets_not_read_past_its_end(tmp_path: Path) -> None:
    made = make_motion()
    with pytest.raises(UserError, match="do not fit together"):
        load_motion(make_section(write_motion(tmp_path / "m.npz", offsets=made["offsets"] + 1)), COCO)
