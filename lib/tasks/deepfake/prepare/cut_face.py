"""Cut one face out of a picture: the box that self-blending itself would cut, scaled down to what training needs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.modalities.faces.crop import compute_landmark_box, compute_loose_box, crop
from lib.modalities.faces.phash import compute_phash
from lib.modalities.faces.sharpness import compute_sharpness

SPARE = 1.25  # a crop's face is at most this times the network's input: room for the final crop's margins
# The hash looks at the landmarks' box moved out by this share of it. Detector boxes jump by pixels when a photo is
# compressed or resized; with them half of the size changed 10 of 64 bits, with this 2 (medians over 81 photos).
HASH_MARGIN = 0.25
# Measured on 46 crops of photos and video frames: 7 ms and 149 KB each. OpenCV's default takes 8 ms and 183 KB, level 6
# 46 ms and 140 KB; the filter that looks up one row is also the fastest to decode.
PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 2),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
JPEG_QUALITY = 95


@dataclass(frozen=True)
class FaceCut:
    """A face as it is stored. image: uint8 (h, w, 3) RGB; landmarks: float32 (n, 2) and box_xyxy: float32 (4,), both
    [px of image]; crop_xyxy: what was cut out [px of the picture]; scale: pixels of image a pixel of the picture, at
    most 1.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box_xyxy: NDArray[np.float32]
    crop_xyxy: tuple[int, int, int, int]
    scale: float


def cut_face(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.generic],
    box_xyxy: NDArray[np.float32],
    *,
    largest_face: int,
    whole: bool = False,
) -> FaceCut:
    """The loose crop of a face, or the whole picture, scaled down (never up) until its box is at most `largest_face`
    [px].

    image: uint8 (H, W, 3) RGB; landmarks: (68 or 81, 2) and box_xyxy: (4,), both [px of image].
    """
    height, width = image.shape[:2]
    area = np.array([0, 0, width, height]) if whole else compute_loose_box(landmarks, height, width)
    loose = crop(image, area, landmarks=landmarks, boxes=box_xyxy[None])
    scale = min(1.0, largest_face / float(np.max(box_xyxy[2:] - box_xyxy[:2])))
    pixels, points, boxes = loose.image, loose.landmarks, loose.boxes
    if scale < 1.0:
        pixels = np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        points, boxes = points * scale, boxes * scale
    left, top, right, bottom = (int(value) for value in area)
    return FaceCut(
        pixels, points.astype(np.float32), boxes[0].astype(np.float32), (left, top, right, bottom), float(scale)
    )


def judge_face(cut: FaceCut) -> tuple[float, int]:
    """Sharpness of the face and its perceptual hash, both of the stored pixels around the landmarks."""
    box = compute_landmark_box(cut.landmarks[:68])
    return compute_sharpness(_take(cut.image, box)), compute_phash(_take(cut.image, _move_out(box)))


def encode_picture(image: NDArray[np.uint8], picture: str) -> bytes:
    """The file's bytes of an RGB picture: "png", lossless, or "jpg"."""
    options = PNG_OPTIONS if picture == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, content = cv2.imencode(f".{picture}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"a picture of {image.shape[1]} x {image.shape[0]} px cannot be written as {picture}")
    return content.tobytes()


def _move_out(box: NDArray[np.float32]) -> NDArray[np.float32]:
    margin = HASH_MARGIN * (box[2:] - box[:2])
    return np.concatenate([box[:2] - margin, box[2:] + margin]).astype(np.float32)


def _take(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The part of the picture in a box; at least one pixel, whatever the box."""
    height, width = image.shape[:2]
    left, top = (int(np.clip(round(float(box[i])), 0, (width, height)[i] - 1)) for i in (0, 1))
    right, bottom = (int(np.clip(round(float(box[2 + i])), (left, top)[i] + 1, (width, height)[i])) for i in (0, 1))
    return np.ascontiguousarray(image[top:bottom, left:right])
