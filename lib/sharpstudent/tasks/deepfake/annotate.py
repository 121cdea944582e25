"""Writes a video again with its faces marked, each with its score, and with its sound as it was.

PyAV (extra `video`) decodes and encodes the pictures, and copies the sound packet by packet; sound that MP4 cannot hold
is encoded anew. Between two judged frames a face keeps its last box and score.

Legend: H, W height and width of a frame [px].
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

    with av.open(str(source.absolute())) as reader, av.open(str(target.absolute()), "w", format="mp4") as writer:
        video, heard = reader.streams.video[0], next(iter(reader.streams.audio), None)
        sound = _Sound(writer, heard)
        packets: Any = reader.demux([video] if heard is None else [video, heard])
        out: Any = None
        for packet in packets:
            if packet.stream.type == "audio":
                sound.add(packet)
                continue
            for frame in packet.decode():
                image = _draw_marks(frame, marks)
                if out is None:
                    out = _add_stream(writer, video, image)
                    sound.start()
                drawn = av.VideoFrame.from_ndarray(image, format="rgb24")
                drawn.pts, drawn.time_base = frame.pts, frame.time_base
                writer.mux(out.encode(drawn))
        if out is None:
            raise ValueError("it has no frame that can be decoded")
        writer.mux(out.encode())
        sound.finish()
    return sound.fate


class _Sound:
    """The sound on its way into the marked video: packet by packet as it is, or as AAC where MP4 cannot hold it.

    Attributes:
        fate: What becomes of it, in words.
    """

    def __init__(self, writer: Any, heard: Any) -> None:
        self._writer, self._encoder = writer, None
        self._copied: Any = None
        self._early: list[Any] | None = []  # before the first picture, whose size the header needs
        self.fate = "without sound"
        if heard is None:
            return
        try:
            self._copied, self.fate = writer.add_stream_from_template(heard), "sound kept"
        except ValueError:  # a codec that MP4 does not hold
            self._encoder: Any = writer.add_stream(
                "aac", rate=heard.rate, layout="mono" if heard.channels == 1 else "stereo"
            )
            self.fate = "sound kept, encoded anew as AAC because MP4 cannot hold it as it was"

    def add(self, packet: Any) -> None:
        """Write a packet, or keep it until the video has begun."""
        if self._early is not None:
            self._early.append(packet)
        elif self._encoder is not None:
            for frame in packet.decode():
                self._writer.mux(self._encoder.encode(frame))
        elif packet.dts is not None:  # the last one of a stream is empty
            packet.stream = self._copied
            self._writer.mux(packet)

    def start(self) -> None:
        """Write what came before the first picture."""
        early, self._early = self._early or [], None
        for packet in early:
            self.add(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._encoder is not None:
            self._writer.mux(self._encoder.encode(None))


def _draw_marks(frame: Any, marks: tuple[list[float], list[list[_Mark]]]) -> NDArray[np.uint8]:
    """Draw what was judged at a frame, or shortly before it, into its picture, upright and of even sides."""
    seconds, shown = marks
    image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()  # x264 takes even sides
    second = float(frame.time or 0.0)
    place = bisect.bisect_right(seconds, second + 1e-3) - 1
    if place >= 0 and second - seconds[place] <= LONGEST_HOLD:
        for mark in shown[place]:
            _draw(image, mark)
    return image


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
