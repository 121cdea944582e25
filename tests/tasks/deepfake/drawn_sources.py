"""Small data folders in the three layouts, drawn faces in them, and networks that look the drawn faces up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from drawn_faces import draw_face
from numpy.typing import NDArray
from sharpstudent.modalities.faces.crop import compute_landmark_box
from sharpstudent.modalities.faces.detect import DetectedFace

SIDE = 120  # [px]
LANDMARKS_BY_PICTURE: dict[bytes, NDArray[np.float32]] = {}  # a drawn picture's bytes: its landmarks


def draw_registered_face(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    image, landmarks = draw_face(seed, side)
    LANDMARKS_BY_PICTURE[image.tobytes()] = landmarks
    return image


def write_picture(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


def write_faces(root: Path, people: dict[str, int], *, start: int = 0) -> Path:
    """ROOT/PERSON/N.png, so many of each person."""
    seed = start
    for person, count in people.items():
        for i in range(count):
            write_picture(root / person / f"{i}.png", draw_registered_face(seed))
            seed += 1
    return root


class LookupDetector:
    """Looks the drawn faces up; in any other picture it finds none."""

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        landmarks = LANDMARKS_BY_PICTURE.get(image.tobytes())
        if landmarks is None:
            return []
        return [DetectedFace(compute_landmark_box(landmarks[:68]), 0.95, landmarks[:5])]


class LookupMesh:
    def locate_81(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        return LANDMARKS_BY_PICTURE[image.tobytes()]


def write_clip(
    root: Path,
    clip: str,
    frames: Sequence[int],
    *,
    compression: str = "c23",
    without: dict[int, Sequence[str]] | None = None,
    faces: int = 1,
) -> None:
    """Frames of one clip with their two landmark files; `without` names the files that a frame lacks."""
    base = root / "original_sequences" / "youtube" / compression
    for index in frames:
        image, landmarks = draw_face(int(clip[:3]) * 100 + index, SIDE)
        lacking = (without or {}).get(index, ())
        write_picture(base / "frames" / clip / f"{index:03d}.png", image)
        corners = compute_landmark_box(landmarks[:68]).reshape(2, 2)
        retina = np.concatenate([corners, landmarks[:5]])
        for kind, array in (("landmarks", np.rint(landmarks).astype(np.int64)), ("retina", retina)):
            (base / kind / clip).mkdir(parents=True, exist_ok=True)
            if kind not in lacking:
                # The largest face first, then smaller ones elsewhere.
                np.save(
                    base / kind / clip / f"{index:03d}.npy",
                    np.stack([array / (i + 1) for i in range(faces)]).astype(array.dtype),
                )


def write_splits(root: Path, **pairs: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, value in pairs.items():
        (root / f"{name}.json").write_text(json.dumps(value))
