"""Pictures that lie on their side are turned by the detector's score; upright ones are left as they are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sharpstudent.modalities.faces.detect import DetectedFace, FaceDetector, find_upright

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "weights" / "face_detection_yunet_2023mar.onnx"
DATA = ROOT.parent / "shared" / "data"
WIDE = np.zeros((30, 50, 3), np.uint8)
WIDE[:10] = 200  # its upper edge is bright


class Scores:
    """Detects one face, with a score that depends on where the bright edge is: above, left, below, right.

    To turn the picture by 90 degrees counter-clockwise moves its upper edge to the left.
    """

    def __init__(self, above: float, left: float = 0, below: float = 0, right: float = 0, roll: float = 0) -> None:
        self.scores, self.roll, self.calls = {"above": above, "left": left, "below": below, "right": right}, roll, 0

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        self.calls += 1
        edges = {"above": image[0], "left": image[:, 0], "below": image[-1], "right": image[:, -1]}
        score = self.scores[next(name for name, edge in edges.items() if edge.min() == 200)]
        eye = np.array([10, 10], np.float32)
        across = 8 * np.array([np.cos(np.radians(self.roll)), np.sin(np.radians(self.roll))], np.float32)
        points = np.stack([eye, eye + across, eye, eye, eye])
        return [DetectedFace(np.array([0, 0, 20, 20], np.float32), score, points)] if score else []


def test_an_upright_face_costs_one_detection_and_changes_nothing() -> None:
    detector = Scores(0.94, 0.99, 0.99, 0.99)
    found = find_upright(detector, WIDE)
    assert found.image is WIDE
    assert (found.turned, found.doubt, len(found.faces), detector.calls) == (0, "", 1, 1)


@pytest.mark.parametrize(("edge", "degrees"), [("left", 90), ("below", 180), ("right", 270)])
@pytest.mark.parametrize("own", [0.0, 0.7, 0.9])
def test_a_picture_is_turned_to_where_its_face_scores_highest(edge: str, degrees: int, own: float) -> None:
    found = find_upright(Scores(own, **{edge: 0.94}), WIDE)
    assert (found.turned, found.doubt) == (degrees, "")
    assert found.faces[0].score == 0.94
    np.testing.assert_array_equal(found.image, np.rot90(WIDE, degrees // 90))


def test_where_two_turns_score_alike_nothing_is_guessed() -> None:
    found = find_upright(Scores(0.88, below=0.89), WIDE)
    assert found.faces == []
    assert "which way up its face is (score 0.88, turned by 180 degrees 0.89)" in found.doubt


def test_a_weak_face_stays_as_it_is_where_no_turn_scores_higher() -> None:
    found = find_upright(Scores(0.7, 0.6, 0.65), WIDE)
    assert (found.turned, found.doubt, len(found.faces)) == (0, "", 1)


def test_a_picture_without_a_face_is_not_turned_until_something_looks_like_one() -> None:
    found = find_upright(Scores(0.0, left=0.75), WIDE)
    assert (found.turned, found.doubt, found.faces) == (0, "", [])


@pytest.mark.parametrize(("roll", "score", "degrees"), [(0, 0.9, 90), (35, 0.9, 0), (-60, 0.9, 0), (35, 0.93, 90)])
def test_a_tilted_head_is_no_turned_picture(roll: float, score: float, degrees: int) -> None:
    assert find_upright(Scores(0.85, left=score, roll=roll), WIDE).turned == degrees


# --- The share that is found, on photos and films -------------------------------------------------------------------


def list_pictures(every: int) -> list[NDArray[np.uint8]]:
    """Every n-th photo of both sets; with every photo also 24 frames of each film; RGB."""
    photos = [path for name in ("faces_cc0", "faces_congress") for path in sorted((DATA / name / "photos").glob("*"))]
    pictures = [cv2.imread(str(path)) for path in photos[::every]]
    for film in sorted((DATA / "videos").glob("*.mp4")) if every == 1 else []:
        capture = cv2.VideoCapture(str(film))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(np.linspace(0, frames - 1, 24).round().astype(int).tolist())
        read = [capture.read()[1] for _ in range(frames)]
        pictures += [read[index] for index in sorted(wanted)]
    return [np.ascontiguousarray(picture[:, :, ::-1]) for picture in pictures if picture is not None]


def measure(every: int) -> dict[str, float]:
    """Shares of upright and of turned pictures that are turned rightly, wrongly, or not at all."""
    if not MODEL.is_file() or not (DATA / "faces_congress").is_dir():
        pytest.skip("no face models (make face-models), or no photos at ../shared/data")
    detector, pictures = FaceDetector(MODEL), list_pictures(every)
    upright = [find_upright(detector, picture) for picture in pictures]
    turned = [
        (quarters, find_upright(detector, np.ascontiguousarray(np.rot90(picture, quarters))))
        for picture in pictures
        for quarters in (1, 2, 3)
    ]
    found = [bool(one.faces) and one.turned == 90 * (4 - quarters) for quarters, one in turned]
    left = [bool(one.faces) and one.turned != 90 * (4 - quarters) for quarters, one in turned]
    return {
        "pictures": len(pictures),
        "upright turned": np.mean([bool(one.turned) for one in upright]).item(),
        "upright in doubt": np.mean([bool(one.doubt) for one in upright]).item(),
        "turned found": np.mean(found).item(),
        "turned left": np.mean(left).item(),
    }


def test_some_photos_are_turned_rightly() -> None:
    shares = measure(every=90)
    assert shares["upright turned"] == shares["turned left"] == 0
    assert shares["turned found"] == 1


@pytest.mark.slow
def test_of_all_photos_and_films_half_a_percent_is_turned_or_left_out_and_turned_ones_are_found() -> None:
    shares = measure(every=1)
    print(shares)
    assert shares["pictures"] > 1000
    assert shares["upright turned"] + shares["upright in doubt"] <= 0.005
    assert shares["turned found"] >= 0.99
