"""Writes a video again with its faces marked, each with its score, and with its sound as it was.

PyAV (extra `video`) decodes and encodes the pictures, and copies the sound packet by packet. Between two judged frames
a face keeps its last box and score. Legend: H, W height and width of a frame [px].
"""

from __future__ import annotations

import bisect
import importlib.util
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.files import explain
from sharpstudent.core.io import atomic_path
from sharpstudent.core.types import Answer, InputSource
from sharpstudent.report.predictions import name_files

COLOURS = {"high": (214, 64, 32), "middle": (200, 150, 20), "low": (20, 130, 90)}  # RGB, of boxes
HIGH, LOW = 0.75, 0.25  # probabilities, from which on a box has the colour of either end
LONGEST_HOLD = 2.0  # seconds that a box stays without a newer one
_Mark = tuple[tuple[float, ...], int, float]  # box, person, probability


def annotate_video(source: InputSource, answer: Answer, folder: Path) -> str:
    """Write the marked video beside the page of an input.

    Args:
        source: The video.
        answer: Its final answer, with a row for each face.
        folder: The folder of the answers.

    Returns:
        A line for the user: where it is, or why there is none.
    """
    assert source.path is not None
    if importlib.util.find_spec("av") is None:
        return f"{source.name}: not annotated; PyAV writes the video: {advise_extra('video')}"
    import av  # pyright: ignore[reportMissingImports]

    path = folder / f"{name_files(source)}.annotated.mp4"
    try:
        with atomic_path(path) as temporary:
            sound = _write(source.path, temporary, _collect_marks(answer))
    except (av.FFmpegError, ValueError, StopIteration) as error:
        return f"{source.name}: not annotated ({explain(error)})"
    return f"{source.name}: annotated video, {sound}: {path}"


def _collect_marks(answer: Answer) -> tuple[list[float], list[list[_Mark]]]:
    """Collect the marks of each judged moment, by rising time."""
    column = {name: place for place, name in enumerate(answer.columns)}
    marks: defaultdict[float, list[_Mark]] = defaultdict(list)
    for row in answer.rows:
        box = tuple(float(row[column[side]]) for side in ("left", "top", "right", "bottom"))
        marks[float(row[column["second"]])].append((box, row[column["person"]], row[column["probability"]]))
    seconds = sorted(marks)
    return seconds, [marks[second] for second in seconds]


def _write(source: Path, target: Path, marks: tuple[list[float], list[list[_Mark]]]) -> str:
    """Write the video; return what has become of its sound."""
    import av  # pyright: ignore[reportMissingImports]

    seconds, shown = marks
    with av.open(str(source.absolute())) as reader, av.open(str(target.absolute()), "w", format="mp4") as writer:
        video, sound = reader.streams.video[0], next(iter(reader.streams.audio), None)
        packets: Any = reader.demux([video] if sound is None else [video, sound])
        out: Any = None
        copied: Any = None
        if sound is not None:
            try:
                copied = writer.add_stream_from_template(sound)
            except ValueError:  # a codec that MP4 does not hold
                copied = None
        early: list[Any] = []  # sound before the first picture, whose size the header needs
        for packet in packets:
            if packet.stream.type == "audio":
                early += [packet] if copied is not None else []
                if out is not None:
                    _copy_sound(writer, copied, early)
                continue
            for frame in packet.decode():
                image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
                image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()  # x264 takes even sides
                if out is None:
                    out = _add_stream(writer, video, image)
                    _copy_sound(writer, copied, early)
                second = float(frame.time or 0.0)
                place = bisect.bisect_right(seconds, second + 1e-3) - 1
                if place >= 0 and second - seconds[place] <= LONGEST_HOLD:
                    for mark in shown[place]:
                        _draw(image, mark)
                drawn = av.VideoFrame.from_ndarray(image, format="rgb24")
                drawn.pts, drawn.time_base = frame.pts, frame.time_base
                writer.mux(out.encode(drawn))
        if out is None:
            raise ValueError("it has no frame that can be decoded")
        writer.mux(out.encode())
    return (
        "without sound"
        if sound is None
        else "sound kept"
        if copied is not None
        else "sound left out: MP4 cannot hold it"
    )


def _copy_sound(writer: Any, stream: Any, packets: list[Any]) -> None:
    """Write packets of sound as they are, and forget them."""
    for packet in packets:
        if packet.dts is not None:  # the last one of a stream is empty
            packet.stream = stream
            writer.mux(packet)
    packets.clear()


def _add_stream(writer: Any, video: Any, image: NDArray[np.uint8]) -> Any:
    rate = video.average_rate or Fraction(25)
    out = writer.add_stream("libx264", rate=rate)
    out.height, out.width = image.shape[:2]
    out.pix_fmt = "yuv420p"
    out.codec_context.time_base = video.time_base or 1 / rate
    out.options = {"crf": "20", "preset": "veryfast"}
    return out


def _draw(image: NDArray[np.uint8], mark: _Mark) -> None:
    """Draw the box of a face, and above it the person's number and the probability of fake."""
    box, person, probability = mark
    left, top, right, bottom = (round(side) for side in box)
    colour = COLOURS["high" if probability >= HIGH else "low" if probability < LOW else "middle"]
    width = max(1, round(image.shape[0] / 240))
    cv2.rectangle(image, (left, top), (right, bottom), colour, width)
    scale = max(0.4, image.shape[0] / 900)
    place = (max(left, 0), max(top - 2 * width, round(22 * scale)))
    for shade, thick in (((0, 0, 0), width + 2), ((255, 255, 255), max(1, width))):
        cv2.putText(image, f"{person}: {100 * probability:.0f} %", place, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, thick)
