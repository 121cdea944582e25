"""Finds heads in pictures with the face detector, and loads the face models that this needs.

Labels of gaze data mark whole heads. The detector marks faces, so that its boxes are widened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.archive import verify
from sharpstudent.core.arguments import advise_script
from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces.detect import DetectedFace, FaceDetector
from sharpstudent.modalities.faces.landmarks import LandmarkMesh

DETECTOR = Path("weights/face_detection_yunet_2023mar.onnx")
MESH = Path("weights/face_landmark.tflite")
# What a head has beyond its face, in widths and heights of the face's box: left, top, right, bottom.
BEYOND = np.array([-0.15, -0.35, 0.15, 0.1])
MOST_HEADS = 64  # of one picture, the largest


def load_detector(*, least_side: float = 20) -> FaceDetector:
    """Load the face detector. Raises UserError where its file is missing; least_side: the smallest face [px]."""
    _check(DETECTOR, "the face detector")
    return FaceDetector(DETECTOR, min_side=least_side)


def load_mesh() -> LandmarkMesh:
    """Load the face mesh. Raises UserError where its file is missing."""
    _check(MESH, "the face mesh")
    return LandmarkMesh(MESH)


def _check(path: Path, what: str) -> None:
    if not path.is_file():
        raise UserError.about(
            str(path),
            f"is missing: {what}, which finds heads in pictures without labels",
            remedy=f"{advise_script('fetch_models.py face-models')} (fetches both, 2.7 MB)",
        )
    verify(path)


def find_heads(detector: FaceDetector, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Find the boxes of heads (n, 4) [px], clipped to the picture, uint8 (H, W, 3) RGB; the largest first."""
    faces = detector.detect(image)[:MOST_HEADS]
    return np.array([widen(face, image.shape[:2]) for face in faces], np.float32).reshape(-1, 4)


def widen(face: DetectedFace, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Widen the box of a face to that of its head (4,) [px].

    Args:
        face: The face.
        shape: Height and width of the picture, to which the box is clipped.
    """
    sides = np.tile(face.box_xyxy[2:] - face.box_xyxy[:2], 2)
    box = face.box_xyxy + BEYOND * sides
    return box.clip(0, [shape[1], shape[0]] * 2).astype(np.float32)
