"""Reads pictures, videos, cameras and streams without labels: the heads of each frame as one sample.

A picture passes the model once for all its heads. A frame without a head, or without pixels, is a sample without inputs
whose row says why. Legend: k heads of a frame, S side of the model's picture [px].
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import read_number
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import InputSource, Sample
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.detect import FaceDetector
from sharpstudent.modalities.faces.video import TimedFrame, UnreadableVideo, iterate_video
from sharpstudent.tasks.gaze.find_heads import find_heads, load_detector
from sharpstudent.tasks.gaze.heads import find_box_fault
from sharpstudent.tasks.gaze.scenes import read_picture

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
SHOWN_SIDE = 960  # px, the longer side of the pictures that are drawn on
FRAMES_A_SECOND = 2.0  # of a video


def add_input_options(inputs: Any) -> None:
    """Add the options of predict.py for heads and videos to the group of options for inputs."""
    add = inputs.add_argument
    text = "a head, in pixels of the picture (repeatable); without it heads are found"
    add("--head", dest="heads", metavar="X0,Y0,X1,Y1", action="append", help=text)
    add("--fps", metavar="X", type=read_number(float, 0, 1000, above=True), help="frames of each second (default: 2)")
    add("--every-frame", action="store_true", help="all frames of a video")
    add(
        "--min-face",
        metavar="PX",
        type=read_number(int, 8, 4096),
        default=20,
        help="smaller faces are left out (%(default)s)",
    )


def read_boxes(words: Sequence[str]) -> NDArray[np.float32]:
    """Read the boxes that `--head` gives (k, 4) [px].

    Raises:
        UserError: For what is no box, or one that no picture can have.
    """
    boxes: list[list[float]] = []
    for word in words:
        try:
            box = [float(part) for part in word.split(",")]
            fault = None if len(box) == 4 else f"has {len(box)} numbers"
        except ValueError:
            box, fault = [], "has a part that is no number"
        fault = fault or find_box_fault(box)
        if fault is not None:
            raise UserError.about(
                f"--head {word}",
                fault,
                expected="x0,y0,x1,y1 in pixels, x0 < x1 and y0 < y1",
                remedy="write for example --head 120,40,180,110, or leave it out: heads are then found",
            )
        boxes.append(box)
    return np.array(boxes, np.float32).reshape(-1, 4)


def read_input(source: InputSource, *, side: int) -> Generator[Sample]:
    """Read the heads of each frame of an input.

    Args:
        source: A picture, a video, a camera or a stream; its options are `heads`, `fps`, `every_frame`, `min_face`.
        side: S.

    Yields:
        A sample for each frame.

    Raises:
        UnreadableSample: If the source cannot be read.
        UserError: For boxes that cannot be used.
    """
    given = read_boxes(source.options.get("heads") or ())
    with _borrow_detector(int(source.options.get("min_face") or 20), needed=not len(given)) as detector:
        for frame in _read_frames(source):
            yield make_sample(source.name, frame, detector, given, side)


@contextlib.contextmanager
def _borrow_detector(least_side: int, *, needed: bool) -> Generator[FaceDetector | None]:
    """Lend a detector that no other thread uses meanwhile; None where heads are given."""
    if not needed:
        yield None
        return
    idle = _list_idle(least_side)
    try:
        detector = idle.pop()
    except IndexError:
        detector = load_detector(least_side=least_side)
    yield detector
    idle.append(detector)


@cache
def _list_idle(least_side: int) -> deque[FaceDetector]:
    return deque()


def is_video(source: InputSource) -> bool:
    """Whether an input has several frames."""
    return source.path is None or source.path.name.lower().endswith(VIDEOS)


def _read_frames(source: InputSource) -> Iterator[TimedFrame]:
    if not is_video(source):
        assert source.path is not None
        yield TimedFrame(0, 0.0, 1.0, read_picture(source.path))
        return
    place = source.path if source.stream is None else source.stream
    assert place is not None
    rate = None if source.options.get("every_frame") else float(source.options.get("fps") or FRAMES_A_SECOND)
    try:
        yield from iterate_video(place, rate=rate)
    except UnreadableVideo as error:
        raise UnreadableSample(source.name, error.reason) from None


def make_sample(
    name: str, frame: TimedFrame, detector: FaceDetector | None, given: NDArray[np.float32], side: int
) -> Sample:
    """Make the sample of a frame.

    Args:
        name: The name of the input.
        frame: The frame.
        detector: Finds heads; None where they are given.
        given: The boxes of the heads (k, 4) [px] otherwise.
        side: S.

    Raises:
        UnreadableSample: For a given box that lies outside the picture.
    """
    if frame.image is None:
        return _make_remark(name, frame, frame.reason)
    height, width = frame.image.shape[:2]
    for box in given:
        fault = find_box_fault(box.tolist(), (width, height))
        if fault is not None:
            raise UnreadableSample(name, fault)
    boxes = given if detector is None else find_heads(detector, frame.image)
    if not len(boxes):
        return _make_remark(name, frame, "no head was found")
    count = len(boxes)
    shares = (boxes / np.array([width, height] * 2, np.float32)).clip(0.0, 1.0)
    shown = _shrink(frame.image)
    return Sample(
        inputs={
            "image": cv2.resize(frame.image, (side, side), interpolation=cv2.INTER_AREA)[None],
            "image_index": np.zeros(count, np.int64),
            "box": shares,
        },
        rows={
            "id": tuple(f"{name}/{frame.index:06d}, head {number}" for number in range(1, count + 1)),
            **_repeat(frame, "", count),
            "box": tuple(tuple(map(float, box)) for box in boxes),
            "size": ((width, height),) * count,
            "picture": (shown,) * count,
        },
        shared={"image": "image_index"},
    )


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    if scale == 1.0:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _make_remark(name: str, frame: TimedFrame, reason: str) -> Sample:
    return Sample(inputs={}, rows={"id": (f"{name}/{frame.index:06d}",), **_repeat(frame, reason, 1)})


def _repeat(frame: TimedFrame, reason: str, rows: int) -> dict[str, tuple[Any, ...]]:
    one = {"frame": frame.index, "second": float(frame.second), "share": float(frame.share), "reason": reason}
    return {name: (value,) * rows for name, value in one.items()}
