"""Which faces a contact sheet shows, and how each looks on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.data.items import UnreadableItem
from lib.data.manifest import SPLITS, FaceRow
from lib.modalities.faces.crop import compute_landmark_box
from lib.tasks.deepfake.prepare.check_columns import LABELS, Codes, Faces
from lib.tasks.deepfake.prepare.check_crops import decode

SEED = 0  # the same faces on every day
COLUMNS = 10
MOST_ROWS = 8  # of tiles, over all parts together
TILE = 150  # px
MARGIN = 0.45  # of the landmarks' box, shown around it
PAPER = 236  # grey of what lies outside the crop
POINT = (64, 224, 255)


@dataclass(frozen=True)
class Tile:
    """One face. picture: uint8 (TILE, TILE, 3) RGB, None where it cannot be read; reason: then why."""

    picture: NDArray[np.uint8] | None
    caption: str
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """The faces of one split and label. heading: with how many there are in all."""

    heading: str
    label: int
    tiles: tuple[Tile, ...]


def build_sheet(faces: Faces) -> list[Part]:
    """Every split and label that the set has, with equally many rows of faces."""
    keys = faces.split * len(LABELS) + faces.label
    present = np.unique(keys).tolist()
    places = COLUMNS * max(1, MOST_ROWS // len(present))
    parts: list[Part] = []
    for key in present:
        split, label = divmod(key, len(LABELS))
        rows = np.flatnonzero(keys == key)
        chosen = choose_faces(faces, rows, places)
        heading = f"{SPLITS[split]}, {LABELS[label]}: {len(chosen):,} of {len(rows):,} faces"
        parts.append(Part(heading, label, tuple(_load(faces, index) for index in chosen.tolist())))
    return parts


def choose_faces(faces: Faces, rows: Codes, most: int) -> Codes:
    """Up to `most` rows, drawn by the seed, of as many manipulations, people and clips as there are; ascending."""
    drawn = np.random.default_rng(SEED).permutation(rows)
    # The second face of a person comes after the first ones of all others, and so on: a fair turn at each level.
    for codes in (faces.clip, faces.person, faces.manipulation.codes):
        drawn = drawn[np.argsort(_count_earlier(codes[drawn]), kind="stable")]
    return np.sort(drawn[:most])


def _count_earlier(codes: Codes) -> Codes:
    """How often each code has come before, (n,)."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    begins = np.maximum.accumulate(np.where(np.append(True, in_order[1:] != in_order[:-1]), np.arange(len(codes)), 0))
    earlier = np.empty(len(codes), np.int64)
    earlier[order] = np.arange(len(codes)) - begins
    return earlier


def _load(faces: Faces, index: int) -> Tile:
    row = faces.row(index)
    try:
        image = decode(faces.manifest.read_crop_of(row))
        if image is None:
            return Tile(None, _caption(row), "no picture that can be decoded")
    except UnreadableItem as error:
        return Tile(None, _caption(row), error.reason.partition(" (cut from")[0])
    return Tile(draw_tile(image, row.landmarks), _caption(row))


def _caption(row: FaceRow) -> str:
    """The clip by the end of its name, which tells clips apart; what it is, and how large."""
    kind = row.manipulation or LABELS[row.label]
    return f"{_shorten(row.clip_id.rpartition('/')[2], 19)}\n{_shorten(kind, 14)}, {row.face_size:.0f} px"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[-(length - 1) :]}"


def draw_tile(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The face with some room around it and its landmarks as dots, uint8 (TILE, TILE, 3).

    image: RGB uint8 (H, W, 3); landmarks: (68 or 81, 2) [px of the image]. Landmarks that are no part of the picture
    give the whole picture.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = (float(side) for side in compute_landmark_box(landmarks[:68]))
    side = (1 + 2 * MARGIN) * max(right - left, bottom - top)
    centre = ((left + right) / 2, (top + bottom) / 2 - 0.1 * (bottom - top))  # the forehead has no landmarks
    is_inside = (
        np.isfinite(side) and 0 < centre[0] < width and 0 < centre[1] < height and 1 < side < 4 * max(width, height)
    )
    if not is_inside:
        side, centre = float(max(height, width)), (width / 2, height / 2)
    scale = TILE / side
    smooth = cv2.GaussianBlur(image, (0, 0), 0.45 / scale) if scale < 0.6 else image  # every pixel counts
    move = np.array([[scale, 0, TILE / 2 - scale * centre[0]], [0, scale, TILE / 2 - scale * centre[1]]])
    paper = (PAPER, PAPER, PAPER)
    tile = cv2.warpAffine(smooth, move, (TILE, TILE), flags=cv2.INTER_LINEAR, borderValue=paper)
    for x, y in np.nan_to_num(landmarks, nan=-1e3) @ move[:, :2].T + move[:, 2]:
        if 0 <= x < TILE and 0 <= y < TILE:
            tile[int(y), int(x)] = POINT
    return np.asarray(tile, np.uint8)
