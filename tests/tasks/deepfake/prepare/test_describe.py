"""What `describe` says and draws; pictures are checked by their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import write_manifest
from sharpstudent.tasks.deepfake.prepare.check_columns import open_faces
from sharpstudent.tasks.deepfake.prepare.describe import PAPER, TILE, build_sheet, choose_faces, draw_tile, run_describe
from sharpstudent.tasks.deepfake.prepare.describe_tables import WIDTH
from test_check import SIDE, PreparedSet, make_sound_set


@pytest.fixture
def sound(tmp_path: Path) -> PreparedSet:
    return make_sound_set(tmp_path / "a set é")


def describe(made: PreparedSet) -> tuple[Path, list[str]]:
    said: list[str] = []
    return run_describe(made.write(), say=said.append), said


def test_the_tables_say_what_is_in_the_set(sound: PreparedSet) -> None:
    sound.add(0, "train", 0)  # a second frame of a clip
    _, said = describe(sound)
    lines = [line.split() for text in said for line in text.splitlines()]
    assert ["train", "5", "3", "2", "4", "4", "1", "c23"] in lines
    assert ["all", "13", "7", "6", "12", "12", "1", "c23"] in lines
    assert ["Drawn", "fake", "Deepfakes", "c23", "6", "2", "2", "2", "0"] in lines
    (sizes,) = (text for text in said if "below 128 px" in text)
    share = np.mean([row.face_size < 128 for row in sound.rows if row.split == "val" and row.label == 1])
    assert f"{share:.1%}" in next(line for line in sizes.splitlines() if "val" in line and "fake" in line)


def test_the_text_is_plain_and_fits_a_log(sound: PreparedSet) -> None:
    _, said = describe(sound)
    for line in "\n".join(said[1:-1]).splitlines():
        assert len(line) <= WIDTH
        assert "\x1b" not in line
        assert line == line.rstrip()


def test_the_picture_lies_beside_the_manifest_and_shows_every_part(sound: PreparedSet) -> None:
    path, said = describe(sound)
    assert path == sound.folder / "describe.png"
    assert said[-1] == f"drawn: {path}"
    page = cv2.imread(str(path))
    assert page is not None
    assert page.shape[1] == 1540
    assert [part.heading for part in build_sheet(open_faces(sound.folder))] == [
        f"{split}, {label}: 2 of 2 faces" for split in ("train", "val", "test") for label in ("real", "fake")
    ]


def test_the_same_set_gives_the_same_picture_and_another_run_replaces_it(sound: PreparedSet) -> None:
    first = describe(sound)[0].read_bytes()
    assert describe(sound)[0].read_bytes() == first
    assert sorted(path.name for path in sound.folder.iterdir()) == ["crops", "describe.png", "manifest.arrow"]


def test_faces_that_cannot_be_read_are_empty_tiles_counted_by_reason(sound: PreparedSet) -> None:
    for place in (0, 1):
        (sound.folder / sound.rows[place].path).unlink()
    (sound.folder / sound.rows[2].path).write_bytes(b"x")
    _, said = describe(sound)
    assert "2 of the 12 faces drawn cannot be read: No such file or directory" in said
    assert any(text.startswith("1 of the 12 faces drawn cannot be read: has 1 bytes") for text in said)
    tiles = [tile for part in build_sheet(open_faces(sound.folder)) for tile in part.tiles]
    assert [tile.picture is None for tile in tiles].count(True) == 3


def test_the_sheet_shows_each_manipulation_person_and_clip_in_turn(sound: PreparedSet) -> None:
    first = sound.rows[2]
    for frame in range(100, 130):  # one clip with most of the frames
        sound.rows.append(first.__class__(**{**vars(first), "frame_index": frame, "phash": frame}))
    for number, manipulation in enumerate(("FaceSwap", "Face2Face")):
        sound.add(60 + number, "train", 1, manipulation=manipulation)
    faces = open_faces(sound.write())
    rows = np.flatnonzero((faces.split == 0) & (faces.label == 1))
    chosen = choose_faces(faces, rows, 4)
    assert {faces.row(index).manipulation for index in chosen} == {"Deepfakes", "FaceSwap", "Face2Face"}
    assert len({faces.row(index).identity for index in chosen}) == 4
    assert sorted(choose_faces(faces, rows, 1000)) == rows.tolist()


def test_a_tile_shows_the_face_in_its_middle_and_background_beyond_the_crop() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    landmarks = np.stack(np.meshgrid([160.0, 200.0], np.linspace(80, 120, 34)), axis=-1).reshape(-1, 2)
    tile = draw_tile(image, landmarks.astype(np.float32))
    assert (tile[:, -TILE // 5 :] == PAPER).all()  # right of the crop
    assert (tile[TILE // 2, : TILE // 3] == 0).all()


@pytest.mark.parametrize("points", [np.full((81, 2), np.nan), np.full((68, 2), 1e9), np.zeros((68, 2))])
def test_a_tile_with_unusable_landmarks_shows_the_whole_crop(points: np.ndarray) -> None:
    image, _ = draw_face(3, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tile = draw_tile(image, points.astype(np.float32))
    assert np.abs(tile.astype(int) - cv2.resize(image, (TILE, TILE))).mean() < 12


def test_strange_names_and_values_are_drawn_without_warnings(sound: PreparedSet) -> None:
    names = ("$x_1$ & \\frac", "[red]名前[/red]", "a" * 200, "%s {0} \n line")
    for place, name in enumerate(names):
        sound.change(place, clip_id=name, identity=name, group=name)
    sound.change(2, manipulation="$\\alpha$ [bold]", sharpness=0.0)
    sound.change(3, manipulation="名" * 40, sharpness=float("inf"), face_size=float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path, said = describe(sound)
    assert path.is_file()
    assert "[bold]" in "\n".join(said)


def test_a_set_of_one_face_can_be_described(sound: PreparedSet) -> None:
    del sound.rows[1:]
    path, _ = describe(sound)
    assert path.is_file()


def test_a_set_without_faces_or_without_a_manifest_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="manifest"):
        run_describe(tmp_path, say=lambda _: None)
    write_manifest(tmp_path / "manifest.arrow", [], {})
    with pytest.raises(UserError, match="holds no face"):
        run_describe(tmp_path, say=lambda _: None)
