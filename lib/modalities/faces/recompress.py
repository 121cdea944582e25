"""Real H.264 recompression of one picture: encoded by libx264 and decoded again, in memory. Needs the extra `video`.

The picture becomes a stream of a single frame, coded by itself (an IDR frame), as every group of pictures of a video
begins. A constant rate factor (CRF) means what it does for videos: 23 and 40 are those of FaceForensics++ c23 and c40.
The frames between, which are predicted from their neighbours, lose somewhat more at the same factor.
"""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.errors import Problem, UserError

ENCODER, DECODER = "libx264", "h264"
# One thread: the same bytes on any number of cores. `medium` is x264's own default, and FaceForensics++'s.
OPTIONS = {"preset": "medium", "x264-params": "threads=1:lookahead-threads=1:log-level=none"}
PIXELS = "yuv420p"  # colour at half the resolution, as nearly all videos have it


def find_obstacle() -> str | None:
    """Why nothing can be recompressed here, in words that end with the remedy; None where it can."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        return 'H.264 recompression needs the package av: pip install ".[video]"'
    if ENCODER not in av.codecs_available:
        return f'the installed package av has no encoder {ENCODER}: pip install --force-reinstall ".[video]"'
    return None


def recompress_h264(picture: NDArray[np.uint8], crf: float) -> NDArray[np.uint8]:
    """The picture after H.264 at a constant rate factor, 0 (nearly lossless) to 51 (worst).

    picture: uint8 (H, W, 3) RGB; the same comes back. An odd side is padded by a copy of its last row or column, which
    is cut off again. Raises UserError where `find_obstacle` has a reason.
    """
    obstacle = find_obstacle()
    if obstacle is not None:
        raise UserError(Problem(where="h264", what=obstacle))
    height, width = picture.shape[:2]
    even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(_decode(_encode(np.ascontiguousarray(even, np.uint8), crf))[:height, :width])


def _encode(picture: NDArray[np.uint8], crf: float) -> list[bytes]:
    import av  # pyright: ignore[reportMissingImports]

    encoder = av.CodecContext.create(ENCODER, "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = PIXELS, Fraction(1, 25), 1
    encoder.options = {**OPTIONS, "crf": f"{crf:g}"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=PIXELS)
    frame.pts = 0
    return [bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None))]


def _decode(stream: list[bytes]) -> NDArray[np.uint8]:
    import av  # pyright: ignore[reportMissingImports]

    decoder = av.CodecContext.create(DECODER, "r")
    decoder.thread_count = 1
    frames = [frame for content in stream for frame in decoder.decode(av.Packet(content))]
    (frame,) = frames + decoder.decode(None)
    return np.array(frame.to_ndarray(format="rgb24"), np.uint8)  # a copy: the decoder owns the other
