"""Facial landmarks: how they are located, the index tables of their layouts, and the hulls that are drawn of them.

They are located with the 468-point face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video
on Mobile GPUs", 2019) through OpenCV's TFLite reader. The layouts are dlib's 68 points, its 81-point extension, and the
face mesh.

"Left" and "right" are the viewer's: point 0 is the jaw's end at the image's left edge (the person's right ear). Points
0-67 are the scheme of Sagonas et al., "300 Faces in-the-Wild Challenge" (ICCV workshops 2013). Points 68-80 are the
forehead points of the 81-point predictor, in no spatial order.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.detect import DetectedFace, load_model

JAW = np.arange(0, 17)
LEFT_BROW = np.arange(17, 22)
RIGHT_BROW = np.arange(22, 27)
BROWS = np.arange(17, 27)
NOSE_BRIDGE = np.arange(27, 31)
NOSE_BASE = np.arange(31, 36)
NOSE = np.arange(27, 36)
LEFT_EYE = np.arange(36, 42)
RIGHT_EYE = np.arange(42, 48)
OUTER_MOUTH = np.arange(48, 60)
INNER_MOUTH = np.arange(60, 68)
# From left temple over the hairline to the right temple.
FOREHEAD = np.array([77, 75, 76, 68, 69, 70, 71, 80, 72, 73, 79, 74, 78])

# The mesh points that stand for dlib's 0-67 (indices into the 468 points of MediaPipe's face mesh).
MESH_FOR_68 = np.r_[
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389],  # jaw
    [71, 63, 105, 66, 107, 336, 296, 334, 293, 301],  # brows
    [168, 197, 5, 4, 75, 97, 2, 326, 305],  # nose
    [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380],  # eyes
    [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181],  # outer mouth
    [78, 82, 13, 312, 308, 317, 14, 87],  # inner mouth
]
# The top of the mesh's face oval from left to right; its ends are the jaw's ends. 11 inner points stand for dlib's 13,
# so the forehead points are placed at even steps along this line.
MESH_OVAL_TOP = np.array([162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389])


def _build_flip_order(count: int) -> NDArray[np.intp]:
    """Build, for each point, the index of the point that takes its place in the mirrored face."""
    order = np.arange(count)
    # Each row runs from left to right, so mirroring reverses it.
    rows = [JAW, BROWS, NOSE_BASE, np.r_[48:55], np.r_[60:65]]
    # Lower lips, then pairs of eye points: both eyes are numbered in the same direction of rotation, so no row of them
    # can be reversed as a whole.
    rows += [np.array(row) for row in ([59, 58, 57, 56, 55], [67, 66, 65])]
    rows += [np.array(pair) for pair in ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))]
    if count == 81:
        rows.append(FOREHEAD)
    for row in rows:
        order[row] = row[::-1]
    return order


FLIP_ORDER_68 = _build_flip_order(68)
FLIP_ORDER_81 = _build_flip_order(81)


def check_landmarks(landmarks: NDArray[np.generic]) -> NDArray[np.float32]:
    """Turn landmarks into a float32 (68 or 81, 2) array. Raises ValueError for any other shape."""
    array = np.asarray(landmarks, dtype=np.float32)
    if array.shape not in ((68, 2), (81, 2)):
        raise ValueError(f"landmarks: expected shape (68, 2) or (81, 2) in dlib's order, got {array.shape}")
    return array


def flip_landmarks(landmarks: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """Mirror landmarks with their image. Applied twice, it gives the input back.

    Every x becomes width - 1 - x, and every point takes its mirror partner's index.

    Args:
        landmarks: (68 or 81, 2) [px].
        width: The width of the image [px].

    Returns:
        float32 of the same shape.
    """
    array = check_landmarks(landmarks)
    order = FLIP_ORDER_68 if len(array) == 68 else FLIP_ORDER_81
    flipped = array[order]
    flipped[:, 0] = width - 1 - flipped[:, 0]
    return flipped


def flip_box(box_xyxy: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """Mirror boxes with their image: x becomes width - 1 - x, and the left and right edges swap.

    Args:
        box_xyxy: A box (4,) or boxes (n, 4) [px].
        width: The width of the image [px].

    Returns:
        float32 of the same shape.
    """
    boxes = np.asarray(box_xyxy, dtype=np.float32)
    flipped = boxes.copy()
    flipped[..., 0] = width - 1 - boxes[..., 2]
    flipped[..., 2] = width - 1 - boxes[..., 0]
    return flipped


def convert_mesh_to_81(points: NDArray[np.generic]) -> NDArray[np.float32]:
    """Take dlib's 81 points, float32 (81, 2), from the 468-point mesh, (468, 2) pixels."""
    mesh = np.asarray(points, dtype=np.float32)
    if mesh.shape != (468, 2):
        raise ValueError(f"points: expected shape (468, 2), got {mesh.shape}")
    landmarks = np.empty((81, 2), np.float32)
    landmarks[:68] = mesh[MESH_FOR_68]
    line = mesh[MESH_OVAL_TOP]
    steps = np.linspace(0, len(line) - 1, len(FOREHEAD) + 2)[1:-1]
    for axis in (0, 1):
        landmarks[FOREHEAD, axis] = np.interp(steps, np.arange(len(line)), line[:, axis])
    return landmarks


def raise_brows(landmarks: NDArray[np.float32], share: float) -> NDArray[np.float64]:
    """Move the ten brow points towards the forehead.

    Args:
        landmarks: (81, 2).
        share: How far they move, as a share of the way to the forehead's points, 0..1.

    Returns:
        The moved points (10, 2).
    """
    brows, above = landmarks[BROWS], landmarks[FOREHEAD]
    # The forehead's 13 points and the brows' 10 both run from left to right.
    steps = np.linspace(1, len(above) - 2, len(brows))
    reached = np.stack([np.interp(steps, np.arange(len(above)), above[:, axis]) for axis in (0, 1)], axis=1)
    return brows + share * (reached - brows)


# Polygons are drawn to 1/8 px, so that small crops are not all drawn from the same few whole-pixel outlines.
SUBPIXEL_BITS = 3


def fill_hulls(
    groups: Iterable[NDArray[np.floating]], height: int, width: int, *, radius: int = 0
) -> NDArray[np.uint8]:
    """Draw the convex hulls of groups of points: uint8 (height, width), 0 or 255.

    Args:
        groups: Points (n, 2) of each hull [px], which may lie outside the picture.
        height: The height of the picture [px].
        width: The width of the picture [px].
        radius: How far every hull is widened [px]; it is drawn as a thick outline, a fast dilation by a disc.
    """
    mask = np.zeros((height, width), np.uint8)
    limit = 4 * max(height, width)  # points far outside would overflow the drawing call's fixed point
    for points in groups:
        fixed = np.rint(np.clip(points, -limit, limit) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        outline = cv2.convexHull(fixed)
        cv2.fillConvexPoly(mask, outline, 255, lineType=cv2.LINE_8, shift=SUBPIXEL_BITS)
        if radius:
            cv2.polylines(mask, [outline], True, 255, thickness=2 * radius + 1, shift=SUBPIXEL_BITS)
    return mask


INPUT_SIZE = 192  # px, the network's square input
# Side of the square crop / longer side of the detector's box. Measured on 244 frontal faces against five marked points:
# the median error is flat from 1.15 to 1.5 (lowest at 1.35) and grows from 0.06 to 0.3 eye distances at 2.
CROP_SCALE = 1.35
POINTS_OUTPUT, PRESENCE_OUTPUT = "conv2d_20", "conv2d_30"


class LandmarkMesh:
    """Locates the mesh's points; the network is loaded once. One instance serves one thread at a time."""

    def __init__(self, model_file: str | Path) -> None:
        """Load face_landmark.tflite. Raises UserError where the file is missing or broken."""
        # OpenCV 5's new engine keeps only one of the network's two outputs; the classic one gives both in one pass.
        self._net = load_model(
            model_file, "landmark model", lambda path: cv2.dnn.readNetFromTFLite(path, cv2.dnn.ENGINE_CLASSIC)
        )

    def locate(
        self, image: NDArray[np.uint8], box_xyxy: NDArray[np.generic], *, roll: float = 0.0
    ) -> tuple[NDArray[np.float32], float]:
        """Locate the points of the face in a detector's box.

        Args:
            image: uint8 (H, W, 3) RGB.
            box_xyxy: (4,) [px].
            roll: Angle of the line through the eyes [rad]; the face is turned level for the network.

        Returns:
            The points, float32 (468, 2) in the image's pixels, and the network's probability that there is a face.
        """
        points, presence = self.locate_deep(image, box_xyxy, roll=roll)
        return np.ascontiguousarray(points[:, :2]), presence

    def locate_deep(
        self, image: NDArray[np.uint8], box_xyxy: NDArray[np.generic], *, roll: float = 0.0
    ) -> tuple[NDArray[np.float32], float]:
        """Locate the points of the face with their depth.

        Args:
            image: uint8 (H, W, 3) RGB.
            box_xyxy: (4,) [px].
            roll: As for `locate`.

        Returns:
            float32 (468, 3): x, y and depth in the image's pixels, where a smaller depth is nearer to the camera; and
            the probability of a face.
        """
        to_input = _compute_crop_matrix(np.asarray(box_xyxy, np.float32), roll)
        crop = cv2.warpAffine(image, to_input, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
        self._net.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        outputs = self._net.forward([POINTS_OUTPUT, PRESENCE_OUTPUT])
        points = outputs[0].reshape(468, 3)
        to_image = cv2.invertAffineTransform(to_input)
        flat = points[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        depth = points[:, 2:] * np.hypot(*to_image[:, 0])
        presence = 1 / (1 + np.exp(-float(outputs[1].ravel()[0])))
        return np.concatenate([flat, depth], 1).astype(np.float32), float(presence)

    def locate_81(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Locate the 81 points of a detected face in dlib's order, levelled by its eyes.

        Args:
            image: uint8 (H, W, 3) RGB.
            face: The face.

        Returns:
            float32 (81, 2) [px].
        """
        points, _ = self.locate(image, face.box_xyxy, roll=face.roll)
        return convert_mesh_to_81(points)


def _compute_crop_matrix(box_xyxy: NDArray[np.float32], roll: float) -> NDArray[np.float64]:
    """Compute the affine (2, 3) that maps the square around the box, turned by roll, to the network's input."""
    side = max(float(np.max(box_xyxy[2:] - box_xyxy[:2])), 1.0) * CROP_SCALE
    centre = (box_xyxy[:2] + box_xyxy[2:]).astype(np.float64) / 2
    scale = INPUT_SIZE / side
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, INPUT_SIZE / 2 - linear @ centre])
