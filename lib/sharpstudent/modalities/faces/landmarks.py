"""Locate facial points with the 468-point face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs", 2019) through OpenCV's TFLite reader."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.detect import Face, load_model
from sharpstudent.modalities.faces.landmark_layout import convert_mesh_to_81

INPUT_SIZE = 192  # px, the network's square input
# Side of the square crop / longer side of the detector's box. Measured on 244 frontal faces against five marked points:
# the median error is flat from 1.15 to 1.5 (lowest at 1.35) and grows from 0.06 to 0.3 eye distances at 2.
CROP_SCALE = 1.35
POINTS_OUTPUT, PRESENCE_OUTPUT = "conv2d_20", "conv2d_30"


class LandmarkMesh:
    """Locates the mesh's points; the network is loaded once. One instance serves one thread at a time.

    model_file: face_landmark.tflite. Raises UserError when the file is missing or broken.
    """

    def __init__(self, model_file: str | Path) -> None:
        # OpenCV 5's new engine keeps only one of the network's two outputs; the classic one gives both in one pass.
        self._net = load_model(
            model_file, "landmark model", lambda path: cv2.dnn.readNetFromTFLite(path, cv2.dnn.ENGINE_CLASSIC)
        )

    def locate(
        self, image: NDArray[np.uint8], box_xyxy: NDArray[np.generic], *, roll: float = 0.0
    ) -> tuple[NDArray[np.float32], float]:
        """Points of the face in a detector's box.

        image: uint8 (H, W, 3) RGB; box_xyxy: (4,) pixels; roll: the angle of the line through the eyes [rad], turned
        level for the network. Returns points float32 (468, 2) in the image's pixels and presence, the network's
        probability that a face is there.
        """
        to_input = _compute_crop_matrix(np.asarray(box_xyxy, np.float32), roll)
        crop = cv2.warpAffine(image, to_input, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
        self._net.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        outputs = self._net.forward([POINTS_OUTPUT, PRESENCE_OUTPUT])
        points = outputs[0].reshape(468, 3)[:, :2]
        to_image = cv2.invertAffineTransform(to_input)
        points = points @ to_image[:, :2].T + to_image[:, 2]
        presence = 1 / (1 + np.exp(-float(outputs[1].ravel()[0])))
        return points.astype(np.float32), float(presence)

    def locate_81(self, image: NDArray[np.uint8], face: Face) -> NDArray[np.float32]:
        """The 81 points in dlib's order of one detected face, levelled by its eyes: float32 (81, 2) pixels."""
        across = face.points[1] - face.points[0]
        points, _ = self.locate(image, face.box_xyxy, roll=float(np.arctan2(across[1], across[0])))
        return convert_mesh_to_81(points)


def _compute_crop_matrix(box_xyxy: NDArray[np.float32], roll: float) -> NDArray[np.float64]:
    """The affine (2, 3) that brings the square around the box, turned by roll, to the network's input."""
    side = max(float(np.max(box_xyxy[2:] - box_xyxy[:2])), 1.0) * CROP_SCALE
    centre = (box_xyxy[:2] + box_xyxy[2:]).astype(np.float64) / 2
    scale = INPUT_SIZE / side
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, INPUT_SIZE / 2 - linear @ centre])
