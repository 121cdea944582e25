"""The manifest of a prepared set: an Arrow IPC file, one row a face, read through a memory map.

Rows are sorted by split, so that a split is a range of rows and costs no list of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test", "none")  # in the order of the rows; `none`: kept out of all three


@dataclass(frozen=True)
class FaceRow:
    """One face.

    path: the crop's file, or the shard that holds it, below the manifest's folder, '/' between parts; offset, size:
    the crop's bytes within it [bytes] (offset 0 for a file of its own); crc32: of those bytes. label: real 0, fake 1.
    clip_id: the video; identity: the person whose face is seen; group: people who appear together in some clip, whom
    no split may part. source: the file that the face was cut from, as the user knows it. frame_index: in the video, 0
    for a photo; face_index: 0 for the largest person of the clip, and so on. score: the detector's, 0..1 (1 where the
    source brought its own landmarks); sharpness: variance of the Laplacian of the face, scaled to 100 px; face_size:
    the shorter side of its box [px of the frame]. frame_size: width, height [px]. box_xyxy: float32 (4,) [px of the
    frame]. crop_xyxy: int (4,), what was cut out [px of the frame]; scale: pixels of the stored crop a pixel of the
    frame, at most 1. landmarks: float32 (68 or 81, 2), dlib order [px of the stored crop]. detector: its name and
    version. phash: 64-bit perceptual hash of the face.
    """

    path: str
    offset: int
    size: int
    crc32: int
    label: int
    clip_id: str
    identity: str
    group: str
    split: str
    source_set: str
    manipulation: str
    compression: str
    source: str
    frame_index: int
    face_index: int
    score: float
    sharpness: float
    face_size: float
    frame_size: tuple[int, int]
    box_xyxy: NDArray[np.float32]
    crop_xyxy: tuple[int, int, int, int]
    scale: float
    landmarks: NDArray[np.float32]
    detector: str
    phash: int
