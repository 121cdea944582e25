"""Small videos with known frames, and what can be wrong with one: a count that lies, a rotation, a missing end."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

STEP = 6  # grey levels from one frame to the next: frame i has the grey level 6 i, of 42 frames at most


def write_video(path: Path, images: Sequence[NDArray[np.uint8]], *, codec: str = "FFV1") -> Path:
    """A video of RGB pictures. codec: FFV1 (lossless; .avi, .mkv), mp4v (.mp4), MJPG (.avi), VP80 (.webm)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (width, height))
    cv2.utils.logging.setLogLevel(level)
    assert writer.isOpened(), codec
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_counting_video(path: Path, frames: int, *, codec: str = "FFV1", size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose pixels tell their frame; size: width, height [px]."""
    return write_video(path, [np.full((size[1], size[0], 3), STEP * i, np.uint8) for i in range(frames)], codec=codec)


def read_number(image: NDArray[np.uint8]) -> int:
    """Which frame of a counting video this is."""
    return round((float(image.mean()) + 1.5) / STEP)  # lossy codecs make a grey up to 4 levels darker


def claim_frames(path: Path, frames: int) -> Path:
    """Write another count into the headers of an AVI file."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"avih") + 8 + 16, frames)
    struct.pack_into("<I", content, content.index(b"strh") + 8 + 32, frames)
    path.write_bytes(content)
    return path


def rotate_video(path: Path, degrees: int) -> Path:
    """Write into an MP4 file that it is to be shown turned clockwise by 90, 180 or 270 degrees."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, layer and volume
    one = 1 << 16
    struct.pack_into(">9i", content, start, cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def claim_size(path: Path, width: int, height: int) -> Path:
    """Write another frame size into the headers of an AVI file [px]."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<II", content, content.index(b"avih") + 8 + 32, width, height)
    struct.pack_into("<ii", content, content.index(b"strf") + 8 + 4, width, height)
    path.write_bytes(content)
    return path


def cut_end(path: Path, share: float) -> Path:
    """Keep only this share of the file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path
