"""Fixtures of the face tests: drawn faces always, photographs and model files where they are present."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
for folder in (
    ROOT,
    ROOT / "tests" / "helpers",
):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from drawn_faces import draw_face

PHOTOS = ROOT.parent / "shared" / "data" / "faces"


@pytest.fixture(scope="session")
def drawn():
    """A drawn face of 200 px and its 81 landmarks."""
    return draw_face(3, 200)


@pytest.fixture(scope="session")
def photos():
    """Every twelfth photograph: (image, the five marked points (5, 2): eyes, nose, mouth corners)."""
    if not (PHOTOS / "index.csv").is_file():
        pytest.skip(f"no photographs at {PHOTOS}")
    with (PHOTOS / "index.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))[::12]
    names = ("reye", "leye", "nose", "rmouth", "lmouth")
    points = [np.array([[row[f"{name}_x"], row[f"{name}_y"]] for name in names], np.float32) for row in rows]
    images = [cv2.cvtColor(cv2.imread(str(PHOTOS / row["file"])), cv2.COLOR_BGR2RGB) for row in rows]
    return list(zip(images, points, strict=True))


def _find_weights(name: str) -> Path:
    path = ROOT / "weights" / name
    if not path.is_file():
        pytest.skip(f"no model file at {path}")
    return path


@pytest.fixture(scope="session")
def detector():
    from sharpstudent.modalities.faces.detect import FaceDetector

    return FaceDetector(_find_weights("face_detection_yunet_2023mar.onnx"))


@pytest.fixture(scope="session")
def mesh():
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh

    return LandmarkMesh(_find_weights("face_landmark.tflite"))
