"""Rendered scenes: heads are turned as they should be, labels are where things are, people stand in one part only."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.gaze import render_scenes
from sharpstudent.tasks.gaze.baselines import Heads, place_peaks
from sharpstudent.tasks.gaze.layouts import read_scenes
from sharpstudent.tasks.gaze.portraits import SIDE, Portrait, compute_ellipsoid, find_facing, list_photos
from sharpstudent.tasks.gaze.rendered_scene import PICTURE
from sharpstudent.tasks.gaze.task import GazeTask
from sharpstudent.tasks.gaze.turned_head import draw_head, turn_towards

AXES = (40.0, 60.0, 45.0)


def make_portrait(person: str) -> Portrait:
    """An ellipsoid with a red spot where the nose is."""
    image = np.full((SIDE, SIDE, 3), 120, np.uint8)
    cv2.circle(image, (SIDE // 2, SIDE // 2), 8, (255, 0, 0), -1)
    return Portrait(person, image, compute_ellipsoid(AXES), AXES, np.eye(3))


def find_spot(direction: tuple[float, float, float]) -> np.ndarray:
    """Where the red spot of a turned head is drawn, from its middle [px]."""
    drawn, covered = draw_head(make_portrait("one"), np.array(direction))
    red = (drawn[..., 0].astype(int) - drawn[..., 1] > 100) & (covered > 0.5)
    rows, columns = np.nonzero(red)
    return np.array([columns.mean(), rows.mean()]) - SIDE / 2


@pytest.mark.parametrize(
    "direction", [(0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (-1.0, 0.0, 1.5), (0.0, 1.0, 1.5), (0.6, -0.5, 1.0)]
)
def test_the_nose_of_a_turned_head_lies_along_its_direction(direction: tuple[float, float, float]) -> None:
    unit = np.array(direction) / np.linalg.norm(direction)
    np.testing.assert_allclose(find_spot(direction), AXES[2] * unit[:2], atol=2.0)


def test_a_rotation_takes_the_nose_to_the_direction_and_keeps_the_head_level() -> None:
    for direction in np.random.default_rng(0).normal(size=(20, 3)):
        rotation = turn_towards(direction)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(rotation @ [0, 0, 1], direction / np.linalg.norm(direction), atol=1e-12)
        assert abs((rotation @ [1, 0, 0])[1]) < 1e-12


def test_the_facing_of_a_mesh_is_read_from_eyes_forehead_and_chin() -> None:
    points = np.zeros((468, 3), np.float32)
    points[33], points[263], points[10], points[152] = (-30, 0, 0), (30, 0, 0), (0, -50, 0), (0, 60, 0)
    np.testing.assert_allclose(find_facing(points), np.eye(3), atol=1e-6)
    points[263] = (30 * np.cos(0.3), 0, -30 * np.sin(0.3))  # its left eye is nearer to the camera
    points[33] = -points[263]
    assert np.degrees(np.arccos(find_facing(points)[2, 2])) == pytest.approx(np.degrees(0.3), abs=0.5)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    casts = render_scenes.split_people([make_portrait(f"p{number:02}") for number in range(12)], 0)
    for part, cast in casts.items():
        render_scenes.write_pictures(render_scenes.Place(root, part, 224, 0), cast, 3)
    return root


def test_nobody_stands_in_two_parts_and_a_validation_part_is_used(written: Path) -> None:
    people = {
        part: {head["person"] for entry in json.loads(text.read_text()) for head in entry["heads"]}
        for part in ("train", "validation", "test")
        for text in [written / f"{part}_preprocessed.json"]
    }
    assert not people["train"] & people["test"]
    assert not people["validation"] & (people["train"] | people["test"])
    task = GazeTask(GazeTask.Section(data_root=str(written), image_size=64))
    assert [len(samples) for samples in task.open_data("train", "validation", "test")] == [3, 3, 3]


def test_tables_and_json_say_the_same(written: Path, tmp_path: Path) -> None:
    scenes, notes = read_scenes(written, "gazefollow", "train", every=1, smooth=1)
    assert notes == ()
    (tmp_path / "train_annotations_release.txt").write_bytes((written / "train_annotations_release.txt").read_bytes())
    again, notes = read_scenes(tmp_path, "gazefollow", "train", every=1, smooth=1)
    assert notes == ()
    for one, other in zip(scenes, again, strict=True):
        for head, same in zip(one.heads, other.heads, strict=True):
            np.testing.assert_allclose(head.box, same.box)
            np.testing.assert_allclose(head.points, same.points)


def test_everybody_looks_at_one_of_the_objects(written: Path) -> None:
    train, test = GazeTask(GazeTask.Section(data_root=str(written))).open_data("train", "test")
    heads = Heads(test)  # pyright: ignore[reportArgumentType]
    far = np.linalg.norm(heads.objects - heads.target[:, None], axis=2)
    assert np.nanmin(far, axis=1).max() < 1e-6
    peaks = place_peaks(Heads(train), heads)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(peaks["the true ray, with the objects"], heads.target)


def test_clips_have_the_form_of_videos(tmp_path: Path) -> None:
    cast = [make_portrait("a"), make_portrait("b")]
    render_scenes.write_clips(render_scenes.Place(tmp_path, "train", PICTURE, 1), cast, 2)
    (tmp_path / "train_preprocessed.json").unlink()
    scenes, notes = read_scenes(tmp_path, "vat", "train", every=1, smooth=1)
    assert notes == ()
    assert len(scenes) == 2 * render_scenes.FRAMES
    assert {bool(head.points) for scene in scenes for head in scene.heads} == {True, False}
    assert all(scene.path.is_file() for scene in scenes)


def test_photos_are_listed_with_their_people(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert [person for _, person in list_photos([tmp_path])] == ["a", "b"]
    (tmp_path / "faces.csv").write_text("path,person\na.jpg,one\nb.jpg,one\n")
    assert [person for _, person in list_photos([tmp_path])] == ["one", "one"]
    (tmp_path / "faces.csv").write_text("name,person\na.jpg,one\n")
    with pytest.raises(UserError, match=r"the columns path \(or file\) and person"):
        list_photos([tmp_path])
