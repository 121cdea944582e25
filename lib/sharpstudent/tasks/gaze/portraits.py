"""Portraits for rendered scenes: the surface of a head, estimated from one frontal photo.

The surface is an ellipsoid with the depth of the face mesh as relief. Legend: H x W the cut-out of the photo [px].
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_text
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.detect import FaceDetector
from sharpstudent.modalities.faces.landmarks import LandmarkMesh
from sharpstudent.tasks.gaze.scenes import read_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TABLES = ("faces.csv", "index.csv", "people.csv")  # who is in which photo
SIDE = 160  # px of the cut-out: heads are drawn at half this size
FACE_HEIGHT = 92.0  # px from the top of the forehead's mesh to the chin, in the cut-out
MOST_TURN = 18.0  # degrees by which the face of a photo may be turned away: one side is not seen otherwise
LEAST_FACE = 60  # px of the photo
# Points of the face mesh: the outer corners of the eyes, the top of the forehead, and the chin.
EYES, FOREHEAD, CHIN = (33, 263), 10, 152
RELIEF = 0.07  # reach of a mesh point's depth, in heights of the face


@dataclass(frozen=True)
class Portrait:
    """The head of one photo as a surface.

    Attributes:
        person: Who it is.
        image: The cut-out, uint8 (SIDE, SIDE, 3) RGB, with the centre of the head in its middle.
        height: The height of the front of the surface at each pixel, towards the camera [px], float32 (SIDE, SIDE);
            below 0 outside the head.
        axes: Half axes of the ellipsoid: across, down, and towards the camera [px].
        facing: The rotation that the face of the photo has already (3, 3).
    """

    person: str
    image: NDArray[np.uint8]
    height: NDArray[np.float32]
    axes: tuple[float, float, float]
    facing: NDArray[np.float64]


def list_photos(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """List the photos of some folders, each with its person.

    A table `faces.csv`, `index.csv` or `people.csv` with the columns `path` or `file`, and `person`, says who is in
    which photo. Without one, each photo is another person.

    Args:
        folders: The folders.

    Raises:
        UserError: For a folder without photos, and for a table that cannot be read.
    """
    found: list[tuple[Path, str]] = []
    for folder in folders:
        table = next((path for path in map(folder.joinpath, TABLES) if path.is_file()), None)
        photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        listed = [(path, path.stem) for path in photos] if table is None else list(_read_table(table))
        if not listed:
            raise UserError.about(str(folder), "has no photos", expected=", ".join(SUFFIXES), remedy="name another one")
        found += listed
    return found


def _read_table(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except (OSError, ValueError) as error:
        raise UserError.about(str(path), f"cannot be read: {explain(error)}") from None
    for row in rows:
        name, person = row.get("path") or row.get("file"), row.get("person")
        if not name or not person:
            raise UserError.about(
                str(path),
                "has another form",
                expected="the columns path (or file) and person",
                got=", ".join(map(str, row)),
                remedy="write these columns, or remove the table: then each photo is another person",
            )
        yield path.parent / name, person


def make_portrait(path: Path, person: str, detector: FaceDetector, mesh: LandmarkMesh) -> Portrait | str:
    """Make the surface of the head in a photo.

    Args:
        path: The photo.
        person: Who it is.
        detector: Finds the face.
        mesh: Finds its points.

    Returns:
        The portrait; or why the photo cannot be used.
    """
    try:
        image = read_picture(path)
    except UnreadableSample as error:
        return error.reason
    faces = detector.detect(image)
    if len(faces) != 1:
        return f"shows {len(faces)} faces, and one is expected"
    if min(faces[0].box_xyxy[2:] - faces[0].box_xyxy[:2]) < LEAST_FACE:
        return f"its face is smaller than {LEAST_FACE} px"
    points, presence = mesh.locate_deep(image, faces[0].box_xyxy, roll=faces[0].roll)
    facing = find_facing(points)
    turn = np.degrees(np.arccos(np.clip(facing[2, 2], -1.0, 1.0)))
    if presence < 0.5 or turn > MOST_TURN:
        return f"its face is turned by {turn:.0f} degrees, and at most {MOST_TURN:.0f} are usable"
    return _cut(image, points, person, facing)


def find_facing(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Find the rotation (3, 3) of a face from its mesh (468, 3); its columns are the face's axes.

    Axes are x to the viewer's right, y down and z towards the camera; the mesh has smaller depths nearer to it.
    """
    deep = points.astype(np.float64) * [1.0, 1.0, -1.0]
    across = deep[EYES[1]] - deep[EYES[0]]
    down = deep[CHIN] - deep[FOREHEAD]
    across /= np.linalg.norm(across)
    down -= down @ across * across
    down /= np.linalg.norm(down)
    return np.stack([across, down, np.cross(across, down)], 1)


def _cut(image: NDArray[np.uint8], points: NDArray[np.float32], person: str, facing: NDArray[np.float64]) -> Portrait:
    """Cut the head out, and compute its surface."""
    top, chin = points[FOREHEAD, :2], points[CHIN, :2]
    scale = FACE_HEIGHT / float(np.linalg.norm(chin - top))
    centre = top + 0.38 * (chin - top)  # the middle of the whole head lies above that of the face
    centre[0] = (points[:, 0].min() + points[:, 0].max()) / 2
    shift = SIDE / 2 - scale * centre
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    cut = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    placed = points * scale
    placed[:, :2] += shift
    wide = float(np.ptp(placed[:, 0])) / 2
    axes = (1.02 * wide, 0.66 * FACE_HEIGHT, 1.2 * wide)
    height = _add_relief(compute_ellipsoid(axes), placed, axes)
    return Portrait(person, cut.astype(np.uint8, copy=False), height, axes, facing)


def compute_ellipsoid(axes: tuple[float, float, float]) -> NDArray[np.float32]:
    """Compute the height of an ellipsoid in the middle of the cut-out, float32 (SIDE, SIDE); -1e3 outside it."""
    place = np.arange(SIDE) - SIDE / 2
    inside = 1.0 - (place[None] / axes[0]) ** 2 - (place[:, None] / axes[1]) ** 2
    return np.where(inside > 0, axes[2] * np.sqrt(np.maximum(inside, 0.0)), -1e3).astype(np.float32)


def _add_relief(
    height: NDArray[np.float32], points: NDArray[np.float32], axes: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Bend the ellipsoid to the depth of the mesh points; the relief fades out beyond them."""
    columns, rows = (points[:, axis].round().astype(int).clip(0, SIDE - 1) for axis in (0, 1))
    ellipsoid = height[rows, columns]
    is_on = ellipsoid > 0
    deep = -points[:, 2]
    wanted = deep - np.median(deep[is_on]) + np.median(ellipsoid[is_on])
    summed, weight = np.zeros((2, SIDE, SIDE), np.float32)
    np.add.at(summed, (rows[is_on], columns[is_on]), (wanted - ellipsoid)[is_on])
    np.add.at(weight, (rows[is_on], columns[is_on]), 1.0)
    reach = RELIEF * FACE_HEIGHT
    blurred = [cv2.GaussianBlur(one, (0, 0), reach) for one in (summed, weight)]
    relief = blurred[0] / (blurred[1] + 0.1 * float(blurred[1].max()))
    return np.where(height > 0, np.maximum(height + relief, 0.1 * axes[2]), height).astype(np.float32)
