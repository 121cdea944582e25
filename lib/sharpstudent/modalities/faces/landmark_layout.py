"""Index tables of the landmark layouts: dlib's 68 points, its 81-point extension, and the 468-point face mesh.

"Left" and "right" are the viewer's: point 0 is the jaw's end at the image's left edge (the person's right ear).
Points 0-67 are the scheme of Sagonas et al., "300 Faces in-the-Wild Challenge" (ICCV workshops 2013); 68-80 are the
forehead points of the 81-point predictor, in no spatial order of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
MOUTH = np.arange(48, 68)
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
    """For each point, the index of the point that takes its place in the mirrored face."""
    order = np.arange(count)
    # Each row runs from left to right, so mirroring reverses it.
    rows = [JAW, BROWS, NOSE_BASE, np.r_[48:55], np.r_[60:65]]
    # Lower lips, and eyes point by point (eyes turn the same way round, so the lids swap ends).
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
    """Return the landmarks as a float32 (68 or 81, 2) array.

    Raises ValueError for any other shape: a layout cannot be guessed.
    """
    array = np.asarray(landmarks, dtype=np.float32)
    if array.shape not in ((68, 2), (81, 2)):
        raise ValueError(f"landmarks: expected shape (68, 2) or (81, 2) in dlib's order, got {array.shape}")
    return array


def flip_landmarks(landmarks: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """Mirror landmarks with their image: x -> width - 1 - x and every point takes its mirror partner's index.

    landmarks: (68, 2) or (81, 2) pixels. Returns float32 of the same shape; applied twice it gives the input back.
    """
    array = check_landmarks(landmarks)
    order = FLIP_ORDER_68 if len(array) == 68 else FLIP_ORDER_81
    flipped = array[order]
    flipped[:, 0] = width - 1 - flipped[:, 0]
    return flipped


def flip_box(box_xyxy: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """Mirror a box (4,) or boxes (n, 4) with the image: x -> width - 1 - x, left and right edges swap."""
    boxes = np.asarray(box_xyxy, dtype=np.float32)
    flipped = boxes.copy()
    flipped[..., 0] = width - 1 - boxes[..., 2]
    flipped[..., 2] = width - 1 - boxes[..., 0]
    return flipped


def convert_mesh_to_81(points: NDArray[np.generic]) -> NDArray[np.float32]:
    """Read dlib's 81 points off the 468-point mesh.

    points: (468, 2) pixels. Returns float32 (81, 2).
    """
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
