"""Chosen frames of a video, decoded forward: seeking is unreliable, and a container's own count of frames may lie.

Frames are evenly spread (linspace) over those that can really be decoded. The claimed count is trusted until decoding
shows another: in the ordinary case a video is decoded once, and only the chosen frames are turned into pixels.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lib.modalities.faces.video_streams import FrameStream, StreamError, open_stream, silence_opencv

LARGEST_FRAME = 50_000_000  # [px]; 8K video has 33 million, a frame of this size takes 150 MB
LONGEST_VIDEO = 10_000_000  # frames, four days at 30 a second: a larger claim is not believed

Result = TypeVar("Result")
Use = Callable[[int, NDArray[np.uint8]], Result]


class UnreadableVideo(Exception):
    """A file that gives no frames, with the reason."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableVideo], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # exceptions with two arguments do not cross processes otherwise


@dataclass(frozen=True)
class SampledVideo(Generic[Result]):
    """What `sample_video` gives. frames: how many can be decoded; indices: the chosen ones, rising; results: what `use`
    made of them; failed: the chosen ones that were decoded and gave no pixels, with the reason (the others are in
    results); backend: "opencv" or "torchcodec".
    """

    frames: int
    indices: tuple[int, ...]
    results: dict[int, Result]
    failed: dict[int, str]
    backend: str


def choose_frames(frames: int, count: int) -> tuple[int, ...]:
    """`count` of so many frames, evenly spread from the first to the last; all of them when there are no more."""
    if frames < 1 or count < 1:
        return ()
    spread = np.linspace(0, frames - 1, min(frames, count)).round().astype(np.int64)
    return tuple(np.unique(spread).tolist())


def sample_video(path: Path, count: int, use: Use[Result], *, backend: str | None = None) -> SampledVideo[Result]:
    """Give `count` frames of a video to `use`, one at a time and in order, so that no two are in memory at once.

    use: called with a frame's index and its RGB pixels, uint8 (H, W, 3), upright (the rotation in the file is applied).
    Where the container lied about its count, `use` has seen frames that are not in the result. backend: None takes
    torchcodec where it loads and OpenCV elsewhere. Both choose the same frames: on damaged files, where they would not
    count alike, torchcodec leaves the file to OpenCV. Raises UnreadableVideo.
    """
    _check_file(path)
    with silence_opencv():
        try:
            return _sample(path, count, use, backend)
        except StreamError as error:
            if error.backend == "opencv":
                raise UnreadableVideo(str(path), error.reason) from None
        try:
            return _sample(path, count, use, "opencv")
        except StreamError as error:
            raise UnreadableVideo(str(path), error.reason) from None


def _check_file(path: Path) -> None:
    """Opening a pipe would wait for ever, so what is no plain file is refused before."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise UnreadableVideo(str(path), getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableVideo(str(path), "is no file")
    if found.st_size == 0:
        raise UnreadableVideo(str(path), "is empty (0 bytes)")
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # OpenCV would crash the whole process
        raise UnreadableVideo(str(path), "has a name that is no valid UTF-8; rename it") from None
    if not os.access(path, os.R_OK):
        raise UnreadableVideo(str(path), "may not be read (permission denied)")


def _sample(path: Path, count: int, use: Use[Result], backend: str | None) -> SampledVideo[Result]:
    results: dict[int, Result] = {}
    failed: dict[int, str] = {}

    def keep(stream: FrameStream, index: int) -> None:
        image = stream.retrieve()
        if image is None:
            failed[index] = "cannot be turned into pixels"
        elif image.shape[0] * image.shape[1] > LARGEST_FRAME:
            failed[index] = _explain_size(image.shape[1], image.shape[0])
        else:
            results[index] = use(index, image)

    with open_stream(path, backend) as stream:
        name = stream.backend
        if stream.width * stream.height > LARGEST_FRAME:
            raise UnreadableVideo(str(path), f"its frames are {_explain_size(stream.width, stream.height)}")
        claimed = stream.claimed if 0 < stream.claimed <= LONGEST_VIDEO else 0
        frames = _decode(stream, choose_frames(claimed, count), keep, to_end=True)
    if name == "torchcodec" and frames != claimed:
        raise StreamError(name, f"has {frames} frames that can be decoded and claims {claimed}")
    if frames == 0:
        raise UnreadableVideo(str(path), "has no frame that can be decoded")
    indices = choose_frames(frames, count)
    missing = [index for index in indices if index not in results and index not in failed]
    if missing:
        with open_stream(path, name) as stream:
            _decode(stream, missing, keep, to_end=False)
    return SampledVideo(
        frames=frames,
        indices=indices,
        results={index: results[index] for index in indices if index in results},
        failed={index: failed.get(index, "cannot be decoded") for index in indices if index not in results},
        backend=name,
    )


def _decode(
    stream: FrameStream, wanted: tuple[int, ...] | list[int], keep: Callable[[FrameStream, int], None], *, to_end: bool
) -> int:
    """Decode forward and keep the wanted frames; to_end: go on after the last of them. Returns the frames decoded."""
    chosen, last = frozenset(wanted), max(wanted, default=-1)
    index = 0
    while (to_end or index <= last) and stream.grab():
        if index in chosen:
            keep(stream, index)
        index += 1
    return index


def _explain_size(width: int, height: int) -> str:
    return f"{width} x {height} px, more than the {LARGEST_FRAME / 1e6:.0f} megapixels that are read"
