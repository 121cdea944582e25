"""How faces are cut: what decides the bytes of a crop, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.tasks.deepfake.layouts.clip import Rejected


@dataclass(frozen=True)
class CutSettings:
    """frames: sampled from each video by linspace over its decodable frames; faces: the largest person of a clip, or
    all; image_size: the network's input that the crops shall serve [px], larger faces are scaled down to 1.25 times
    it; min_face: faces whose box is narrower or lower are rejected [px of the frame]; picture: how crops are stored.
    """

    frames: int = 32
    faces: Literal["largest", "all"] = "largest"
    image_size: int = 380
    min_face: int = 40
    picture: Literal["png", "jpg"] = "png"


@dataclass(frozen=True)
class CutFace:
    """One crop and what the manifest says of it; see `lib.data.manifest.FaceRow` for the fields and their units.

    content: the picture file's bytes.
    """

    content: bytes
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


@dataclass(frozen=True)
class CutClip:
    """What one clip gave. frames_read: how many were looked at; frames_with_face: in how many a face was found."""

    faces: tuple[CutFace, ...]
    rejected: tuple[Rejected, ...]
    frames_read: int
    frames_with_face: int
