"""Crops the faces of one picture, the largest first.

Faces are found by the networks, or given as landmarks and boxes that came with the data set. A face is cropped by the
box that self-blending itself would take, and scaled down to the resolution that training needs.

Legend: H, W height and width of a picture [px].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.files import explain, read_plain
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.crop import (
    compute_iou,
    compute_landmark_box,
    compute_phash,
    compute_sharpness,
)
from sharpstudent.modalities.faces.detect import DetectedFace, Detects, find_upright
from sharpstudent.tasks.deepfake.layouts.clip import USED, FrameFiles
from sharpstudent.tasks.deepfake.prepare.parts import FaceCrop
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.sources.face import MOST_BYTES, read_boxes, read_landmarks
from sharpstudent.tasks.deepfake.sources.face_crops import SPARE, CroppedFace, crop_face

# The hash looks at the landmarks' box moved out by this share of it. Detector boxes jump by pixels when a photo is
# compressed or resized; with them half of the size changed 10 of 64 bits, with this 2 (medians over 81 photos).
HASH_MARGIN = 0.25
# Measured on 46 crops of photos and video frames: 7 ms and 149 KB each. OpenCV's default takes 8 ms and 183 KB, level 6
# 46 ms and 140 KB. PNG's filter Up, which subtracts the row above, is also the fastest to decode.
PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 2),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
JPEG_QUALITY = 95


def measure_face(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> tuple[float, int]:
    """Compute the sharpness of a face and its perceptual hash, both from the stored pixels around the landmarks."""
    box = compute_landmark_box(landmarks[:68])
    return compute_sharpness(slice_box(image, box)), compute_phash(slice_box(image, _widen(box)))


def encode_picture(image: NDArray[np.uint8], picture: str) -> bytes:
    """Encode a picture.

    Args:
        image: uint8 (H, W, 3) RGB.
        picture: "png", which is lossless, or "jpg".

    Returns:
        The bytes of the file.
    """
    options = PNG_OPTIONS if picture == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, content = cv2.imencode(f".{picture}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"a picture of {image.shape[1]} x {image.shape[0]} px cannot be written as {picture}")
    return content.tobytes()


def _widen(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move the sides of a box out by HASH_MARGIN of its own sides."""
    margin = HASH_MARGIN * (box[2:] - box[:2])
    return np.concatenate([box[:2] - margin, box[2:] + margin]).astype(np.float32)


def slice_box(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the part of the picture in a box; at least one pixel, whatever the box."""
    height, width = image.shape[:2]
    left, top = (int(np.clip(round(float(box[i])), 0, (width, height)[i] - 1)) for i in (0, 1))
    right, bottom = (int(np.clip(round(float(box[2 + i])), (left, top)[i] + 1, (width, height)[i])) for i in (0, 1))
    return np.ascontiguousarray(image[top:bottom, left:right])


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Mesh(Protocol):
    """Locates the landmarks of a face."""

    def locate_81(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Locate 81 landmarks.

        Args:
            image: uint8 (H, W, 3) RGB.
            face: The face as the detector found it.

        Returns:
            float32 (81, 2), dlib order [px of the image].
        """
        ...


@dataclass(frozen=True)
class Networks:
    """The networks that find faces and their landmarks.

    Attributes:
        detector: Finds faces.
        mesh: Locates the landmarks of a face.
        found_by: The names and versions of both, for the manifest.
    """

    detector: Detects
    mesh: Mesh
    found_by: str


@dataclass(frozen=True)
class Picture:
    """A frame in memory.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        source: Its file, as the user knows it.
        index: Its number in the video.
        turned: By how many degrees it was turned counter-clockwise, so that its faces are upright.
    """

    image: NDArray[np.uint8]
    source: str
    index: int
    turned: int = 0


@dataclass(frozen=True)
class LocatedFace:
    """A face in a picture.

    Attributes:
        box_xyxy: float32 (4,) [px of the picture].
        score: The detector's score, 0..1.
        locate: Returns the landmarks of the face.
    """

    box_xyxy: NDArray[np.float32]
    score: float
    locate: Callable[[], NDArray[np.float32]]

    @property
    def shorter_side(self) -> float:
        """The shorter side of the box [px of the picture]."""
        return float(np.min(self.box_xyxy[2:] - self.box_xyxy[:2]))


class FrameCropper:
    """Crops the faces of one picture after the other."""

    def __init__(self, settings: CropSettings, networks: Callable[[], Networks], *, version: str) -> None:
        """Prepare to crop; nothing is loaded yet.

        Args:
            settings: How faces are cropped.
            networks: Loads what finds faces. It is called when the first face has to be found, never where others gave
                the landmarks.
            version: The version of the code, for the manifest.
        """
        self._settings, self._networks, self._version = settings, cache(networks), version

    def crop(
        self, picture: Picture, files: FrameFiles | None, *, most: int | None, whole: bool = False
    ) -> tuple[list[FaceCrop], str]:
        """Crop the faces of a picture.

        Args:
            picture: The picture.
            files: The files of the frame on disk, with the landmarks and boxes that came with it; None for a frame of a
                video.
            most: How many faces are wanted; None for all.
            whole: Whether the picture is a face crop already, which is kept as it is.

        Returns:
            The crops, the largest box first, and a remark for the quarantine, mostly "".

        Raises:
            UnreadableSample: If there is no face to crop, or what is given cannot be used.
        """
        picture, found, large = self.find(picture, files)
        small = len(found) - len(large)
        remarks: list[str] = []
        if small and self._settings.faces == "all":
            remarks.append(f"{small} more below {self._settings.min_face} px")
        elif picture.turned:
            remarks.append(f"{USED}turned upright by {picture.turned} degrees")
        made = [self._build_crop(picture, face, files, whole=whole) for face in large[:most]]
        return made, "; ".join(remarks)

    def find(self, picture: Picture, files: FrameFiles | None) -> tuple[Picture, list[LocatedFace], list[LocatedFace]]:
        """Find the faces of a picture.

        Args:
            picture: The picture.
            files: As in `crop`.

        Returns:
            The picture, turned upright where needed; its faces, the largest box first; and those that are large enough.

        Raises:
            UnreadableSample: If no face is large enough, or what is given cannot be used.
        """
        if files is not None and files.landmarks is not None:
            found = self._read_given(picture, files)
        else:
            picture, found = self._detect(picture)
        large = [face for face in found if face.shorter_side >= max(self._settings.min_face, 1)]
        if not large:
            raise UnreadableSample(picture.source, self._explain_none(found))
        return picture, found, large

    def cut(self, picture: Picture, face: LocatedFace, *, whole: bool = False) -> CroppedFace:
        """Cut a face out of its picture.

        Args:
            picture: The picture, as `find` gave it.
            face: One of its faces.
            whole: As in `crop`.

        Returns:
            The crop.

        Raises:
            UnreadableSample: If the face has no landmarks.
        """
        landmarks = face.locate()
        if not np.isfinite(landmarks).all():
            raise UnreadableSample(picture.source, "its landmarks cannot be located")
        largest = round(SPARE * self._settings.image_size)
        return crop_face(picture.image, landmarks, face.box_xyxy, largest_face=largest, whole=whole)

    def _detect(self, picture: Picture) -> tuple[Picture, list[LocatedFace]]:
        """Find the faces of a picture, and turn it where they are not upright."""
        networks = self._networks()
        upright = find_upright(networks.detector, picture.image)
        if upright.doubt:
            raise UnreadableSample(picture.source, upright.doubt)
        found = [
            LocatedFace(face.box_xyxy, face.score, partial(networks.mesh.locate_81, upright.image, face))
            for face in upright.faces
        ]
        return replace(picture, image=upright.image, turned=upright.turned), found

    def _read_given(self, picture: Picture, files: FrameFiles) -> list[LocatedFace]:
        """Read the faces that came with a frame, largest first; their score is 1, as the detector's is not known."""
        assert files.landmarks is not None
        landmarks = read_landmarks(files.landmarks, picture.image).astype(np.float32)
        boxes = None if files.boxes is None else read_boxes(files.boxes).astype(np.float32)
        found = [LocatedFace(match_box(points, boxes), 1.0, lambda points=points: points) for points in landmarks]
        return sorted(found, key=lambda face: -float(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2])))

    def _build_crop(self, picture: Picture, face: LocatedFace, files: FrameFiles | None, *, whole: bool) -> FaceCrop:
        image, settings = picture.image, self._settings
        given = files is not None and files.landmarks is not None
        cropped = self.cut(picture, face, whole=whole)
        sharpness, phash = measure_face(cropped.image, cropped.landmarks)
        is_kept = whole and files is not None and not picture.turned
        content = _reuse_file(files.picture, cropped, settings) if is_kept and files is not None else None
        return FaceCrop(
            content=content or encode_picture(cropped.image, settings.picture),
            source=picture.source,
            frame_index=picture.index,
            face_index=0,
            score=face.score,
            sharpness=sharpness,
            face_size=face.shorter_side,
            frame_size=(image.shape[1], image.shape[0]),
            box_xyxy=face.box_xyxy.astype(np.float32),
            crop_xyxy=cropped.crop_xyxy,
            scale=cropped.scale,
            landmarks=cropped.landmarks,
            detector=f"{'given landmarks' if given else self._networks().found_by}, cut {self._version}",
            phash=phash,
        )

    def _explain_none(self, found: Sequence[LocatedFace]) -> str:
        if not found:
            return "no face found"
        return f"no face of at least {self._settings.min_face} px (the largest has {found[0].shorter_side:.0f} px)"


def _reuse_file(path: Path, cropped: CroppedFace, settings: CropSettings) -> bytes | None:
    """Return the picture's own bytes where they can be the crop's, so that nothing is encoded again."""
    if cropped.scale < 1 or settings.picture != "png":
        return None
    try:
        content = read_plain(path, most_bytes=MOST_BYTES)
    except OSError as error:
        raise UnreadableSample(str(path), explain(error)) from None
    return content if content.startswith(PNG_SIGNATURE) else None


def match_box(landmarks: NDArray[np.float32], boxes: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the box that overlaps a face's landmarks best.

    Args:
        landmarks: (68 or 81, 2) [px].
        boxes: (n, 4) [px], or None where there are none.

    Returns:
        float32 (4,); the landmarks' own box where no other overlaps it.
    """
    own = compute_landmark_box(landmarks[:68])
    overlaps = [] if boxes is None else [compute_iou(box, own) for box in boxes]
    return own if boxes is None or max(overlaps, default=0.0) == 0 else boxes[int(np.argmax(overlaps))]
