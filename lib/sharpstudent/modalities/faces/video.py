"""Chosen frames of a video, decoded forward: by torchcodec where it loads, else by OpenCV; what it cannot, by PyAV.

The FFmpeg within OpenCV has no software decoder for AV1, and none for VVC. PyAV (extra `video`) brings an FFmpeg with
both. Where it is not installed, the reason names the codec and the package.

Seeking is unreliable, and a container's own count of frames may be wrong. So all backends step forward with `grab`,
which decodes, and convert a frame to RGB only where `retrieve` is called. Each uses one thread: the worker processes
share the cores, and a damaged file gives the same frames every time.

Frames are evenly spread (linspace) over those that can be decoded. The claimed count is trusted until decoding shows
another: in the ordinary case a video is decoded once, and only the chosen frames are converted to RGB.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.files import check_plain, explain

FFMPEG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"
FFMPEG_QUIET = "-8"  # FFmpeg's own number for no messages at all
LIBAVUTIL_VERSIONS = range(61, 55, -1)  # of FFmpeg 9 to 4, which torchcodec knows


class StreamError(Exception):
    """Raised where a backend cannot read a file; its text is the reason."""

    def __init__(self, backend: str, reason: str) -> None:
        self.backend = backend
        self.reason = reason
        super().__init__(f"{backend}: {reason}")


@contextlib.contextmanager
def open_stream(path: Path | str | int, backend: str | None = None) -> Generator[FrameStream]:
    """Open a video.

    Args:
        path: The file; for OpenCV and PyAV also the address of a stream, and for OpenCV the number of a camera.
        backend: "opencv", "torchcodec", "pyav", or None for torchcodec where it loads and OpenCV elsewhere.

    Yields:
        The open video.

    Raises:
        StreamError: Where the backend cannot read it.
    """
    chosen = backend or ("torchcodec" if torchcodec_loads() else "opencv")
    stream = _STREAMS[chosen](path)  # pyright: ignore[reportArgumentType]
    try:
        yield stream
    finally:
        stream.close()


class _Silence:
    """How many threads want OpenCV silent: the first silences it, the last restores what was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before: tuple[int, str | None] = (0, None)

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
                self._before = level, os.environ.get(FFMPEG_LEVEL)
                os.environ[FFMPEG_LEVEL] = FFMPEG_QUIET
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count > 0:
                return
            level, of_ffmpeg = self._before
            if of_ffmpeg is None:
                os.environ.pop(FFMPEG_LEVEL, None)
            else:
                os.environ[FFMPEG_LEVEL] = of_ffmpeg
            cv2.utils.logging.setLogLevel(level)


_SILENCE = _Silence()


@contextlib.contextmanager
def silence_opencv() -> Generator[None]:
    """Keep OpenCV and its FFmpeg from printing messages about damaged files; threads may do so at the same time.

    FFmpeg's level is read once a process, when OpenCV first opens a video: code that opened one before has set it for
    all.
    """
    _SILENCE.begin()
    try:
        yield
    finally:
        _SILENCE.end()


class OpenCvStream:
    """A video that is decoded by OpenCV's FFmpeg, which turns frames upright by itself.

    Attributes:
        claimed: The container's count of frames, 0 where it has none.
        rate: The container's frames a second, 0 where it has none.
        width: The width by the container [px].
        height: The height by the container [px].
        codec: The four letters of the codec; "" where the container has none.
    """

    backend = "opencv"

    def __init__(self, path: Path | str | int) -> None:
        try:
            # An absolute path begins with "/", so that no name is taken for a protocol such as "concat:".
            self._capture = (
                cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
                if isinstance(path, Path)
                else cv2.VideoCapture(path)
            )
        except (cv2.error, UnicodeError, ValueError) as error:
            raise StreamError(self.backend, f"cannot be opened ({str(error).strip().splitlines()[0]})") from None
        if not self._capture.isOpened():
            kind = "video that can be read, or is cut off" if isinstance(path, Path) else "stream that can be opened"
            kind = "camera that can be opened" if isinstance(path, int) else kind
            raise StreamError(self.backend, f"is no {kind}")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.claimed = self._read_number(cv2.CAP_PROP_FRAME_COUNT)
        self.width = self._read_number(cv2.CAP_PROP_FRAME_WIDTH)
        self.height = self._read_number(cv2.CAP_PROP_FRAME_HEIGHT)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = float(rate) if np.isfinite(rate) and rate > 0 else 0.0
        fourcc = self._read_number(cv2.CAP_PROP_FOURCC)
        self.codec = bytes(fourcc >> shift & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0 ")

    def grab(self) -> bool:
        """Decode the next frame; False at the end, or where nothing more can be decoded."""
        try:
            return self._capture.grab()
        except cv2.error:
            return False

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Convert the grabbed frame to pixels, RGB uint8 (H, W, 3), upright; None where it has none."""
        try:
            found, image = self._capture.retrieve()
        except cv2.error:
            return None
        if not found or image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            return None
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    @property
    def second(self) -> float:
        """When the grabbed frame is shown [s]; NaN where that is not known."""
        found = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return float(found) if np.isfinite(found) and found >= 0 else float("nan")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _read_number(self, key: int) -> int:
        value = self._capture.get(key)
        return int(value) if np.isfinite(value) and value > 0 else 0


class TorchcodecStream:
    """A video that is decoded by torchcodec's packet decoder; its attributes are those of `OpenCvStream`.

    Any failure is a StreamError; the file is then read by OpenCV, which continues decoding after a damaged place.
    """

    backend = "torchcodec"

    def __init__(self, path: Path) -> None:
        # Imported here, because it imports torch, which nothing else in this package needs.
        from torchcodec.decoders import ColorConverter, Demuxer  # pyright: ignore[reportMissingImports]

        with self._raise_stream_errors():
            demuxer = Demuxer(os.path.abspath(path))
            video: Any = demuxer.streams[0]
            self._frames = _decode_packets(demuxer, video.make_decoder(num_ffmpeg_threads=1))
            self._converter = ColorConverter()
            found = video.metadata
        self.codec = str(getattr(found, "codec", None) or "")
        self.claimed = found.num_frames_from_header or 0
        self.rate = float(getattr(found, "average_fps_from_header", None) or 0.0)
        self.width, self.height = found.width or 0, found.height or 0
        self._frame: Any = None

    def grab(self) -> bool:
        """Decode the next frame; False at the end."""
        with self._raise_stream_errors():
            self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Convert the grabbed frame to pixels, RGB uint8 (H, W, 3), upright."""
        with self._raise_stream_errors():
            return np.ascontiguousarray(self._converter.convert(self._frame).data.permute(1, 2, 0).numpy())

    @property
    def second(self) -> float:
        """When the grabbed frame is shown [s]; NaN where that is not known."""
        found = getattr(self._frame, "pts_seconds", None)
        return float("nan") if found is None else float(found)

    def close(self) -> None:
        """Release the file."""
        self._frame, self._frames = None, iter(())

    @contextlib.contextmanager
    def _raise_stream_errors(self) -> Generator[None]:
        try:
            yield
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StreamError(self.backend, f"cannot be decoded ({first})") from None


class PyAvStream:
    """A video that is decoded by PyAV; its attributes are those of `OpenCvStream`."""

    backend = "pyav"

    def __init__(self, path: Path | str) -> None:
        # Imported here: it is an extra, and its FFmpeg needs memory in every worker.
        import av  # pyright: ignore[reportMissingImports]

        self._errors = (av.FFmpegError, ValueError, UnicodeError, IndexError)
        try:
            self._container: Any = av.open(os.path.abspath(path) if isinstance(path, Path) else path)
        except self._errors as error:
            raise StreamError(self.backend, f"cannot be opened ({explain(error)})") from None
        stream = next(iter(self._container.streams.video), None)
        if stream is None:
            self._container.close()
            raise StreamError(self.backend, "has no video stream")
        stream.codec_context.thread_count = 1
        self._frames = self._container.decode(stream)
        self.codec = stream.codec_context.name
        self.claimed, self.width, self.height = stream.frames, stream.width or 0, stream.height or 0
        self.rate = float(stream.average_rate or 0.0)
        self._frame: Any = None

    def grab(self) -> bool:
        """Decode the next frame; False at the end, or where nothing more can be decoded."""
        try:
            self._frame = next(self._frames, None)
        except self._errors:
            self._frame = None
        return self._frame is not None

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Convert the grabbed frame to pixels, RGB uint8 (H, W, 3), upright; None where it has none."""
        try:
            image = self._frame.to_ndarray(format="rgb24")
        except self._errors:
            return None
        # The rotation of the display matrix is counter-clockwise, as that of NumPy.
        return np.ascontiguousarray(np.rot90(image, round(self._frame.rotation / 90)))

    @property
    def second(self) -> float:
        """When the grabbed frame is shown [s]; NaN where that is not known."""
        return float("nan") if self._frame.time is None else float(self._frame.time)

    def close(self) -> None:
        """Close the file."""
        self._container.close()


FrameStream = OpenCvStream | TorchcodecStream | PyAvStream
_STREAMS: dict[str, type[FrameStream]] = {
    "torchcodec": TorchcodecStream,
    "opencv": OpenCvStream,
    "pyav": PyAvStream,
}
# Codecs that OpenCV's FFmpeg opens and does not decode, by their four letters, with the name that people know.
_CODECS = {"av01": "AV1", "vvc1": "VVC (H.266)", "vvi1": "VVC (H.266)", "apv1": "APV", "evc1": "EVC"}


def _decode_packets(demuxer: Any, decoder: Any) -> Iterator[Any]:
    for packet in demuxer:
        yield from decoder.decode(packet)
    yield from decoder.drain()


@functools.cache
def torchcodec_loads() -> bool:
    """Whether torchcodec is installed and finds FFmpeg's libraries; it is tried once a process."""
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


LARGEST_FRAME = 50_000_000  # [px]; 8K video has 33 million, a frame of this size takes 150 MB
LONGEST_VIDEO = 10_000_000  # frames, four days at 30 a second: a larger claim is not believed

Result = TypeVar("Result")
Use = Callable[[int, NDArray[np.uint8]], Result]


class UnreadableVideo(Exception):
    """Raised for a file that gives no frames, with the reason."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableVideo], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # exceptions with two arguments do not cross processes otherwise


@dataclass(frozen=True)
class SampledVideo(Generic[Result]):
    """The chosen frames of a video.

    Attributes:
        frames: The number of frames that can be decoded.
        indices: The indices of the chosen frames, ascending.
        results: What `use` made of them, by index.
        failed: The chosen frames without pixels, by index with the reason; the others are in results.
        backend: "opencv", "torchcodec" or "pyav".
        claimed: The number of frames by the container, 0 where it has none.
        seconds: When each chosen frame is shown, by index [s].
    """

    frames: int
    indices: tuple[int, ...]
    results: dict[int, Result]
    failed: dict[int, str]
    backend: str
    claimed: int = 0
    seconds: dict[int, float] = field(default_factory=dict[int, float])


def choose_frames(frames: int, count: int) -> tuple[int, ...]:
    """Choose evenly spread frames, from the first to the last.

    Args:
        frames: How many frames there are.
        count: How many frames are wanted; all are chosen where there are fewer.

    Returns:
        Their numbers, rising.
    """
    if frames < 1 or count < 1:
        return ()
    spread = np.linspace(0, frames - 1, min(frames, count)).round().astype(np.int64)
    return tuple(np.unique(spread).tolist())


def sample_video(path: Path, count: int, use: Use[Result], *, backend: str | None = None) -> SampledVideo[Result]:
    """Give chosen frames of a video to a function, one at a time and in order, so that no two are in memory at once.

    All backends choose the same frames. They would count the frames of a damaged file differently, so that OpenCV
    reads such a file even where torchcodec is installed. A file of which OpenCV decodes nothing is read by PyAV.

    Args:
        path: The file.
        count: How many frames are chosen, evenly spread.
        use: Called with a frame's index and its RGB pixels, uint8 (H, W, 3), upright (the file's rotation is applied).
            Where the container's count was wrong, it has also been called with frames that are not in the result.
        backend: The backend, as in `open_stream`.

    Returns:
        What `use` made of the frames.

    Raises:
        UnreadableVideo: Where the file gives no frames.
    """
    results: dict[int, Result] = {}
    steps = iterate_sampled(path, count, backend=backend)
    while True:
        try:
            frame = next(steps)
        except StopIteration as end:
            about: SampledVideo[Result] = end.value
            return replace(about, results={index: results[index] for index in about.indices if index in results})
        if frame.image is not None:
            results[frame.index] = use(frame.index, frame.image)


def iterate_sampled(
    path: Path, count: int, *, backend: str | None = None
) -> Generator[TimedFrame, None, SampledVideo[Any]]:
    """Give chosen frames of a video one at a time, as `sample_video` does.

    Args:
        path: The file.
        count: How many frames are chosen, evenly spread.
        backend: The backend, as in `open_stream`.

    Yields:
        Frames with pixels. Where the container's count was wrong, there are some among them that were not chosen, or
        that come again.

    Returns:
        The chosen frames, without results.

    Raises:
        UnreadableVideo: Where the file gives no frames.
    """
    _check_file(path)
    with silence_opencv():
        try:
            return (yield from _sample(path, count, backend))
        except StreamError as error:
            if error.backend == "torchcodec":
                return (yield from iterate_sampled(path, count, backend="opencv"))
            reason = error.reason
            if error.backend == "opencv" and importlib.util.find_spec("av") is not None:
                with contextlib.suppress(StreamError):  # OpenCV's reason is told
                    return (yield from _sample(path, count, "pyav"))
            raise UnreadableVideo(str(path), reason) from None


def _check_file(path: Path) -> None:
    """Raise UnreadableVideo for anything but a plain file: opening a pipe would wait for ever."""
    try:
        if check_plain(path) == 0:
            raise UnreadableVideo(str(path), "is empty (0 bytes)")
    except OSError as error:
        raise UnreadableVideo(str(path), explain(error)) from None
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # OpenCV would crash the whole process
        raise UnreadableVideo(str(path), "has a name that is no valid UTF-8; rename it") from None


def _sample(path: Path, count: int, backend: str | None) -> Generator[TimedFrame, None, SampledVideo[Any]]:
    found: dict[int, TimedFrame] = {}  # without the pixels

    def keep(stream: FrameStream, index: int) -> TimedFrame:
        """Turn the grabbed frame into pixels, or note why it gives none.

        Args:
            stream: The video.
            index: The index of the frame.
        """
        image, reason = stream.retrieve(), ""
        if image is None:
            reason = "cannot be turned into pixels"
        elif image.shape[0] * image.shape[1] > LARGEST_FRAME:
            image, reason = None, _explain_size(image.shape[1], image.shape[0])
        share = min(index / stream.claimed, 1.0) if stream.claimed else 0.0
        found[index] = TimedFrame(index, find_second(stream, index), share, None, reason)
        return replace(found[index], image=image)

    with open_stream(path, backend) as stream:
        name = stream.backend
        if stream.width * stream.height > LARGEST_FRAME:
            raise UnreadableVideo(str(path), f"its frames are {_explain_size(stream.width, stream.height)}")
        codec = stream.codec
        claimed = stream.claimed if 0 < stream.claimed <= LONGEST_VIDEO else 0
        frames = yield from _decode(stream, choose_frames(claimed, count), keep, to_end=True)
    if name == "torchcodec" and frames != claimed:
        raise StreamError(name, f"has {frames} frames that can be decoded and claims {claimed}")
    if frames == 0:
        raise StreamError(name, _explain_no_frame(codec, claimed))
    indices = choose_frames(frames, count)
    missing = [index for index in indices if index not in found]
    if missing:
        with open_stream(path, name) as stream:
            yield from _decode(stream, missing, keep, to_end=False)
    failed = {index: found[index].reason if index in found else "cannot be decoded" for index in indices}
    return SampledVideo(
        frames=frames,
        indices=indices,
        results={},
        failed={index: reason for index, reason in failed.items() if reason},
        backend=name,
        claimed=claimed,
        seconds={index: found[index].second for index in indices if index in found},
    )


def _decode(
    stream: FrameStream,
    wanted: tuple[int, ...] | list[int],
    keep: Callable[[FrameStream, int], TimedFrame],
    *,
    to_end: bool,
) -> Generator[TimedFrame, None, int]:
    """Decode forward, and keep the wanted frames; to_end: go on after the last of them. Returns the frames decoded."""
    chosen, last = frozenset(wanted), max(wanted, default=-1)
    index = 0
    while (to_end or index <= last) and stream.grab():
        if index in chosen:
            yield keep(stream, index)
        index += 1
    return index


def find_second(stream: FrameStream, index: int) -> float:
    """Find when the grabbed frame is shown [s]: by its own time, else by its number, at 25 frames a second at worst."""
    second = stream.second
    return second if np.isfinite(second) and (second > 0 or index == 0) else index / (stream.rate or 25.0)


@dataclass(frozen=True)
class TimedFrame:
    """A frame of a video that is read from its beginning to its end.

    Attributes:
        index: Its number, from 0.
        second: When it is shown [s].
        share: How much of the video has been read, 0..1; 0 where the container does not tell.
        image: Its RGB pixels, uint8 (H, W, 3), upright; None where it has none.
        reason: Why it has no pixels; "" where it has.
    """

    index: int
    second: float
    share: float
    image: NDArray[np.uint8] | None
    reason: str = ""


def iterate_video(source: Path | str | int, *, rate: float | None = None) -> Generator[TimedFrame]:
    """Read frames of a file, a stream or a camera one at a time, so that no two are in memory at once.

    What OpenCV cannot decode is read by PyAV, where it is installed.

    Args:
        source: The file; the address of a stream; or the number of a camera.
        rate: How many frames a second are given, at most; None for every frame.

    Yields:
        The frames, in order.

    Raises:
        UnreadableVideo: Where the source gives no frames.
    """
    if isinstance(source, Path):
        _check_file(source)
    with silence_opencv():
        reason = ""
        for backend in ("opencv", "pyav"):
            if backend == "pyav" and (isinstance(source, int) or importlib.util.find_spec("av") is None):
                continue
            try:
                yield from _iterate(source, backend, rate)
                return
            except StreamError as error:
                reason = reason or error.reason
        raise UnreadableVideo(str(source), reason)


def _iterate(source: Path | str | int, backend: str, rate: float | None) -> Generator[TimedFrame]:
    """Yield the frames; StreamError where there is none at all."""
    with open_stream(source, backend) as stream:
        if stream.width * stream.height > LARGEST_FRAME:
            raise UnreadableVideo(str(source), f"its frames are {_explain_size(stream.width, stream.height)}")
        index, due = 0, 0.0
        while stream.grab():
            second = find_second(stream, index)
            if rate is None or second >= due - 1e-6:
                due = max(due, second) if rate is None else (np.floor(second * rate + 1e-6) + 1) / rate
                image = stream.retrieve()
                reason = "" if image is not None else "cannot be turned into pixels"
                yield TimedFrame(
                    index, second, min(index / stream.claimed, 1.0) if stream.claimed else 0.0, image, reason
                )
            index += 1
        if index == 0:
            raise StreamError(backend, _explain_no_frame(stream.codec, stream.claimed))


def _explain_no_frame(codec: str, claimed: int) -> str:
    if claimed == 0:
        return "has no frame that can be decoded: its header names none"
    named = _CODECS.get(codec.lower(), codec)
    reason = f"has no frame that can be decoded (codec {named})" if named else "has no frame that can be decoded"
    if importlib.util.find_spec("av") is None:
        return f"{reason}; PyAV decodes more codecs than OpenCV, AV1 among them: {advise_extra('video')}"
    return reason


def _explain_size(width: int, height: int) -> str:
    return f"{width} x {height} px, more than the {LARGEST_FRAME / 1e6:.0f} megapixels that are read"
