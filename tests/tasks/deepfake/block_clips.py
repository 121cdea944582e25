"""Pictures with plain blocks for faces, and networks that find them: cropping without the model files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sharpstudent.modalities.faces.detect import DetectedFace
from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper
from sharpstudent.tasks.deepfake.prepare.crop_frame import Networks
from sharpstudent.tasks.deepfake.prepare.parts import ClipCrops
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings

Box = tuple[int, int, int, int]
FACE = (230, 150, 40)  # RGB; nothing else in these pictures is as red


def draw_blocks(*boxes: Box, size: tuple[int, int] = (320, 240)) -> NDArray[np.uint8]:
    """A picture with a face in each box (left, top, right, bottom) on a dark, patterned ground; size: width, height."""
    y, x = np.indices((size[1], size[0]))
    image = np.stack([20 + x % 40, 30 + y % 50, 40 + (x + y) % 60], axis=2).astype(np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = FACE
        image[top:bottom:8, left:right, 1] = 60  # so that a face has edges
    return image


class BlockDetector:
    """Finds the blocks, largest first."""

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 150).astype(np.uint8))
        faces = []
        for left, top, width, height, _ in stats[1:]:
            box = np.array([left, top, left + width, top + height], np.float32)
            faces.append(DetectedFace(box, 0.95, np.repeat(box[None, :2], 5, axis=0)))
        return sorted(faces, key=lambda face: -face.area)


class BlockMesh:
    """81 points on an ellipse inside the box."""

    def locate_81(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        return place_landmarks(face.box_xyxy)


def place_landmarks(box: Sequence[float] | NDArray[np.float32], points: int = 81) -> NDArray[np.float32]:
    angle = np.linspace(0, 2 * np.pi, points)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.4 + 0.5
    low, high = np.asarray(box[:2]), np.asarray(box[2:])
    return (low + unit * (high - low)).astype(np.float32)


def build_cropper(settings: CropSettings | None = None) -> ClipCropper:
    return ClipCropper(settings or CropSettings(), networks=lambda: Networks(BlockDetector(), BlockMesh(), "blocks"))


def write_picture(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())
    return path


def read_picture(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def check_each_frame_has_crops_or_a_reason(clip_crops: ClipCrops) -> None:
    """Each frame has crops or one reason of rejection, never both."""
    rejected = [(one.source, one.frame) for one in clip_crops.rejected]
    assert len(rejected) == len(set(rejected))
    crops = {(face.source, face.frame_index) for face in clip_crops.faces}
    assert not crops & set(rejected)
    assert clip_crops.frames_with_face <= clip_crops.frames_read
    assert len(crops) <= clip_crops.frames_with_face


def reasons(clip_crops: ClipCrops) -> list[str]:
    check_each_frame_has_crops_or_a_reason(clip_crops)
    return [one.reason for one in clip_crops.rejected]
