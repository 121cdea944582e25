"""Reads unlabelled pictures, videos, cameras and streams: the faces of each frame as samples for a detector.

Faces are found, located and cropped as `evaluate_model.py` does with folders, so that the same frame gives the same
pixels and score. Decoding and the search for faces overlap: each runs in a thread of its own.

A sample is one frame: a row a face. A frame without a face to judge, and a remark about the file, is a sample without
inputs, whose row has the reason. Legend: k faces of a frame, V views of each, S side of the network's input [px].
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.types import InputSource, Sample
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.predictor import ReadAhead
from sharpstudent.modalities.faces.detect import turn_back
from sharpstudent.modalities.faces.video import (
    SampledVideo,
    TimedFrame,
    UnreadableVideo,
    iterate_sampled,
    iterate_video,
)
from sharpstudent.modalities.faces.views import list_views, make_views
from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES
from sharpstudent.tasks.deepfake.prepare.crop_clip import VERSION, load_networks
from sharpstudent.tasks.deepfake.prepare.crop_frame import FrameCropper, Networks, Picture
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, read_picture

SUFFIXES = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
NO_FRAME = -1  # the number of a remark, and of a note of progress
FRAMES_AHEAD = 2  # decoded frames that wait: each has up to 150 MB
MOST_FACES = 32  # of one frame, the largest; a crowd would fill the memory of a batch
SHOWN_SIDE = 160  # [px] of a face on a page, at most
LEAST_DECODED = 0.95  # share of the frames that a container claims; with less, the file was cut short


@dataclass(frozen=True)
class _Frame:
    """A decoded frame, or a remark about the file.

    Attributes:
        index: Its number, NO_FRAME for a remark.
        second: When it is shown [s].
        share: How much of the source has been read, 0..1.
        image: Its RGB pixels, uint8 (H, W, 3).
        reason: Why it has no pixels, or the remark.
        chosen: At the end of a video whose frames are spread evenly: the numbers of those that count.
    """

    index: int
    second: float
    share: float
    image: NDArray[np.uint8] | None = None
    reason: str = ""
    chosen: frozenset[int] | None = None


def read_input(source: InputSource, *, image_size: int) -> Generator[Sample]:
    """Read the faces of one input.

    Args:
        source: A picture, a video, a camera or a stream. Its options are `frames`, `fps`, `every_frame`, `min_face` and
            `views`.
        image_size: The side of the network's input S [px].

    Yields:
        A sample for each frame, and remarks.

    Raises:
        UnreadableSample: If the source cannot be read.
    """
    options = source.options
    settings = CropSettings(faces="all", image_size=image_size, min_face=int(options.get("min_face") or 40))
    frames = ReadAhead(_read_frames(source), FRAMES_AHEAD)
    try:
        with _borrow_networks() as networks:
            cropper = FrameCropper(settings, lambda: networks, version=VERSION)
            if _is_sampled(source):
                yield from _choose((frame, _make_sample(source, frame, cropper, image_size)) for frame in frames)
                return
            for number, frame in enumerate(frames):  # the search for faces takes longest: known ones are not looked for
                is_known = number < source.skip
                yield _make_remark(frame, "") if is_known else _make_sample(source, frame, cropper, image_size)
    finally:
        frames.close()


def _choose(samples: Iterator[tuple[_Frame, Sample]]) -> Iterator[Sample]:
    """Hold samples back until it is known which frames count; meanwhile notes without a reason tell the progress.

    Where a container lies about its number of frames, others than the first ones count. What waits are crops of faces.
    """
    waiting: dict[int, Sample] = {}
    for frame, sample in samples:
        if frame.chosen is not None:
            yield from (waiting[index] for index in sorted(frame.chosen & waiting.keys()))
            return
        if frame.index == NO_FRAME:
            yield sample
        else:
            waiting[frame.index] = sample
            yield _make_remark(_Frame(NO_FRAME, frame.second, frame.share), "")
    yield from waiting.values()


@contextlib.contextmanager
def _borrow_networks() -> Generator[Networks]:
    """Lend networks that no other thread uses meanwhile; loading them takes longer than one picture."""
    idle = _list_idle()
    try:
        networks = idle.pop()
    except IndexError:
        networks = load_networks()
    yield networks
    idle.append(networks)


@cache
def _list_idle() -> deque[Networks]:
    return deque()


def _read_frames(source: InputSource) -> Iterator[_Frame]:
    if source.path is None or source.path.name.lower().endswith(VIDEO_SUFFIXES):
        yield from _read_video(source)
        return
    yield _Frame(0, 0.0, 1.0, read_picture(source.path))


def _read_video(source: InputSource) -> Iterator[_Frame]:
    options = source.options
    try:
        if _is_sampled(source):
            assert source.path is not None
            yield from _sample_frames(source.path, int(options.get("frames") or 32))
            return
        place = source.path if source.stream is None else source.stream
        assert place is not None
        rate = None if options.get("every_frame") else float(options.get("fps") or 1.0)
        for frame in iterate_video(place, rate=rate):
            yield _to_frame(frame)
    except UnreadableVideo as error:
        raise UnreadableSample(source.name, error.reason) from None


def _is_sampled(source: InputSource) -> bool:
    """Whether frames are spread evenly over a file, as in an evaluation, and not taken by their time."""
    return source.path is not None and not source.options.get("every_frame") and not source.options.get("fps")


def _to_frame(frame: TimedFrame) -> _Frame:
    return _Frame(frame.index, frame.second, frame.share, frame.image, frame.reason)


def _sample_frames(path: Path, count: int) -> Generator[_Frame]:
    """Yield evenly spread frames, those that an evaluation takes, and at last the numbers of those that count."""
    video = yield from _pass_on(iterate_sampled(path, count))
    if video.claimed and video.frames < LEAST_DECODED * video.claimed:
        remark = f"the video ends early: {video.frames:,} of {video.claimed:,} frames can be decoded"
        yield _Frame(NO_FRAME, 0.0, 1.0, reason=remark)
    for index, reason in video.failed.items():
        yield _Frame(index, video.seconds.get(index, 0.0), 1.0, reason=reason)
    yield _Frame(NO_FRAME, 0.0, 1.0, chosen=frozenset(video.indices))


def _pass_on(frames: Generator[TimedFrame, None, SampledVideo[Any]]) -> Generator[_Frame, None, SampledVideo[Any]]:
    """Pass on the frames of a video that have pixels, and return what is known of it at the end."""
    while True:
        try:
            frame = next(frames)
        except StopIteration as end:
            return end.value
        if frame.image is not None:
            yield _to_frame(frame)


def _make_sample(source: InputSource, frame: _Frame, cropper: FrameCropper, side: int) -> Sample:
    """Find and crop the faces of a frame."""
    if frame.image is None:
        return _make_remark(frame, frame.reason)
    try:
        picture, _, large = cropper.find(Picture(frame.image, source.name, frame.index), None)
        faces = [(face, cropper.cut(picture, face)) for face in large[:MOST_FACES]]
    except UnreadableSample as error:
        return _make_remark(frame, error.reason)
    except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
        return _make_remark(frame, f"cannot be cut ({type(error).__name__})")
    named = source.options.get("views")
    views = list_views(named)
    pictures = np.stack([make_views(cut.image, cut.box_xyxy, side, views) for _, cut in faces])
    return Sample(
        inputs={"image": pictures[:, 0] if named is None else pictures},
        rows={
            "id": (f"{source.name}/{frame.index:06d}",) * len(faces),
            **_repeat(frame, "", len(faces)),
            "box": tuple(
                tuple(map(float, turn_back(face.box_xyxy, picture.image, picture.turned))) for face, _ in faces
            ),
            "picture": tuple(map(_encode, pictures[:, 0])),
        },
    )


def _encode(picture: NDArray[np.uint8]) -> bytes:
    """Encode a crop (S, S, 3) RGB as JPEG, as pages show it."""
    side = min(picture.shape[0], SHOWN_SIDE)
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return content.tobytes()


def _make_remark(frame: _Frame, reason: str) -> Sample:
    return Sample(inputs={}, rows={"id": ("",), **_repeat(frame, reason, 1)})


def _repeat(frame: _Frame, reason: str, rows: int) -> dict[str, tuple[Any, ...]]:
    one = {"frame": frame.index, "second": float(frame.second), "share": float(frame.share), "reason": reason}
    return {name: (value,) * rows for name, value in one.items()}
