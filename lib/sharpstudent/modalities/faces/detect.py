"""Detection of faces, turning of pictures, and tracking of people from one sampled frame of a video to the next.

Faces are detected with YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) through OpenCV.

Sampled frames are seconds apart, not 40 ms, so that a face may have left its old box. Then the nearest face of about
the same size, within about a face's width, is taken for the same person. Boxes cannot tell people apart: somebody who
takes another's place between two sampled frames, such as at a cut to another speaker, is taken for that person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces.crop import compute_areas, compute_ious

Network = TypeVar("Network")


def load_model(model_file: str | Path, what: str, build: Callable[[str], Network]) -> Network:
    """Load a network from a file.

    Args:
        model_file: The path of the file.
        what: The role of the network, for messages.
        build: Builds the network from the path.

    Returns:
        The network.

    Raises:
        UserError: Where the file is missing, empty or not such a model.
    """
    path = Path(model_file)
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError.about(
            where=str(path),
            what=f"the {what} is missing or empty",
            remedy="fetch the model files (see weights/README.md) or give another path",
        )
    # OpenCV 5 prints a line about its DNN engine for each network. OPENCV_LOG_LEVEL would be read too early for us: at
    # the first import of cv2, which is often someone else's.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return build(str(path))
    except cv2.error as error:
        raise UserError.about(
            where=str(path),
            what=f"OpenCV cannot read this file as the {what}",
            got=str(error).strip().splitlines()[0],
            remedy="the file is damaged or another kind of model: fetch it again (see weights/README.md)",
        ) from error
    finally:
        cv2.utils.logging.setLogLevel(level)


# YuNet is trained for faces of about 10 to 300 px. The longer side is brought into this range [px].
SHORTEST_INPUT = 320
LONGEST_INPUT = 640
# A face that fills the picture is found more surely at a smaller scale and with a border around it.
CLOSE_UP_INPUT = 256
CLOSE_UP_BORDER = 0.25
NMS_THRESHOLD = 0.3


@dataclass(frozen=True)
class DetectedFace:
    """One detected face, in the image's pixels.

    Attributes:
        box_xyxy: The box, float32 (4,), which may reach beyond the image.
        score: The network's score, 0..1.
        points: The person's right eye, left eye, nose tip, right and left corner of the mouth, float32 (5, 2). The
            person's right is at the viewer's left.
    """

    box_xyxy: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]

    @property
    def area(self) -> float:
        """The box's area [px^2]."""
        return float((self.box_xyxy[2] - self.box_xyxy[0]) * (self.box_xyxy[3] - self.box_xyxy[1]))

    @property
    def roll(self) -> float:
        """The angle of the line through the eyes [rad]."""
        across = self.points[1] - self.points[0]
        return float(np.arctan2(across[1], across[0]))


class FaceDetector:
    """Detects faces; the network is loaded once. One instance serves one thread at a time."""

    def __init__(self, model_file: str | Path, *, score_threshold: float = 0.6, min_side: float = 40) -> None:
        """Load the network.

        Args:
            model_file: The path of face_detection_yunet_2023mar.onnx.
            score_threshold: Faces with a lower score are dropped, 0..1.
            min_side: A face whose box is narrower or lower is dropped [px of the given image].

        Raises:
            UserError: Where the file is missing or broken.
        """
        self._net = load_model(
            model_file,
            "face detector",
            lambda path: cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold, NMS_THRESHOLD),
        )
        self._min_side = min_side

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Find the faces of an RGB uint8 (H, W, 3) image, the largest box first; an empty list where there is none."""
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

    def _detect_at(self, image: NDArray[np.uint8], *, scale: float, border: int) -> list[DetectedFace]:
        """Detect after adding a border [px of the image] and scaling; the faces come back in the image's pixels."""
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


def _read_row(row: NDArray[np.float32], factor: NDArray[np.float32], border: int) -> DetectedFace:
    """Read one of YuNet's rows: x, y, width, height, five points, score."""
    top_left = row[:2] * factor - border
    box = np.concatenate([top_left, top_left + row[2:4] * factor]).astype(np.float32)
    return DetectedFace(box, float(row[14]), (row[4:14].reshape(5, 2) * factor - border).astype(np.float32))


# Pictures that lie on their side or stand on their head, without a tag that says so. Measured on 1,081 photos and video
# frames: upright faces score .94 (median), turned ones at most .92, and in 1,079 the upright one has the highest score;
# none was turned, 1 left out as doubtful, and 99.6 % of the turned ones were found.
UPRIGHT_SCORE = 0.92  # from here on a face is upright; below, the three other turns are tried
TURN_MARGIN = 0.02  # a turn has to score higher by this; within it, nobody can tell
LEAST_TURNED = 0.8  # score: a picture without a face may look like one on its side
# Degrees of roll: a head that is tilted is no picture that was turned, unless a turn has the score of an upright face.
TILTED = (20.0, 70.0)


class Detects(Protocol):
    """Finds faces."""

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces in a picture, uint8 (H, W, 3) RGB, the largest box first."""
        ...


@dataclass(frozen=True)
class UprightFaces:
    """The faces of a picture after it was turned upright.

    Attributes:
        image: The picture, turned; uint8 (H, W, 3) RGB.
        faces: The faces in it, the largest box first; [] where it cannot be told which way up they are.
        turned: By how many degrees it was turned counter-clockwise: 0, 90, 180 or 270.
        doubt: Why it cannot be told; "" where it can.
    """

    image: NDArray[np.uint8]
    faces: list[DetectedFace]
    turned: int = 0
    doubt: str = ""


def find_upright(detector: Detects, image: NDArray[np.uint8]) -> UprightFaces:
    """Find the faces of a picture, and turn it by quarters where its largest face is not upright.

    Args:
        detector: Finds faces.
        image: uint8 (H, W, 3) RGB.

    Returns:
        The picture, turned where needed, and its faces.
    """
    faces = detector.detect(image)
    own = faces[0].score if faces else 0.0
    if own >= UPRIGHT_SCORE:
        return UprightFaces(image, faces)
    pictures = {quarters: np.ascontiguousarray(np.rot90(image, quarters)) for quarters in (1, 2, 3)}
    found = {quarters: detector.detect(picture) for quarters, picture in pictures.items()}
    scores = {quarters: others[0].score for quarters, others in found.items() if others}
    best = max(scores, key=scores.__getitem__, default=0)
    score = scores.get(best, 0.0)
    is_tilted = bool(faces) and TILTED[0] <= abs(np.degrees(faces[0].roll)) <= TILTED[1]
    if is_tilted and score < UPRIGHT_SCORE:
        return UprightFaces(image, faces)
    if score - own >= TURN_MARGIN and score >= LEAST_TURNED:
        return UprightFaces(pictures[best], found[best], turned=90 * best)
    if faces and own - score < TURN_MARGIN:
        doubt = f"nobody can tell which way up its face is (score {own:.2f}, turned by {90 * best} degrees {score:.2f})"
        return UprightFaces(image, [], doubt=doubt)
    return UprightFaces(image, faces)


def turn_back(box_xyxy: NDArray[np.floating], image: NDArray[np.uint8], turned: int) -> NDArray[np.floating]:
    """Compute where a box of a turned picture lies in the picture as it was.

    Args:
        box_xyxy: The box (4,) [px of the turned picture].
        image: The turned picture (H, W, 3).
        turned: By how many degrees it was turned counter-clockwise: 0, 90, 180 or 270.

    Returns:
        The box (4,) [px of the picture as it was].
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box_xyxy
    for _ in range(turned // 90):  # one quarter back: what was below lies left
        left, top, right, bottom = height - bottom, left, height - top, right
        height, width = width, height
    return np.array([left, top, right, bottom], box_xyxy.dtype)


LEAST_IOU = 0.2
LARGEST_STEP = 1.5  # distance of the centres / side of the face (geometric mean of both boxes)
LARGEST_GROWTH = 2.0  # side of the larger / side of the smaller


class Tracker:
    """Tracks people from frame to frame by their boxes; a person who is missing in some frames keeps the number."""

    def __init__(self) -> None:
        self._last = np.empty((0, 4))  # each track's latest box
        self.areas: list[float] = []  # the summed area of each track's boxes [px^2]

    def add(self, frame: NDArray[np.generic]) -> NDArray[np.int64]:
        """Find the tracks of the boxes (n, 4) xyxy [px] of the next frame: int64 (n,), new ones in their order."""
        boxes = np.asarray(frame, np.float64).reshape(-1, 4)
        tracks = _match(self._last, boxes)
        for box in np.flatnonzero(tracks < 0):
            tracks[box] = len(self.areas)
            self.areas.append(0.0)
            self._last = np.concatenate([self._last, boxes[box : box + 1]])
        self._last[tracks] = boxes
        for track, area in zip(tracks, compute_areas(boxes), strict=True):
            self.areas[track] += float(area)
        return tracks

    def rank(self) -> NDArray[np.int64]:
        """Give the number of each track: 0 for the one whose boxes have the largest summed area, and so on."""
        number = np.empty(len(self.areas), np.int64)
        number[np.argsort(-np.array(self.areas), kind="stable")] = np.arange(len(self.areas))
        return number


def number_tracks(frames: Sequence[NDArray[np.generic]]) -> list[NDArray[np.int64]]:
    """Number the people of a video by their boxes, 0 for the one whose boxes have the largest summed area, and so on.

    A person who is missing in some frames keeps the number; no number occurs twice in a frame. Of equal areas, the
    person who was seen first, or stood first in that frame, has the lower number.

    frames: The boxes (n, 4) xyxy [px] of each frame, in order; n may be 0. An int64 (n,) array comes back for each
    frame.
    """
    tracker = Tracker()
    found = [tracker.add(frame) for frame in frames]
    number = tracker.rank()
    return [number[tracks] for tracks in found]


def _match(tracks: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the track of each box, -1 for none: pairs are taken by falling overlap, then by rising distance."""
    chosen = np.full(len(boxes), -1, np.int64)
    iou, step = compute_ious(tracks, boxes), _compute_step(tracks, boxes)
    overlapping = iou >= LEAST_IOU
    # The cost that pairs are sorted by: negative for pairs that overlap, positive for pairs that are only near.
    cost = np.where(overlapping, -iou, step)
    track_of, box_of = np.nonzero(overlapping | (step <= LARGEST_STEP))
    taken: set[int] = set()
    for pair in np.argsort(cost[track_of, box_of], kind="stable"):
        track, box = int(track_of[pair]), int(box_of[pair])
        if track not in taken and chosen[box] < 0:
            chosen[box] = track
            taken.add(track)
    return chosen


def _compute_step(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the distance of the centres of every pair in face sides; infinite where the sizes differ too much."""
    sides = [np.sqrt(np.maximum(compute_areas(boxes), 1e-9)) for boxes in (one, two)]
    distance = np.linalg.norm((one[:, None, :2] + one[:, None, 2:] - two[None, :, :2] - two[None, :, 2:]) / 2, axis=2)
    growth = sides[0][:, None] / sides[1][None]
    alike = np.maximum(growth, 1 / growth) <= LARGEST_GROWTH
    return np.where(alike, distance / np.sqrt(sides[0][:, None] * sides[1][None]), np.inf)
