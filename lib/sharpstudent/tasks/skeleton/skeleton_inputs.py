"""Inputs of predict.py: skeleton files, arrays, and videos with a pose model of the user's.

A file is one sequence, as in training; with `--window` it is a stream that is cut into windows, of which one at a time
is in memory. Legend: n frames, M bodies, V joints.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import read_number, read_path
from sharpstudent.core.files import explain, open_plain, read_plain
from sharpstudent.core.types import Batch, InputSource, Sample
from sharpstudent.data.arrays import read_arrays
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.skeleton import ntu
from sharpstudent.tasks.skeleton.from_pose import detect_bodies
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.motion import METRES, PERSON, Bodies, find_bad, measure_side, scale_pixels
from sharpstudent.tasks.skeleton.movements import build_streams, cut
from sharpstudent.tasks.skeleton.section import SkeletonSection

SUFFIXES = (ntu.SUFFIX, ".npy", ".npz")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
MOST_BYTES = 500_000_000  # of a file of arrays
RATE = 30.0  # frames a second of what does not say it
MOST_FRAMES = 20_000  # of a stream that is taken as one sequence


def add_input_options(inputs: Any) -> None:
    """Add the options of predict.py for skeletons and videos to its group of options."""
    add, count = inputs.add_argument, read_number(int, 2, MOST_FRAMES)
    add("--window", metavar="N", type=count, help="judge windows of N frames (default: a file is one sequence)")
    text = "frames from one window to the next (default: half a window)"
    add("--hop", metavar="N", type=read_number(int, 1, MOST_FRAMES), help=text)
    text = "unit of positions in .npy and .npz (default: m)"
    add("--unit", choices=tuple(METRES), default="m", help=text)
    text = "frames a second of skeleton files, for times (default: 30)"
    add("--rate", metavar="X", type=read_number(float, 0, 1000, above=True), default=RATE, help=text)
    text = "a pose model of yours (.onnx), which finds the joints in videos; docs/skeleton.md names the forms"
    add("--pose-model", metavar="FILE", type=read_path, help=text)


def open_windows(source: InputSource, form: SkeletonSection, skeleton: Skeleton, example: Batch) -> Iterator[Sample]:
    """Read an input as one sequence, or window by window.

    Args:
        source: The file, camera or stream, with the options of `add_input_options`.
        form: The number of frames and bodies of a sample.
        skeleton: The layout of the joints.
        example: A batch of one sample, for files that hold the streams themselves.

    Yields:
        Samples with the columns `start` and `end` [s] and `share`.

    Raises:
        UnreadableSample: For what cannot be read, or shows no body.
    """
    streams = _read_streams(source, example)
    if streams is not None:
        yield streams
        return
    frames, rate = open_frames(source, skeleton)
    window, count = source.options.get("window"), 0
    for start, bodies, share in _cut_windows(source.name, frames, window, source.options.get("hop")):
        sample = _make_sample(source.name, bodies, (start, rate), form, skeleton)
        count += sample is not None
        if sample is not None:
            yield Sample(sample.inputs, rows={**sample.rows, "share": (share,)})
    if not count:
        raise UnreadableSample(source.name, "shows no moving body")


def _read_streams(source: InputSource, example: Batch) -> Sample | None:
    """Read an .npz with the streams joint, velocity and bone; None for anything else."""
    path = source.path
    if path is None or path.suffix.lower() != ".npz":
        return None
    arrays = _load(path, source.name)
    return read_arrays(source, example) if isinstance(arrays, dict) and "velocity" in arrays else None


def _load(path: Path, name: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        found = np.load(io.BytesIO(read_plain(path, most_bytes=MOST_BYTES)), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if sum(record.file_size for record in found.zip.infolist()) > MOST_BYTES:
                raise ValueError("it claims to be larger than any input")
            return {key: found[key] for key in found.files}
    except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        raise UnreadableSample(name, f"is no file of arrays ({explain(error)})") from None


# One frame of a stream: positions (V, 3) in metres by the body's name, and the share that has been read.
Frames = Iterator[tuple[Mapping[str, NDArray[Any]], float]]


def open_frames(source: InputSource, skeleton: Skeleton) -> tuple[Frames, float]:
    """Open an input as a stream of frames, with its rate.

    Args:
        source: The file, camera or stream, with the options of `add_input_options`.
        skeleton: The layout of the joints.

    Returns:
        The frames, which raise UnreadableSample where nothing more can be read; and the frames a second.

    Raises:
        UnreadableSample: For a video without a pose model.
    """
    path, options = source.path, source.options
    rate = float(options.get("rate") or RATE)
    if path is not None and path.suffix.lower() == ntu.SUFFIX:
        return _read_skeleton_frames(path, source.name), rate
    if path is not None and path.suffix.lower() in (".npy", ".npz"):
        return _read_array_frames(path, source.name, METRES[options.get("unit") or "m"], skeleton), rate
    model = options.get("pose_model")
    if model is None:
        raise UnreadableSample(source.name, "is a video, and needs your pose model: --pose-model FILE.onnx")
    return detect_bodies(source, Path(model), skeleton.joints)


def _read_skeleton_frames(path: Path, name: str) -> Frames:
    try:
        with open_plain(path) as file:
            lines = io.TextIOWrapper(file, "utf-8")
            total = ntu.read_count(lines, ntu.MOST_FRAMES)
            for frame in range(total):
                yield ntu.read_frame(lines, frame), (frame + 1) / total
    except (OSError, ValueError) as error:
        raise UnreadableSample(name, f"is no whole {ntu.SUFFIX} file ({explain(error)})") from None


def _read_array_frames(path: Path, name: str, metres: float, skeleton: Skeleton) -> Frames:
    found = _load(path, name)
    array: Any = found if isinstance(found, np.ndarray) else found.get("xyz", found.get("joint"))
    if array is None or array.dtype.kind not in "fiu":
        raise UnreadableSample(name, "holds no array xyz of numbers")
    if array.ndim in (4, 5) and array.shape[-5 if array.ndim == 5 else 0] in (1, 3) and array.shape[-4] == 3:
        array = array.reshape(array.shape[-4:]).transpose(3, 1, 2, 0)  # (3, n, V, M), as of MIB
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[2] != skeleton.joints or array.shape[3] not in (2, 3):
        expected = f"(n, {skeleton.joints}, 3), with two bodies (2, n, {skeleton.joints}, 3)"
        raise UnreadableSample(name, f"holds positions of shape {array.shape}, and {expected} is needed")
    bodies = scale_pixels(array) if array.shape[3] == 2 else array * metres
    for frame in range(bodies.shape[1]):
        there = {str(body): one[frame] for body, one in enumerate(bodies) if one[frame].any()}
        yield there, (frame + 1) / bodies.shape[1]


def _cut_windows(
    name: str, frames: Frames, window: int | None, hop: int | None
) -> Iterator[tuple[int, Bodies | None, float]]:
    """Cut a stream into windows: the first frame of each, its bodies, and the share that has been read."""
    waiting, length, begin, fresh, share = deque[Any](), window or MOST_FRAMES, 0, 0, 0.0
    step = min(hop or max(1, length // 2), length)
    for bodies, share in frames:
        waiting.append(bodies)
        fresh += 1
        if len(waiting) < length:
            continue
        if window is None:
            raise UnreadableSample(name, f"has more than {MOST_FRAMES:,} frames: judge it in windows, --window 64")
        yield begin, _put_together(waiting), share
        for _ in range(step):
            waiting.popleft()
        begin, fresh = begin + step, 0
    if fresh and (window is None or begin == 0 or fresh >= step):
        yield begin, _put_together(waiting), share


def _put_together(frames: deque[Mapping[str, NDArray[Any]]]) -> Bodies | None:
    """Put the frames of a window together: the two bodies that move most; None where there is no body."""
    tracks: dict[str, dict[int, NDArray[Any]]] = {}
    for place, bodies in enumerate(frames):
        for body, xyz in bodies.items():
            tracks.setdefault(body, {})[place] = np.asarray(xyz, np.float64)
    return ntu.join_tracks(tracks, len(frames)) if tracks else None


def _make_sample(
    name: str, bodies: Bodies | None, time: tuple[int, float], form: SkeletonSection, skeleton: Skeleton
) -> Sample | None:
    """Make the sample of a window; None for one without a moving body."""
    if bodies is None or bodies.shape[1] < 2:
        return None
    bad = find_bad(bodies, skeleton)
    if bad is not None:
        raise UnreadableSample(name, bad)
    side = measure_side(bodies)
    if not PERSON[0] <= side <= PERSON[1]:
        other = "mm" if side > PERSON[1] else "m"
        raise UnreadableSample(name, f"shows a person of {side:.3g} m: another unit? try --unit {other}")
    start, rate = time
    missing = form.bodies - len(bodies)
    wanted = bodies[: form.bodies]
    if missing > 0:
        wanted = np.concatenate([wanted, np.zeros((missing, *bodies.shape[1:]))])
    inputs = build_streams(cut(wanted, form, None), skeleton)
    begin, end = start / rate, (start + bodies.shape[1]) / rate
    return Sample(inputs, rows={"id": (f"{name} {begin:.1f} s",), "start": (begin,), "end": (end,)})
