"""Answers about skeleton files and videos: windows, times, bounded memory, and pose models of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_motion import list_sequences, write_array, write_skeleton_file
from sharpstudent.core.types import InputSource
from sharpstudent.task import UnreadableSample, UserError
from sharpstudent.tasks.skeleton import skeleton_inputs
from sharpstudent.tasks.skeleton.actions import describe_actions
from sharpstudent.tasks.skeleton.from_pose import PoseModel
from sharpstudent.tasks.skeleton.graph import SKELETONS
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.skeleton_inputs import open_windows
from sharpstudent.tasks.skeleton.task import SkeletonTask
from workplace import ROOT

COCO = SKELETONS["coco17"]
FORM = SkeletonSection(skeleton="coco17", frames=8)
EXAMPLE = SkeletonTask(FORM).example_batch(1)


def open_file(path: Path, **options: Any) -> list[Any]:
    return list(open_windows(InputSource(path.name, path, options=options), FORM, COCO, EXAMPLE))


def write_long(folder: Path, frames: int = 50) -> Path:
    xyz = list_sequences()[0][2][:1] + np.linspace(0.0, 2.0, frames)[:, None, None]
    np.save(folder / "long.npy", xyz)
    return folder / "long.npy"


def test_a_file_is_one_sequence_and_the_same_from_either_form(tmp_path: Path) -> None:
    xyz = list_sequences()[0][2][:4]
    np.save(tmp_path / "one.npy", xyz)
    (one,), (other,) = open_file(tmp_path / "one.npy"), open_file(write_skeleton_file(tmp_path))
    np.testing.assert_allclose(one.inputs["joint"], other.inputs["joint"], atol=1e-6)
    assert other.rows["end"] == (pytest.approx(4 / 30),)


def test_windows_begin_every_hop_and_say_when(tmp_path: Path) -> None:
    found = open_file(write_long(tmp_path), window=16, hop=8, rate=10.0)
    assert [one.rows["start"][0] for one in found] == pytest.approx([0.0, 0.8, 1.6, 2.4, 3.2])
    assert found[-1].rows["end"] == (pytest.approx(4.8),)
    assert found[-1].rows["share"][0] == pytest.approx(48 / 50)


def test_a_window_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()
    original = skeleton_inputs._read_array_frames

    def count(*args: Any) -> Any:
        for frame in original(*args):
            read.append(1)
            yield frame

    monkeypatch.setattr(skeleton_inputs, "_read_array_frames", count)
    path = write_long(tmp_path)
    stream = open_windows(InputSource("x", path, options={"window": 16, "hop": 16}), FORM, COCO, EXAMPLE)
    next(stream)
    assert len(read) == 16


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda xyz: xyz * 1000.0, {}, "another unit. try --unit mm"),
        (lambda xyz: xyz, {"unit": "mm"}, "another unit. try --unit m"),
        (lambda xyz: xyz[:, :9], {}, "17, 3"),
        (lambda xyz: xyz * 0.0, {}, "shows no moving body"),
        (lambda xyz: xyz[:1], {}, "shows no moving body"),
        (lambda xyz: xyz * np.nan, {}, "not finite"),
    ],
)
def test_what_shows_no_body_of_this_layout_and_unit_is_refused(
    tmp_path: Path, change: Any, options: dict[str, Any], said: str
) -> None:
    np.save(tmp_path / "one.npy", change(np.load(write_array(tmp_path))))
    with pytest.raises(UnreadableSample, match=said):
        open_file(tmp_path / "one.npy", **options)


def test_neighbouring_windows_of_one_class_are_one_action_with_its_times() -> None:
    logits = np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    table = {"logits": logits, "start": np.array([0.0, 1.0, 2.0]), "end": np.array([2.0, 3.0, 4.0])}
    (answer,) = describe_actions(iter([table]), {}, ("walk", "sit"))
    assert [row[:3] for row in answer.rows] == [(0.0, 2.0, "walk"), (2.0, 4.0, "sit")]
    assert answer.details["windows"] == 3
    assert answer.details["ms_a_window"] >= 0.0


def write_pose_model(path: Path, form: str, joints: int) -> Path:
    """A model that finds every joint where the picture's red is brightest (heat maps), or at a fixed place."""
    onnx = pytest.importorskip("onnx", reason="makes a pose model: the extra onnx")
    helper, numbers, kind = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto
    if form == "heat maps":
        weight = np.zeros((joints, 3, 1, 1), np.float32)
        weight[:, 0] = 1.0
        nodes = [helper.make_node("Conv", ["picture", "w"], ["maps"])]
        given = helper.make_tensor_value_info("picture", kind.FLOAT, [1, 3, 32, 32])
        taken = [helper.make_tensor_value_info("maps", kind.FLOAT, [1, joints, 32, 32])]
        graph = helper.make_graph(nodes, "g", [given], taken, [numbers(weight, "w")])
    else:
        places = np.tile(np.array([0.25, 0.75, 1.0], np.float32), (1, 1, joints, 1))
        nodes = [helper.make_node("Identity", ["p"], ["places"])]
        given = helper.make_tensor_value_info("picture", kind.INT32, [1, 32, 32, 3])
        taken = [helper.make_tensor_value_info("places", kind.FLOAT, list(places.shape))]
        graph = helper.make_graph(nodes, "g", [given], taken, [numbers(places, "p")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def test_a_pose_model_with_heat_maps_or_places_finds_joints_in_pixels(tmp_path: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[32:34, 96:100] = 255
    found = PoseModel(write_pose_model(tmp_path / "maps.onnx", "heat maps", 17), 17).find(picture)
    np.testing.assert_allclose(found, np.tile([98.0, 33.0], (17, 1)), atol=2.5)
    found = PoseModel(write_pose_model(tmp_path / "places.onnx", "places", 17), 17).find(picture)
    np.testing.assert_allclose(found, np.tile([96.0, 16.0], (17, 1)), atol=1e-4)


def test_a_pose_model_of_other_joints_is_refused_and_a_video_without_one_says_so(tmp_path: Path) -> None:
    model = PoseModel(write_pose_model(tmp_path / "maps.onnx", "heat maps", 13), 17)
    with pytest.raises(UserError, match="finds no such joints"):
        model.find(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UnreadableSample, match="--pose-model"):
        open_file(tmp_path / "film.mp4")


@pytest.mark.parametrize(
    "words", ["--window 64", "--window 64 --hop 8", "--unit mm", "--pose-model pose.onnx", "--rate 15"]
)
def test_advised_options_of_predict_are_accepted(words: str) -> None:
    from sharpstudent.deploy.inputs import parse_prediction

    task, _ = parse_prediction(["model.pth", "a.skeleton", "--task", "skeleton", *words.split()])
    assert task is SkeletonTask


@pytest.mark.parametrize("words", ["--set data.unit=mm", "--set temperature=6.0"])
def test_advised_keys_of_a_run_are_accepted(words: str) -> None:
    from sharpstudent.config.cli import parse_command_line
    from sharpstudent.registry import find_task

    config = str(ROOT / "configs/skeleton.json")
    changed = parse_command_line([config, "-n", "mine", *words.split()], stage=1, find_task=find_task)
    assert changed.task is SkeletonTask
