"""Decode a video frame by frame: through OpenCV, or through torchcodec where that is installed and loads.

Both walk forward with `grab`, which decodes, and turn into pixels only what `retrieve` asks for. One thread each: side
by side workers share the cores, and a damaged file gives the same frames every time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

FFMPEG_QUIET = "-8"  # FFmpeg's own number for no messages at all
LIBAVUTIL_VERSIONS = range(61, 55, -1)  # of FFmpeg 9 to 4, which torchcodec knows


class StreamError(Exception):
    """Why a backend cannot read a file."""

    def __init__(self, backend: str, reason: str) -> None:
        self.backend = backend
        self.reason = reason
        super().__init__(f"{backend}: {reason}")


class FrameStream(Protocol):
    """An open video. backend: its name; claimed: the container's count of frames, 0 where it has none; width, height:
    [px] as the container has them.
    """

    backend: str
    claimed: int
    width: int
    height: int

    def grab(self) -> bool:
        """Decode the next frame; False at the end, or where nothing more can be decoded."""
        ...

    def retrieve(self) -> NDArray[np.uint8] | None:
        """The grabbed frame, RGB uint8 (H, W, 3), upright; None when it gives no pixels."""
        ...

    def close(self) -> None: ...


@contextlib.contextmanager
def open_stream(path: Path, backend: str | None = None) -> Generator[FrameStream, None, None]:
    """The video at `path`. backend: "opencv", "torchcodec", or None for the best that loads. Raises StreamError."""
    chosen = backend or ("torchcodec" if torchcodec_loads() else "opencv")
    stream = (TorchcodecStream if chosen == "torchcodec" else OpenCvStream)(path)
    try:
        yield stream
    finally:
        stream.close()


@contextlib.contextmanager
def silence_opencv() -> Generator[None, None, None]:
    """Inside, OpenCV and its FFmpeg report damaged files by their results only.

    FFmpeg's level is read once a process, when OpenCV first opens a video: who opened one before has set it for all.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    before = os.environ.get("OPENCV_FFMPEG_LOGLEVEL")
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = FFMPEG_QUIET
    try:
        yield
    finally:
        if before is None:
            del os.environ["OPENCV_FFMPEG_LOGLEVEL"]
        else:
            os.environ["OPENCV_FFMPEG_LOGLEVEL"] = before
        cv2.utils.logging.setLogLevel(level)


class OpenCvStream:
    """A video through OpenCV's FFmpeg; it turns frames upright by itself."""

    backend = "opencv"

    def __init__(self, path: Path) -> None:
        try:
            # An absolute path begins with "/", so that no name is taken for a protocol such as "concat:".
            self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        except (cv2.error, UnicodeError, ValueError) as error:
            raise StreamError(self.backend, f"cannot be opened ({str(error).strip().splitlines()[0]})") from None
        if not self._capture.isOpened():
            raise StreamError(self.backend, "is no video that can be read, or is cut off")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.claimed = self._read_number(cv2.CAP_PROP_FRAME_COUNT)
        self.width = self._read_number(cv2.CAP_PROP_FRAME_WIDTH)
        self.height = self._read_number(cv2.CAP_PROP_FRAME_HEIGHT)

    def grab(self) -> bool:
        try:
            return self._capture.grab()
        except cv2.error:
            return False

    def retrieve(self) -> NDArray[np.uint8] | None:
        try:
            found, image = self._capture.retrieve()
        except cv2.error:
            return None
        if not found or image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            return None
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        self._capture.release()

    def _read_number(self, key: int) -> int:
        value = self._capture.get(key)
        return int(value) if np.isfinite(value) and value > 0 else 0


class TorchcodecStream:
    """A video through torchcodec's packet decoder. Whatever it stumbles over is a StreamError: OpenCV, which goes on
    behind damage, then reads the file instead.
    """

    backend = "torchcodec"

    def __init__(self, path: Path) -> None:
        # Imported here: it brings torch along, which the rest of this room does without.
        from torchcodec.decoders import ColorConverter, Demuxer  # pyright: ignore[reportMissingImports]

        with self._told():
            demuxer = Demuxer(os.path.abspath(path))
            video: Any = demuxer.streams[0]
            self._frames = _decode_packets(demuxer, video.make_decoder(num_ffmpeg_threads=1))
            self._converter = ColorConverter()
            found = video.metadata
        self.claimed = found.num_frames_from_header or 0
        self.width, self.height = found.width or 0, found.height or 0
        self._frame: Any = None

    def grab(self) -> bool:
        with self._told():
            self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> NDArray[np.uint8] | None:
        with self._told():
            return np.ascontiguousarray(self._converter.convert(self._frame).data.permute(1, 2, 0).numpy())

    def close(self) -> None:
        self._frame, self._frames = None, iter(())

    @contextlib.contextmanager
    def _told(self) -> Generator[None, None, None]:
        try:
            yield
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StreamError(self.backend, f"cannot be decoded ({first})") from None


def _decode_packets(demuxer: Any, decoder: Any) -> Iterator[Any]:
    for packet in demuxer:
        yield from decoder.decode(packet)
    yield from decoder.drain()


@functools.cache
def torchcodec_loads() -> bool:
    """Whether torchcodec is installed and finds FFmpeg's libraries; asked once a process."""
    if sys.platform == "linux" and not any(_loads(f"libavutil.so.{number}") for number in LIBAVUTIL_VERSIONS):
        return False  # it could not load, and trying imports torch: two seconds and 200 MB in every worker
    try:
        import torchcodec  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError):
        return False
    return getattr(torchcodec, "ffmpeg_major_version", None) is not None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
