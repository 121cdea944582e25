"""Cut the faces of one picture: found by the networks or given by others, largest first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.data.items import UnreadableItem
from lib.modalities.faces.detect import Face
from lib.tasks.deepfake.layouts.clip import FrameFiles
from lib.tasks.deepfake.prepare.cut_face import SPARE, FaceCut, cut_face, encode_picture, judge_face
from lib.tasks.deepfake.prepare.cut_given import match_box, read_boxes, read_landmarks
from lib.tasks.deepfake.prepare.settings import CutFace, CutSettings

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Detector(Protocol):
    def detect(self, image: NDArray[np.uint8]) -> list[Face]: ...


class Mesh(Protocol):
    def locate_81(self, image: NDArray[np.uint8], face: Face) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Networks:
    """What finds faces. found_by: what the manifest says of faces that these two found."""

    detector: Detector
    mesh: Mesh
    found_by: str


@dataclass(frozen=True)
class Picture:
    """A frame in memory. source: the file it is of, as the user knows it; index: its number in the video."""

    image: NDArray[np.uint8]
    source: str
    index: int


@dataclass(frozen=True)
class _Found:
    """A face in a picture [px of it]; landmarks: None until they are located."""

    box_xyxy: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None
    detected: Face | None

    @property
    def shorter_side(self) -> float:
        return float(np.min(self.box_xyxy[2:] - self.box_xyxy[:2]))


class FrameCutter:
    """networks: called when the first face has to be found, never where others brought them; version: of this code."""

    def __init__(self, settings: CutSettings, networks: Callable[[], Networks], *, version: str) -> None:
        self._settings, self._networks, self._version = settings, functools.cache(networks), version

    def cut(
        self, picture: Picture, files: FrameFiles | None, *, most: int | None, whole: bool = False
    ) -> tuple[list[CutFace], str]:
        """The faces, largest box first, and a remark for the quarantine ("" mostly).

        files: where the frame is on disk, with what others found in it; most: how many faces are wanted, None for all;
        whole: the picture is a face crop already, kept as it is. Raises UnreadableItem when there is no face to cut, or
        when what is given cannot be used.
        """
        given = files is not None and files.landmarks is not None
        found = self._take_given(picture, files) if files is not None and given else self._detect(picture)
        large = [face for face in found if face.shorter_side >= max(self._settings.min_face, 1)]
        if not large:
            raise UnreadableItem(picture.source, self._explain_none(found))
        small = len(found) - len(large)
        remark = f"{small} more below {self._settings.min_face} px" if small and self._settings.faces == "all" else ""
        made = [self._make(picture, face, files, whole=whole) for face in large[:most]]
        return made, remark

    def _detect(self, picture: Picture) -> list[_Found]:
        return [
            _Found(face.box_xyxy, face.score, None, face) for face in self._networks().detector.detect(picture.image)
        ]

    def _take_given(self, picture: Picture, files: FrameFiles) -> list[_Found]:
        """Faces as others found them, largest first; the score is 1, theirs is not known."""
        assert files.landmarks is not None
        landmarks = read_landmarks(files.landmarks, *picture.image.shape[:2])
        boxes = None if files.boxes is None else read_boxes(files.boxes)
        found = [_Found(match_box(points, boxes), 1.0, points, None) for points in landmarks]
        return sorted(found, key=lambda face: -float(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2])))

    def _make(self, picture: Picture, face: _Found, files: FrameFiles | None, *, whole: bool) -> CutFace:
        image, settings = picture.image, self._settings
        given = face.landmarks is not None
        landmarks = face.landmarks
        if landmarks is None:
            assert face.detected is not None
            landmarks = self._networks().mesh.locate_81(image, face.detected)
        if not np.isfinite(landmarks).all():
            raise UnreadableItem(picture.source, "its landmarks cannot be located")
        cut = cut_face(image, landmarks, face.box_xyxy, largest_face=round(SPARE * settings.image_size), whole=whole)
        sharpness, phash = judge_face(cut)
        content = _take_file(files.picture, cut, settings) if whole and files is not None else None
        return CutFace(
            content=content or encode_picture(cut.image, settings.picture),
            source=picture.source,
            frame_index=picture.index,
            face_index=0,
            score=face.score,
            sharpness=sharpness,
            face_size=face.shorter_side,
            frame_size=(image.shape[1], image.shape[0]),
            box_xyxy=face.box_xyxy.astype(np.float32),
            crop_xyxy=cut.crop_xyxy,
            scale=cut.scale,
            landmarks=cut.landmarks,
            detector=f"{'given landmarks' if given else self._networks().found_by}, cut {self._version}",
            phash=phash,
        )

    def _explain_none(self, found: Sequence[_Found]) -> str:
        if not found:
            return "no face found"
        return f"no face of at least {self._settings.min_face} px (the largest has {found[0].shorter_side:.0f} px)"


def _take_file(path: Path, cut: FaceCut, settings: CutSettings) -> bytes | None:
    """The picture's own bytes, where they can be the crop's: nothing is decoded and encoded for nothing."""
    if cut.scale < 1 or settings.picture != "png":
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableItem(str(path), error.strerror or str(error)) from None
    return content if content.startswith(PNG_SIGNATURE) else None
