"""predict.py on pictures and videos: heads are found or given, a picture passes once, people are followed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from gaze_trees import draw_picture, make_gazefollow
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import InputSource
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.detect import DetectedFace
from sharpstudent.tasks.gaze import gaze_input
from sharpstudent.tasks.gaze.find_heads import widen
from sharpstudent.tasks.gaze.gaze_answer import compute_spread, describe_gaze
from sharpstudent.tasks.gaze.gaze_input import read_boxes, read_input
from sharpstudent.tasks.gaze.model import GazeModel
from sharpstudent.tasks.gaze.task import GazeTask
from test_gaze_runs import make_config
from workplace import Workplace


class TwoFaces:
    """Finds two faces, which move a little from frame to frame."""

    def __init__(self) -> None:
        self.frame = 0

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        self.frame += 1
        boxes = [(10 + self.frame, 10, 30 + self.frame, 34), (60 - self.frame, 12, 80 - self.frame, 36)]
        order = boxes if self.frame % 2 else boxes[::-1]  # the detector promises no order
        return [DetectedFace(np.array(box, np.float32), 0.9, np.zeros((5, 2), np.float32)) for box in order]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    draw_picture(tmp_path / "photo.png", 1)
    return tmp_path / "photo.png"


@pytest.fixture
def _faces(monkeypatch: pytest.MonkeyPatch):
    gaze_input._list_idle.cache_clear()
    monkeypatch.setattr(gaze_input, "load_detector", lambda least_side: TwoFaces())
    yield
    gaze_input._list_idle.cache_clear()


@pytest.mark.usefixtures("_faces")
def test_all_heads_of_a_picture_pass_the_model_once(photo: Path) -> None:
    task = GazeTask(GazeTask.Section(image_size=32))
    (sample,) = read_input(InputSource("photo", photo), side=32)
    assert sample.inputs["image"].shape == (1, 32, 32, 3)
    assert len(sample.rows["id"]) == 2
    model, seen = GazeModel("gazelle_test_vit", side=32, inout=True, options={"dim": 32, "layers": 1}).eval(), []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    batch = task.collate([sample], ["photo"])
    outputs = model(batch.inputs["image"], batch.inputs["image_index"], batch.inputs["box"])
    assert seen == [1]
    assert outputs["heatmap"].shape == (2, 64, 64)


@pytest.mark.usefixtures("_faces")
def test_people_of_a_video_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 4.0, (96, 64))
    for _ in range(8):
        writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    source = InputSource("clip", path, options={"every_frame": True})
    tables = []
    for sample in read_input(source, side=32):
        columns = {name: np.empty(2, object) for name in sample.rows}
        for name, values in sample.rows.items():
            columns[name][:] = values
        maps = np.full((2, 64, 64), -4.0, np.float32)
        maps[:, 10, 20] = 4.0
        tables.append({**columns, "heatmap": maps, "inside": np.array([3.0, -3.0], np.float32)})
    *_, answer = describe_gaze(iter(tables), {})
    assert answer.details["people"] == 2
    column = {name: place for place, name in enumerate(answer.columns)}
    for person in (1, 2):
        lefts = [row[column["left"]] for row in answer.rows if row[column["person"]] == person]
        assert len(lefts) == 8
        assert max(np.abs(np.diff(lefts))) < 3  # another person is 30 px away
    assert answer.rows[0][column["gaze_x"]] == pytest.approx(96 * 20.5 / 64, abs=0.1)


def test_a_head_that_is_given_is_not_looked_for(photo: Path) -> None:
    source = InputSource("photo", photo, options={"heads": ["10,10,30,40", "50,8,70,30"]})
    (sample,) = read_input(source, side=32)
    np.testing.assert_allclose(sample.inputs["box"][0], [10 / 96, 10 / 64, 30 / 96, 40 / 64], rtol=1e-6)


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("30,10,10,40", "swapped"),
        ("0.1,0.1,0.3,0.4", "normalised"),
        ("10,10,10.2,40", "less than a pixel"),
        ("a", "no"),
    ],
)
def test_a_head_that_is_no_box_is_refused(word: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_boxes([word])


def test_a_head_outside_the_picture_is_refused(photo: Path) -> None:
    with pytest.raises(UnreadableSample, match="outside the picture of 96 x 64 px"):
        list(read_input(InputSource("photo", photo, options={"heads": ["200,10,230,40"]}), side=32))


def test_a_face_is_widened_to_its_head_within_the_picture() -> None:
    face = DetectedFace(np.array([10, 20, 30, 40], np.float32), 1.0, np.zeros((5, 2), np.float32))
    np.testing.assert_allclose(widen(face, (64, 96)), [7, 13, 33, 42])
    assert widen(face, (30, 25)).tolist() == [7, 13, 25, 30]


def test_the_spread_of_a_sharp_map_is_small() -> None:
    sharp = np.full((64, 64), -9.0, np.float32)
    sharp[5, 5] = 5
    assert compute_spread(sharp) == 1 / 4096
    assert compute_spread(np.zeros((64, 64), np.float32)) == 1.0


def test_predict_draws_where_each_looks(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    make_gazefollow(tmp_path / "tree", train=4, test=1)
    make_config(tmp_path, "gaze_gazefollow.json", "tree")
    assert place.call("train_student_only.py", "tree.json", "-n", "one").code == 0
    run = place.find_run("one")
    assert (run / "logs" / "first_batch.png").is_file()
    draw_picture(tmp_path / "photo.png", 1)
    ended = place.call("predict.py", str(run), "photo.png", "--out", "answers", "--head", "10,10,30,40")
    assert ended.code == 0, ended.err
    assert "1 person in 1 frame: 1 looks at" in ended.out
    (drawn,) = (tmp_path / "answers").rglob("*.gaze.jpg")
    assert cv2.imread(str(drawn)).shape == (64, 96, 3)
    (page,) = (tmp_path / "answers").glob("*.html")
    assert '<ul class="faces whole">' in page.read_text(encoding="utf-8")
    (answer,) = json.loads((tmp_path / "answers" / "predictions.json").read_text())["predictions"]
    assert answer["outcome"] == "looks"
    ended = place.call("evaluate_model.py", str(run), "--out", "report")
    assert ended.code == 0, ended.err
    assert "report/figures/best_and_worst.jpg" in ended.out.replace("\n", "")
    assert cv2.imread(str(tmp_path / "report" / "figures" / "best_and_worst.jpg")) is not None
