"""Makes loose face crops of photos once and keeps them, so that no face is looked for during training.

There is one .npz file a photo under data/face_crops/, named by the photo's content and by what made the crop. A crop is
the box that self-blending itself would cut out, scaled down (never up) so that no training step decodes more pixels
than it needs.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.archive import BAD_ARCHIVE, verify
from sharpstudent.core.errors import ProblemList
from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.shipped import FOLDER
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.crop import compute_loose_box, crop
from sharpstudent.modalities.faces.detect import find_upright
from sharpstudent.tasks.deepfake.sources.face import (
    LANDMARK_FORMS,
    MOST_BYTES,
    LoadedFace,
    check_positions,
    parse_array,
    read_picture,
)

CROP_FOLDER = Path("data/face_crops")
DETECTOR_FILE = Path("weights/face_detection_yunet_2023mar.onnx")
MESH_FILE = Path("weights/face_landmark.tflite")
SPARE = 1.25  # a crop's face is at most this times the network's input: room for the final crop's margins
KINDS = ("image", "landmarks", "boxes")  # the arrays of a file
MOST_NAMES = 5  # in a line
VERSION = "2"  # raise when a crop made by the code below, or by crop_face, would differ


@dataclass(frozen=True)
class CroppedFace:
    """A face as it is stored.

    Attributes:
        image: uint8 (h, w, 3) RGB.
        landmarks: float32 (n, 2) [px of image].
        box_xyxy: float32 (4,), the detector's box [px of image].
        crop_xyxy: Left, top, right, bottom of what was cut out [px of the picture].
        scale: Pixels of image for each pixel of the picture, at most 1.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box_xyxy: NDArray[np.float32]
    crop_xyxy: tuple[int, int, int, int]
    scale: float


def crop_face(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.generic],
    box_xyxy: NDArray[np.float32],
    *,
    largest_face: int,
    whole: bool = False,
) -> CroppedFace:
    """Crop a face loosely, and scale it down until its box is at most `largest_face` pixels; never up.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) [px of image].
        box_xyxy: (4,), the detector's box [px of image].
        largest_face: The longest side that the box may have in the crop [px].
        whole: Keep the whole picture instead of a crop.

    Returns:
        The crop.
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
    return CroppedFace(
        pixels, points.astype(np.float32), boxes[0].astype(np.float32), (left, top, right, bottom), float(scale)
    )


@dataclass(frozen=True)
class CropFile:
    """A crop on disk.

    Attributes:
        file: The .npz file.
        photo: The photo that it was made from, which the user knows.
    """

    file: Path
    photo: Path

    def load(self) -> LoadedFace:
        """Read the crop. Raises UnreadableSample where it is missing or damaged.

        Every array is read to its end, because only then its CRC32 is compared; NumPy itself stops where the shape in
        the header says, so that one changed digit of a width would give a sheared picture.
        """
        image, landmarks, boxes = self._read(KINDS)
        try:
            _check_form(image, landmarks, boxes)
            check_positions(str(self.file), landmarks, image)
            check_positions(str(self.file), boxes.reshape(-1, 2), image)
        except (ValueError, UnreadableSample) as error:
            raise self._refuse(error) from None
        return LoadedFace(image, landmarks, boxes)

    def load_points(self) -> NDArray[np.generic]:
        """Read the landmarks alone; `load` checks them against the picture. Raises UnreadableSample as it does."""
        (landmarks,) = self._read(("landmarks",))
        if landmarks.shape not in LANDMARK_FORMS:
            raise self._refuse(ValueError(f"it has arrays of other shapes: {landmarks.shape}"))
        return landmarks

    def _read(self, kinds: Sequence[str]) -> list[NDArray[Any]]:
        try:
            with zipfile.ZipFile(io.BytesIO(read_plain(self.file, most_bytes=MOST_BYTES))) as archive:
                if sum(record.file_size for record in archive.infolist()) > MOST_BYTES:
                    raise ValueError("it claims to be larger than any crop")
                return [parse_array(archive.read(f"{kind}.npy"), str(self.file)) for kind in kinds]
        except (*BAD_ARCHIVE, KeyError, UnreadableSample) as error:
            raise self._refuse(error) from None

    def _refuse(self, error: Exception) -> UnreadableSample:
        reason = error.reason if isinstance(error, UnreadableSample) else explain(error)
        text = f"its kept crop {self.file} cannot be read ({reason}); the next run makes it again"
        return UnreadableSample(str(self.photo), text)


def _check_form(image: NDArray[Any], landmarks: NDArray[Any], boxes: NDArray[Any]) -> None:
    """Raise ValueError unless these are a picture, the points of one face, and boxes."""
    is_picture = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    if not is_picture or landmarks.shape not in LANDMARK_FORMS or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"it has arrays of other shapes: {image.shape}, {landmarks.shape}, {boxes.shape}")


class FaceCrops:
    """Makes the crops that are missing.

    Attributes:
        rejected: The photos without a usable face, with the reason.
        turned: The photos that were turned upright in this process, each with the angle.
        notes: A line about kept crops that were damaged and made anew, and one about photos that were turned.
    """

    def __init__(self, *, image_size: int, folder: Path = CROP_FOLDER) -> None:
        """Prepare to make crops; networks are loaded when the first photo needs them.

        Args:
            image_size: Side of the network's input that the crops are for [px].
            folder: Where crops are kept.
        """
        self._largest_face = round(SPARE * image_size)
        self._folder = folder
        self._load = cache(load_face_models)  # when the first photo needs them
        self.rejected: dict[Path, str] = {}
        self.turned: list[str] = []
        self.notes: list[str] = []

    def prepare(self, photos: Sequence[Path]) -> dict[Path, CropFile]:
        """Return the stored crop of each photo that has a face; a second call makes nothing but damaged ones."""
        found: dict[Path, CropFile] = {}
        damaged: list[str] = []
        for photo in photos:
            try:
                crop = CropFile(self._file_of(photo), photo)
                if crop.file.exists() and not _is_whole(crop):
                    damaged.append(str(crop.file))
                    self._make(photo, crop.file)
                elif not crop.file.exists():
                    self._make(photo, crop.file)
                found[photo] = crop
            except UnreadableSample as error:
                self.rejected[photo] = error.reason
        if damaged:
            self.notes.append(f"{len(damaged)} kept crops were damaged: {_shorten(damaged)}; made anew")
        if self.turned:
            self.notes.append(f"{len(self.turned)} photos were turned upright: {_shorten(self.turned)}")
        return found

    def _file_of(self, photo: Path) -> Path:
        try:
            content = read_plain(photo, most_bytes=MOST_BYTES)
        except OSError as error:
            raise UnreadableSample(str(photo), explain(error)) from None
        digest = hashlib.sha256(content + f"|{VERSION}|{self._largest_face}".encode()).hexdigest()
        return self._folder / f"{digest[:32]}.npz"

    def _make(self, photo: Path, file: Path) -> None:
        image = read_picture(photo)
        detector, mesh = self._load()
        upright = find_upright(detector, image)
        if not upright.faces:
            raise UnreadableSample(str(photo), upright.doubt or "no face of at least 40 px found")
        if upright.turned:
            self.turned.append(f"{photo} ({upright.turned} degrees)")
        face = upright.faces[0]
        landmarks = mesh.locate_81(upright.image, face)
        cropped = crop_face(upright.image, landmarks, face.box_xyxy, largest_face=self._largest_face)
        buffer = io.BytesIO()
        np.savez(buffer, image=cropped.image, landmarks=cropped.landmarks, boxes=cropped.box_xyxy[None])
        write_bytes_atomically(file, buffer.getvalue())


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _is_whole(crop: CropFile) -> bool:
    try:
        crop.load()
    except UnreadableSample:
        return False
    return True


def load_face_models(*, min_side: float = 40) -> tuple[Any, Any]:
    """Load YuNet and the face mesh, from weights/ where they lie there, else those of the package.

    Args:
        min_side: The least width and height of a face that counts [px].

    Returns:
        The detector and the mesh.

    Raises:
        UserError: If a model file is damaged.
    """
    from sharpstudent.modalities.faces.detect import FaceDetector
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh

    check_model_files()
    return FaceDetector(locate(DETECTOR_FILE), min_side=min_side), LandmarkMesh(locate(MESH_FILE))


def locate(file: Path) -> Path:
    """Locate a face model: the file itself where somebody has put one there, else the one in the package."""
    return file if file.is_file() else FOLDER / file.name


def check_model_files() -> None:
    """Raise UserError that names each of the two face models that is not the file that was published."""
    problems = ProblemList()
    for path in (DETECTOR_FILE, MESH_FILE):
        problems.attempt(verify, locate(path))
    problems.raise_if_any()
