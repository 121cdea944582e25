"""How well two faces match for a swap: pose, expression and face shape; light, skin and sharpness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.landmarks import LEFT_EYE, OUTER_MOUTH, RIGHT_EYE
from sharpstudent.modalities.faces.swap.colour import to_lab
from sharpstudent.modalities.faces.swap.region import measure_face_width

# Every face is brought to this square by its eyes and mouth [px].
SIDE = 128
EYES_AND_MOUTH = np.array([[44, 52], [84, 52], [64, 98]], np.float32)
THUMBNAIL_SIDE = 16
# The patch between the eyes and below the brows, as rows and columns of the square. Skin is smooth there; the bridge of
# glasses and a fringe are not.
BRIDGE = np.s_[40:66, 58:71]
# The differences that add 1 to the distance between two faces.
SHAPE_UNIT = 0.05  # of the face's size
LOOK_UNIT = 10.0  # CIELAB
TURN_UNIT = 0.06  # of the way of the nose's tip from one end of the jaw to the other
# Height of the inner lips / width of the mouth. Closing the source's open mouth leaves a slit of teeth. Opening a
# closed one matters less, because the target then keeps its own teeth.
CLOSING_UNIT, OPENING_UNIT = 0.06, 0.15
HALVING = 2.0  # units for a source of half the target's width
# Two photos closer than this in both are copies of one: re-encoded and resized copies measured below 0.023 and 3.8 in
# nine of ten cases, different people above 0.03 or 5.3 (244 photos of one studio).
COPY_SHAPE, COPY_LOOK = 0.025, 4.0


@dataclass(frozen=True)
class FaceLook:
    """The measurements by which faces are matched.

    Attributes:
        shape: The landmarks centred, levelled and scaled, float32 (81, 2).
        look: A thumbnail of the face with n pixels, CIELAB, float32 (n, 3).
        width: [px].
        bridge: The strongest edge across the nose's bridge [L a pixel].
    """

    shape: NDArray[np.float32]
    look: NDArray[np.float32]
    width: float
    bridge: float


def describe_look(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> FaceLook:
    """Measure a face for matching.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (81, 2) [px].

    Returns:
        Its shape, look, width and bridge.
    """
    lab = to_lab(_align(image, landmarks))
    small = cv2.resize(lab, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    light = cv2.GaussianBlur(np.ascontiguousarray(lab[..., 0]), (0, 0), 1.0)
    edges = np.abs(cv2.Sobel(light, cv2.CV_32F, 0, 1)) / 8  # the kernel's weights add up to 8
    return FaceLook(
        shape=normalise_points(landmarks),
        look=np.asarray(small[_FACE], np.float32),
        width=measure_face_width(landmarks),
        bridge=float(edges[BRIDGE].max(axis=0).mean()),
    )


class LookTable:
    """Many faces at once, to be compared with a given one."""

    def __init__(self, looks: Sequence[FaceLook]) -> None:
        """Stack the looks, of which there is at least one."""
        self._shapes = np.stack([look.shape for look in looks])
        self._looks = np.stack([look.look for look in looks])
        self._widths = np.array([look.width for look in looks])
        self._turns = np.array([measure_turn(look.shape) for look in looks])
        self._openings = np.array([measure_opening(look.shape) for look in looks])

    def compute_distances(self, target: FaceLook) -> NDArray[np.float64]:
        """Compute how badly each face matches the target, float64 (n,).

        0 is best; copies of the same photo are infinite.
        """
        shape = _compute_rms(self._shapes, target.shape)
        look = _compute_rms(self._looks, target.look)
        halvings = np.maximum(np.log2(target.width / self._widths), 0)
        distance = shape / SHAPE_UNIT + look / LOOK_UNIT + HALVING * halvings
        distance += np.abs(self._turns - measure_turn(target.shape)) / TURN_UNIT
        closing = self._openings - measure_opening(target.shape)
        distance += np.where(closing > 0, closing / CLOSING_UNIT, -closing / OPENING_UNIT)
        distance[(shape < COPY_SHAPE) & (look < COPY_LOOK)] = np.inf
        return distance


def measure_turn(landmarks: NDArray[np.float32]) -> float:
    """Measure where the nose's tip lies between the jaw's ends: 0.5 in a face seen from the front."""
    across = (landmarks[16] - landmarks[0]).astype(np.float64)
    return float((landmarks[30] - landmarks[0]) @ across / max(float(across @ across), 1e-9))


def measure_opening(landmarks: NDArray[np.float32]) -> float:
    """Measure the height of the inner lips / width of the mouth."""
    width = float(np.linalg.norm(landmarks[54] - landmarks[48]))
    return float(np.linalg.norm(landmarks[66] - landmarks[62])) / max(width, 1e-9)


def _compute_rms(many: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt(np.square(many - one).sum(axis=2).mean(axis=1, dtype=np.float64))


def normalise_points(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre landmarks (68 or 81, 2) at 0, level the eyes, and scale to a mean square distance of 1 from 0."""
    centred = (landmarks - landmarks.mean(axis=0)).astype(np.float64)
    centred /= max(float(np.sqrt(np.square(centred).sum(axis=1).mean())), 1e-6)
    across = landmarks[RIGHT_EYE].mean(axis=0) - landmarks[LEFT_EYE].mean(axis=0)
    cos, sin = across / max(float(np.linalg.norm(across)), 1e-6)
    return (centred @ np.array([[cos, -sin], [sin, cos]])).astype(np.float32)


def _align(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map the face to the square: uint8 (SIDE, SIDE, 3)."""
    places = np.stack([landmarks[group].mean(axis=0) for group in (LEFT_EYE, RIGHT_EYE, OUTER_MOUTH)])
    matrix = cv2.getAffineTransform(places.astype(np.float32), EYES_AND_MOUTH)
    shrink = 1 / max(float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))), 1e-6)
    if shrink > 1.1:
        size = (max(1, round(image.shape[1] / shrink)), max(1, round(image.shape[0] / shrink)))
        matrix = matrix @ np.diag([image.shape[1] / size[0], image.shape[0] / size[1], 1.0])
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    aligned = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(aligned, np.uint8)


def _draw_face_ellipse() -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:THUMBNAIL_SIDE, :THUMBNAIL_SIDE] + 0.5
    middle = THUMBNAIL_SIDE / 2
    return ((columns - middle) / (0.72 * middle)) ** 2 + ((rows - 1.1 * middle) / (0.81 * middle)) ** 2 < 1


_FACE = _draw_face_ellipse()
