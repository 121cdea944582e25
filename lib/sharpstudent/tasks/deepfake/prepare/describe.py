"""Describes a prepared set (`prepare_faces.py describe`) as tables and as a picture beside its manifest.

The picture is a contact sheet below two histograms: how large and how sharp the faces are. The faces are drawn by a
fixed seed; dots are landmarks, and px is the shorter side of the face in its frame.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.io import atomic_path
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.crop import compute_landmark_box
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow
from sharpstudent.tasks.deepfake.prepare import describe_tables as tables
from sharpstudent.tasks.deepfake.prepare.check_columns import LABELS, Codes, Faces, open_faces
from sharpstudent.tasks.deepfake.sources.manifest import StoredCrop

SEED = 0  # every run of `describe` draws the same faces
COLUMNS = 10
MOST_ROWS = 8  # of tiles, over all parts together
TILE = 150  # px
MARGIN = 0.45  # of the landmarks' box, shown around it
PAPER = 236  # grey of what lies outside the crop
POINT = (64, 224, 255)


@dataclass(frozen=True)
class Tile:
    """One face of the contact sheet.

    Attributes:
        picture: uint8 (TILE, TILE, 3) RGB; None where it cannot be read.
        caption: Its clip, kind and size.
        reason: Why it cannot be read.
    """

    picture: NDArray[np.uint8] | None
    caption: str
    reason: str = ""


@dataclass(frozen=True)
class SheetPart:
    """The faces of one split and label.

    Attributes:
        heading: The split, the label and how many faces there are in all.
        label: Real 0, fake 1.
        tiles: The faces that are shown.
    """

    heading: str
    label: int
    tiles: tuple[Tile, ...]


def build_sheet(faces: Faces) -> list[SheetPart]:
    """Choose and load the faces of the contact sheet: every split and label gets equally many rows."""
    keys = faces.split * len(LABELS) + faces.label
    present = np.unique(keys).tolist()
    places = COLUMNS * max(1, MOST_ROWS // len(present))
    parts: list[SheetPart] = []
    for key in present:
        split, label = divmod(key, len(LABELS))
        rows = np.flatnonzero(keys == key)
        chosen = choose_faces(faces, rows, places)
        heading = f"{SPLITS[split]}, {LABELS[label]}: {len(chosen):,} of {len(rows):,} faces"
        parts.append(SheetPart(heading, label, tuple(_load_tile(faces, index) for index in chosen.tolist())))
    return parts


def choose_faces(faces: Faces, rows: Codes, most: int) -> Codes:
    """Draw faces by the seed, spread evenly over manipulations, then people, then clips.

    Args:
        faces: The set.
        rows: The rows to draw from.
        most: How many are drawn.

    Returns:
        The rows, ascending.
    """
    drawn = np.random.default_rng(SEED).permutation(rows)
    # The second face of a person comes after the first ones of all others, and so on: a fair turn at each level.
    for codes in (faces.clip, faces.person, faces.manipulation.codes):
        drawn = drawn[np.argsort(_count_earlier(codes[drawn]), kind="stable")]
    return np.sort(drawn[:most])


def _count_earlier(codes: Codes) -> Codes:
    """Count how often each code has come before, (n,)."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    begins = np.maximum.accumulate(np.where(np.append(True, in_order[1:] != in_order[:-1]), np.arange(len(codes)), 0))
    earlier = np.empty(len(codes), np.int64)
    earlier[order] = np.arange(len(codes)) - begins
    return earlier


def _load_tile(faces: Faces, index: int) -> Tile:
    row = faces.row(index)
    try:
        image = StoredCrop(faces.manifest, row).load().image
    except UnreadableSample as error:
        return Tile(None, _caption(row), error.reason.partition(" (cut from")[0])
    return Tile(draw_tile(image, row.landmarks), _caption(row))


def _caption(row: FaceRow) -> str:
    """Return the end of the clip's name, which tells clips apart, the kind of face and its size."""
    kind = row.manipulation or LABELS[row.label]
    return f"{_shorten(row.clip_id.rpartition('/')[2], 19)}\n{_shorten(kind, 14)}, {row.face_size:.0f} px"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[-(length - 1) :]}"


def draw_tile(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw a face with a margin around it and its landmarks as dots.

    Landmarks that are no part of the picture give the whole picture.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) [px of the image].

    Returns:
        uint8 (TILE, TILE, 3).
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


COLOURS = ("#2e7d32", "#c62828")  # real, fake, as in the pictures of a batch
GREY = "#37474f"
WIDTH, DPI = 14.0, 110  # inches, dots an inch
PANELS, HEADING, TILE_HEIGHT = 3.4, 0.4, 1.75  # heights of the parts of the page [inches]; a tile with its caption


def draw_set(path: Path, faces: Faces, sheet: Sequence[SheetPart]) -> None:
    """Draw the picture of a set as a PNG file.

    Args:
        path: The file.
        faces: The set.
        sheet: The parts of its contact sheet.

    Raises:
        UserError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [-(-len(part.tiles) // COLUMNS) for part in sheet]
    heights = [PANELS, *(HEADING + TILE_HEIGHT * count for count in rows)]
    figure = Figure(figsize=(WIDTH, HEADING + sum(heights)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    title = f"{faces.manifest.name}: {len(faces):,} faces, {len(np.unique(faces.clip)):,} clips"
    figure.suptitle(title, fontsize=15, fontweight="bold", x=0.01, ha="left", parse_math=False)
    panels, *parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    sizes, sharpness = panels.subplots(1, 2)
    line = faces.find_setting("image_size")
    _draw_histogram(sizes, faces, faces.face_size, "shorter side of a face [px]", line=line)
    values = np.maximum(faces.sharpness, 1.0)
    _draw_histogram(sharpness, faces, values, "sharpness (variance of the Laplacian)", log=True)
    for figure_part, part, count in zip(parts, sheet, rows, strict=True):
        colour = COLOURS[part.label]
        figure_part.suptitle(part.heading, fontsize=11.5, fontweight="bold", color=colour, x=0.01, ha="left")
        grid = figure_part.subplots(count, COLUMNS, squeeze=False).flat
        for axes, tile in zip_longest(grid, part.tiles):
            _draw_tile(axes, tile, colour)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png")


def _draw_histogram(
    axes: Any, faces: Faces, values: NDArray[np.float64], name: str, *, log: bool = False, line: Any = None
) -> None:
    finite = np.isfinite(values)
    low, high = (float(q) for q in np.quantile(values[finite], (0, 1))) if finite.any() else (0.0, 1.0)
    high = max(high, low + 1)
    edges = np.geomspace(low, high, 41) if log else np.linspace(low, high, 41)
    for label, title in enumerate(LABELS):
        some = values[finite & (faces.label == label)]
        axes.hist(some, edges, histtype="stepfilled", alpha=0.4, color=COLOURS[label], label=title)
    if log:
        axes.set_xscale("log")
    if isinstance(line, int) and low < line < high:
        axes.axvline(line, color=GREY, linewidth=1, linestyle="--", label="the network's input")
    axes.set_title(name, fontsize=10.5, loc="left")
    axes.set_ylabel("faces", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.legend(fontsize=8, frameon=False)


def _draw_tile(axes: Any, tile: Tile | None, colour: str) -> None:
    """Draw one face with its caption below it; None is an empty place of the grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    if tile is None:
        axes.axis("off")
        return
    if tile.picture is None:
        axes.set_facecolor("#eceff1")
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "cannot\nbe read", ha="center", va="center", fontsize=9, color=GREY)
    else:
        axes.imshow(tile.picture, interpolation="antialiased")
    axes.set_xlabel(tile.caption, fontsize=7, color=GREY, labelpad=3, parse_math=False)
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(1.2)


PICTURE = "describe.png"


def run_describe(manifest_path: Path | str, *, say: Callable[[str], None]) -> Path:
    """Print what is in a set, and draw describe.png beside the manifest; for a set in a storage, in this folder.

    Faces that cannot be read are empty tiles, counted by their reason.

    Args:
        manifest_path: The manifest's file, the folder that holds it, or the address of a set in a storage.
        say: Prints a line.

    Returns:
        The picture's path.

    Raises:
        UserError: If there is no usable manifest, or the picture cannot be written.
    """
    faces = open_faces(manifest_path)
    say(f"{faces.manifest.place}: {len(faces):,} faces")
    for note in faces.manifest.notes:
        say(note)
    for show in (tables.show_splits, tables.show_manipulations, tables.show_sizes, tables.show_quality):
        say(show(faces))
    sheet = build_sheet(faces)
    path = Path(PICTURE) if faces.manifest.is_stored else faces.manifest.folder / PICTURE
    draw_set(path, faces, sheet)
    tiles = [tile for part in sheet for tile in part.tiles]
    for reason, count in Counter(tile.reason for tile in tiles if tile.picture is None).most_common():
        say(f"{count:,} of the {len(tiles):,} faces drawn cannot be read: {reason}")
    say(f"drawn: {path}")
    return path
