"""make_swaps.py as a user runs it: bad input, and real photos where they are present."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workplace import ROOT, Ended, Workplace

SCRIPT = "make_swaps.py"
PHOTOS = ROOT.parent / "shared" / "data" / "faces"
MODELS = [ROOT / "weights" / name for name in ("face_detection_yunet_2023mar.onnx", "face_landmark.tflite")]


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("error:") == 1
    assert "Traceback" not in ended.out + ended.err
    for word in words:
        assert word in ended.err, f"{word!r} is not in\n{ended.err}"


@pytest.fixture
def real_place(workplace: Workplace) -> Workplace:
    """A user's folder with six people's photos, linked, and the two model files."""
    missing = [path for path in (*MODELS, PHOTOS / "index.csv") if not path.is_file()]
    if missing:
        pytest.skip(f"absent: {missing[0]}")
    (workplace / "weights").mkdir()
    for model in MODELS:
        (workplace / "weights" / model.name).symlink_to(model)
    with (PHOTOS / "index.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for person in sorted({row["person"] for row in rows})[:6]:
        (workplace / "people" / person).mkdir(parents=True)
        file = next(row["file"] for row in rows if row["person"] == person)
        (workplace / "people" / person / Path(file).name).symlink_to(PHOTOS / file)
    return workplace


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope", "dest"), ("nope", "does not exist", "ROOT/PERSON")),
        (("nope", "dest", "--per-face", "0"), ("--per-face", "1 to 100")),
        (("nope", "dest", "--image-size", "9", "--seed", "-1"), ("--image-size", "from 32 to 2048")),
        (("nope", "dest", "--split", "dev"), ("--split", "dev")),
        (("nope",), ("DEST",)),
    ],
)
def test_an_invalid_command_is_refused(workplace: Workplace, words: tuple[str, ...], said: tuple[str, ...]) -> None:
    assert_refused(workplace.call(SCRIPT, *words), *said)
    assert not (workplace / "dest").exists()


def test_damaged_model_files_are_both_named_before_anything_is_written(workplace: Workplace) -> None:
    for person in ("ann", "ben"):
        (workplace / "people" / person).mkdir(parents=True)
        (workplace / "people" / person / "0.png").write_bytes(b"x")
    (workplace / "weights").mkdir()
    for name in ("face_detection_yunet_2023mar.onnx", "face_landmark.tflite"):
        (workplace / "weights" / name).write_bytes(b"not what was published")
    assert_refused(workplace.call(SCRIPT, "people", "dest"), "2 problems", "is not the file that MANIFEST.json lists")
    assert not (workplace / "dest").exists()


def test_photos_without_any_face_are_one_error_that_names_them(real_place: Workplace) -> None:
    for person in ("ann", "ben"):
        (real_place / "walls" / person).mkdir(parents=True)
        (real_place / "walls" / person / "0.png").write_bytes(b"no picture")
    assert_refused(real_place.call(SCRIPT, "walls", "dest"), "gave no swap", "ann/0.png", "is no picture")
    assert (real_place / "dest" / "left_out.csv").is_file()


def test_real_photos_become_pairs_and_the_same_command_makes_nothing_twice(real_place: Workplace) -> None:
    command = [sys.executable, str(ROOT / SCRIPT), "people", "dest", "--image-size", "128", "--picture", "jpg"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=real_place.folder, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 fakes of 6 real faces of 6 people" in done.stdout
    assert done.stderr == ""
    pictures = sorted((real_place / "dest").rglob("*.jpg"))
    assert len(pictures) == 12
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in pictures}
    again = real_place.call(SCRIPT, "people", "dest", "--image-size", "128", "--picture", "jpg")
    assert again.code == 0, again.err
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in pictures} == before
    assert_refused(real_place.call(SCRIPT, "people", "dest", "--image-size", "64"), "made otherwise", "image_size")
    assert_refused(real_place.call(SCRIPT, "dest", "more"), "has written")
