"""GazeFollow and VideoAttentionTarget in their true form: what is read, what is left out and named, what is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from gaze_trees import HEIGHT, WIDTH, make_gazefollow, make_row, make_vat
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.gaze.layouts import read_scenes, smooth_boxes
from sharpstudent.tasks.gaze.scenes import GazeScenes, draw_target
from sharpstudent.tasks.gaze.section import GazeSection
from sharpstudent.tasks.gaze.task import GazeTask
from workplace import ROOT

FRAMES = Path(os.environ.get("GAZE_DATA", ROOT.parent / "shared" / "data" / "gaze_frames"))
PLAIN = {"crop": 0.0, "flip": 0.0, "jitter": 0.0, "image_size": 64}


def read(root: Path, layout: str, split: str, every: int = 1):
    return read_scenes(root, layout, split, every=every, smooth=11)


@pytest.fixture(scope="module")
def gazefollow(tmp_path_factory) -> Path:
    return make_gazefollow(tmp_path_factory.mktemp("gazefollow"))


def test_gazefollows_training_has_a_row_a_head_and_its_test_ten_marks_a_head(gazefollow: Path) -> None:
    train, notes = read(gazefollow, "gazefollow", "train")
    assert (len(train), [len(scene.heads) for scene in train], notes) == (8, [2] * 8, ())  # inout -1 is dropped
    assert train[0].heads[1].points == ()
    test, _ = read(gazefollow, "gazefollow", "test")
    assert [[len(head.points) for head in scene.heads] for scene in test] == [[10]] * 3


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((40, 10, 20, 30), "swapped"),
        ((20, 10, 20.5, 30), "less than a pixel"),
        ((-30, 10, -5, 30), "outside the picture"),
        ((0.1, 0.1, 0.3, 0.4), "normalised"),
    ],
)
def test_a_broken_row_is_left_out_and_named(tmp_path: Path, box: tuple[float, ...], reason: str) -> None:
    table = make_gazefollow(tmp_path, train=2) / "train_annotations_release.txt"
    cells = make_row("train/00000000/00000001.jpg", 7, 0.5, (0.5, 0.5), 1).split(",")
    cells[10:14] = map(str, box)
    table.write_text(table.read_text() + ",".join(cells) + "\nonly,three,cells\n")
    scenes, (note,) = read(tmp_path, "gazefollow", "train")
    assert sum(len(scene.heads) for scene in scenes) == 4
    assert "2 of 7 rows are left out" in note
    assert reason in note
    assert "line 7" in note
    assert "3 columns" in note


def test_boxes_that_are_all_normalised_are_refused(tmp_path: Path) -> None:
    rows = [make_row(f"{n}.jpg", n, 0.5, (0.5, 0.5), 1).split(",") for n in range(3)]
    for cells in rows:
        cells[10:14] = ["0.1", "0.1", "0.2", "0.3"]
    (tmp_path / "train_annotations_release.txt").write_text("\n".join(map(",".join, rows)))
    with pytest.raises(UserError, match=r"in 0\.\.1, and pixels are expected"):
        read(tmp_path, "gazefollow", "train")


def test_labels_that_are_missing_are_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match=r"readme\.txt"):
        read(tmp_path, "vat", "train")


def test_vat_reads_people_of_a_frame_together_and_every_so_many_frames(tmp_path: Path) -> None:
    make_vat(tmp_path)
    scenes, notes = read(tmp_path, "vat", "train", every=6)
    assert (len(scenes), notes) == (9, ())  # 14 frames, every sixth, of three shows
    assert {len(scene.heads) for scene in scenes} == {2}
    assert {scene.group for scene in scenes} == {"Show 0", "Show 1", "Show 2"}
    sample = GazeScenes(scenes, GazeSection(layout="vat", data_root=str(tmp_path), **PLAIN), train=True).make(
        0, np.random.default_rng(0)
    )
    assert sample.targets["points"][0, 0].tolist() == pytest.approx([70 / WIDTH, 40 / HEIGHT])
    train, validation = GazeTask(GazeSection(layout="vat", data_root=str(tmp_path))).open_data("train", "validation")
    assert not train.find_groups() & validation.find_groups()


def test_boxes_are_averaged_over_eleven_frames_with_the_ends_repeated() -> None:
    boxes = np.arange(80.0).reshape(20, 4) ** 1.5
    smooth = smooth_boxes(boxes, 11)
    padded = np.concatenate([boxes[:1]] * 5 + [boxes] + [boxes[-1:]] * 5)
    assert np.allclose(smooth, [padded[i : i + 11].mean(0) for i in range(20)])


def test_the_target_is_a_bell_of_height_1_and_deviation_3() -> None:
    target = draw_target((0.5, 0.25), 3.0)
    assert target[16, 32] == 1.0
    assert target[16, 35] == pytest.approx(np.exp(-0.5))
    assert draw_target((1.0, 1.0), 3.0)[63, 63] == 1.0


def test_cropped_and_mirrored_samples_keep_heads_and_marks_within(gazefollow: Path) -> None:
    scenes, _ = read(gazefollow, "gazefollow", "train")
    section = GazeSection(data_root=str(gazefollow), crop=1.0, flip=1.0, jitter=0.0, image_size=64)
    plain = GazeScenes(scenes, GazeSection(data_root=str(gazefollow), **{**PLAIN, "flip": 1.0}), train=True)
    before = GazeScenes(scenes, section, train=False).make(1, np.random.default_rng(0))
    mirrored = plain.make(1, np.random.default_rng(0))
    assert np.allclose(mirrored.inputs["box"][:, [2, 0]], 1 - before.inputs["box"][:, [0, 2]])
    for seed in range(20):
        sample = GazeScenes(scenes, section, train=True).make(1, np.random.default_rng(seed))
        box, points = sample.inputs["box"], sample.targets["points"][:, 0]
        assert ((box >= 0) & (box <= 1)).all()
        assert (box[:, 2:] > box[:, :2]).all()
        # A target keeps its side of the head in units of the head's own width.
        for one, other, sign in ((before, box, -1),):
            ratio = [
                (marks[:, 0] - (b[:, 0] + b[:, 2]) / 2) / (b[:, 2] - b[:, 0])
                for marks, b in ((one.targets["points"][:, 0], one.inputs["box"]), (points, other))
            ]
            assert np.allclose(ratio[0], sign * ratio[1], atol=0.05)


def test_a_box_outside_its_picture_is_found_when_the_picture_is_read(gazefollow: Path, tmp_path: Path) -> None:
    cells = make_row("train/00000000/00000001.jpg", 7, 0.5, (0.5, 0.5), 1).split(",")
    cells[10:14] = ["500", "10", "520", "30"]
    (tmp_path / "train_annotations_release.txt").write_text(",".join(cells))
    (tmp_path / "train").symlink_to(gazefollow / "train")
    scenes, _ = read(tmp_path, "gazefollow", "train")
    samples = GazeScenes(scenes, GazeSection(data_root=str(tmp_path), **PLAIN), train=False)
    with pytest.raises(UnreadableSample, match="head 1: the head box 500, 10, 520, 30 lies outside the picture"):
        samples.make(0, np.random.default_rng(0))


def test_preprocessed_json_is_read_and_an_empty_list_of_heads_named(tmp_path: Path) -> None:
    head = {"bbox": [10, 10, 30, 30], "gazex_norm": [0.5, 0.6], "gazey_norm": [0.5, 0.6], "inout": 1}
    entries = [{"path": f"{n}.jpg", "width": 96, "height": 64, "heads": [head] * n} for n in range(3)]
    (tmp_path / "test_preprocessed.json").write_text(json.dumps(entries))
    scenes, (note,) = read(tmp_path, "gazefollow", "test")
    assert [len(scene.heads) for scene in scenes] == [1, 2]
    assert scenes[0].heads[0].points == ((0.5, 0.5), (0.6, 0.6))
    assert "0.jpg: has an empty list of heads" in note
    (tmp_path / "test_preprocessed.json").write_text('[{"path": "a.jpg"}]')
    with pytest.raises(UserError, match="picture 0: has another form"):
        read(tmp_path, "gazefollow", "test")


def test_real_frames_of_a_film_are_read_and_answered(tmp_path: Path) -> None:
    """A smoke test: a new model knows nothing, and 21 frames of one scene would not show skill."""
    clips = sorted((FRAMES / "annotations" / "test").glob("*/*"))
    if not clips:
        pytest.skip("no frames of a film: GAZE_DATA names no folder with annotations/test/SHOW/CLIP and frames/")
    (tmp_path / "annotations").symlink_to(FRAMES / "annotations")
    images = tmp_path / "images" / clips[0].parent.name
    images.mkdir(parents=True)
    (images / clips[0].name).symlink_to(FRAMES / "frames")
    task = GazeTask(GazeSection.model_validate({**PLAIN, "data_root": str(tmp_path), "layout": "vat"}))
    (samples,) = task.open_data("test")
    made = [samples.make(index, np.random.default_rng(0)) for index in range(len(samples))]
    batch = task.collate(made, [samples.group(index) for index in range(len(samples))])
    model = task.build_student(ModelSpec("gazelle_test_vit", {"dim": 32, "layers": 1, "input_size": 64})).eval()
    table = task.rows(model(**batch.inputs), batch)
    looks = table["looks"] > 0
    assert (len(samples), len(looks), looks.sum()) == (21, 42, 35)
    assert np.isfinite(table["auc"][looks]).all()
    assert np.isfinite(table["inside"]).all()


@pytest.mark.slow
def test_a_table_as_large_as_gazefollows_is_split_in_seconds(tmp_path: Path) -> None:
    rows = [make_row(f"train/{n // 1000:08}/{n:08}.jpg", n, 0.5, (0.5, 0.5), 1) for n in range(125_557)]
    (tmp_path / "train_annotations_release.txt").write_text("\n".join(rows))
    begun = time.process_time()
    train, validation = GazeTask(GazeSection(data_root=str(tmp_path))).open_data("train", "validation")
    assert len(train) + len(validation) == 125_557
    assert time.process_time() - begun < 20
