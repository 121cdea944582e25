"""Find faces with YuNet; load a network file through OpenCV.

Load a network file through OpenCV, quietly, with an error that says what to do.

Find faces with YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) through OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import Problem, UserError

Network = TypeVar("Network")


def load_model(model_file: str | Path, what: str, build: Callable[[str], Network]) -> Network:
    """Build a network from a file.

    what: the file's role, for the message; build: makes the network from the path. Raises UserError when the file is
    missing, empty or not such a model.
    """
    path = Path(model_file)
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(
            Problem(
                where=str(path),
                what=f"the {what} is missing or empty",
                remedy="fetch the model files (see weights/README.md) or give another path",
            )
        )
    # OpenCV 5 prints a line about its DNN engine for each network. OPENCV_LOG_LEVEL would be read too early for us: at
    # the first import of cv2, which is often someone else's.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return build(str(path))
    except cv2.error as error:
        raise UserError(
            Problem(
                where=str(path),
                what=f"OpenCV cannot read this file as the {what}",
                got=str(error).strip().splitlines()[0],
                remedy="the file is damaged or another kind of model: fetch it again (see weights/README.md)",
            )
        ) from error
    finally:
        cv2.utils.logging.setLogLevel(level)


# YuNet is trained for faces of about 10 to 300 px. The longer side is brought into this range [px].
SHORTEST_INPUT = 320
LONGEST_INPUT = 640
# A face that fills the picture is found more surely at a smaller scale and with room around it.
CLOSE_UP_INPUT = 256
CLOSE_UP_BORDER = 0.25
NMS_THRESHOLD = 0.3


@dataclass(frozen=True)
class Face:
    """One detected face.

    box_xyxy: float32 (4,), may reach beyond the image; score: 0..1; points: float32 (5, 2): the person's right eye,
    left eye, nose tip, right and left mouth corner (the person's right is at the viewer's left). In the image's pixels.
    """

    box_xyxy: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]

    @property
    def area(self) -> float:
        """The box's area [px^2]."""
        return float((self.box_xyxy[2] - self.box_xyxy[0]) * (self.box_xyxy[3] - self.box_xyxy[1]))


class FaceDetector:
    """Detects faces; the network is loaded once. One instance serves one thread at a time.

    model_file: face_detection_yunet_2023mar.onnx; score_threshold: least score 0..1; min_side: a face whose box is
    narrower or lower than this is dropped [px of the given image]. Raises UserError when the file is missing or
    broken.
    """

    def __init__(self, model_file: str | Path, *, score_threshold: float = 0.6, min_side: float = 40) -> None:
        self._net = load_model(
            model_file,
            "face detector",
            lambda path: cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold, NMS_THRESHOLD),
        )
        self._min_side = min_side

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Faces of an RGB uint8 (H, W, 3) image, the largest box first; an empty list when there is none."""
        height, width = image.shape[:2]
        if min(height, width) == 0:
            return []
        longest = max(height, width)
        faces = self._detect_at(image, scale=float(np.clip(longest, SHORTEST_INPUT, LONGEST_INPUT)) / longest, border=0)
        if not faces:
            border = round(CLOSE_UP_BORDER * longest)
            faces = self._detect_at(image, scale=CLOSE_UP_INPUT / (longest + 2 * border), border=border)
        faces = [face for face in faces if np.min(face.box_xyxy[2:] - face.box_xyxy[:2]) >= self._min_side]
        return sorted(faces, key=lambda face: -face.area)

    def _detect_at(self, image: NDArray[np.uint8], *, scale: float, border: int) -> list[Face]:
        """Detect after adding a border [px of the image] and scaling; coordinates come back in the image's pixels."""
        if border:
            image = np.pad(image, ((border, border), (border, border), (0, 0)), mode="edge")
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = image if size == (width, height) else cv2.resize(image, size, interpolation=interpolation)
        self._net.setInputSize(size)
        _, rows = self._net.detect(cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR))
        if rows is None:
            return []
        factor = np.array([width / size[0], height / size[1]], np.float32)
        return [_read_row(row, factor, border) for row in rows if np.isfinite(row).all()]


def _read_row(row: NDArray[np.float32], factor: NDArray[np.float32], border: int) -> Face:
    """One of YuNet's rows: x, y, width, height, five points, score."""
    top_left = row[:2] * factor - border
    box = np.concatenate([top_left, top_left + row[2:4] * factor]).astype(np.float32)
    return Face(box, float(row[14]), (row[4:14].reshape(5, 2) * factor - border).astype(np.float32))
