"""`prepare_faces.py describe`: what is in a prepared set, as tables and as a picture beside its manifest.

The picture shows how many faces of what, how large and how sharp they are, and a contact sheet of them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.io import atomic_path
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.crop import compute_landmark_box
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow
from sharpstudent.tasks.deepfake.prepare.check_columns import LABELS, Codes, Faces, open_faces
from sharpstudent.tasks.deepfake.prepare.describe_tables import (
    show_manipulations,
    show_quality,
    show_sizes,
    show_splits,
)
from sharpstudent.tasks.deepfake.sources.manifest import StoredCrop

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
class SheetPart:
    """The faces of one split and label. heading: with how many there are in all."""

    heading: str
    label: int
    tiles: tuple[Tile, ...]


def build_sheet(faces: Faces) -> list[SheetPart]:
    """Every split and label that the set has, with equally many rows of faces."""
    keys = faces.split * len(LABELS) + faces.label
    present = np.unique(keys).tolist()
    places = COLUMNS * max(1, MOST_ROWS // len(present))
    parts: list[SheetPart] = []
    for key in present:
        split, label = divmod(key, len(LABELS))
        rows = np.flatnonzero(keys == key)
        chosen = choose_faces(faces, rows, places)
        heading = f"{SPLITS[split]}, {LABELS[label]}: {len(chosen):,} of {len(rows):,} faces"
        parts.append(SheetPart(heading, label, tuple(_load(faces, index) for index in chosen.tolist())))
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
        image = StoredCrop(faces.manifest, row).load().image
    except UnreadableSample as error:
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


COLOURS = ("#2e7d32", "#c62828")  # real, fake, as in the pictures of a batch
GREY = "#37474f"
WIDTH, DPI = 14.0, 110  # inches, dots an inch
TITLE, PANELS, HEADING, CAPTION = 0.6, 5.9, 0.42, 0.4  # heights of the parts of the page [inches]
MOST_BARS = 12


def draw_set(path: Path, faces: Faces, sheet: Sequence[SheetPart]) -> None:
    """Draw a PNG. Raises UserError where it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sum(-(-len(part.tiles) // COLUMNS) for part in sheet)
    cell = (WIDTH - 0.8) / COLUMNS
    height = TITLE + PANELS + len(sheet) * HEADING + rows * (cell + CAPTION) + 0.2
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    title = f"{faces.manifest.folder.resolve().name}: {len(faces):,} faces, {len(np.unique(faces.clip)):,} clips"
    figure.text(0.4 / WIDTH, 1 - 0.28 / height, title, fontsize=15, fontweight="bold", va="top", parse_math=False)
    hint = "faces drawn by a fixed seed; dots: landmarks; px: shorter side of the face in its frame"
    figure.text(1 - 0.3 / WIDTH, 1 - 0.36 / height, hint, fontsize=8.5, color=GREY, va="top", ha="right")
    _draw_panels(figure, faces, bottom=1 - (TITLE + PANELS) / height, top=1 - (TITLE + 0.3) / height)
    _draw_sheet(figure, sheet, height, cell)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png")


def _draw_panels(figure: Any, faces: Faces, *, bottom: float, top: float) -> None:
    """Two rows of panels between two heights of the page (0..1)."""
    gap = 0.16 * (top - bottom)
    upper = figure.add_gridspec(1, 2, left=0.06, right=0.98, bottom=(top + bottom + gap) / 2, top=top, wspace=0.3)
    lower = figure.add_gridspec(
        1, 3, left=0.06, right=0.98, bottom=bottom + 0.7 * gap, top=(top + bottom) / 2 - 0.2 * gap, wspace=0.22
    )
    _draw_splits(figure.add_subplot(upper[0]), faces)
    _draw_manipulations(figure.add_subplot(upper[1]), faces)
    size_line = faces.find_setting("image_size")
    _draw_histogram(figure.add_subplot(lower[0]), faces, faces.face_size, "shorter side of a face [px]", line=size_line)
    sharpness = np.maximum(faces.sharpness, 1.0)
    _draw_histogram(figure.add_subplot(lower[1]), faces, sharpness, "sharpness (variance of the Laplacian)", log=True)
    _draw_clips(figure.add_subplot(lower[2]), faces)


def _draw_splits(axes: Any, faces: Faces) -> None:
    shown = [number for number in range(len(SPLITS)) if SPLITS[number] != "none" or (faces.split == number).any()]
    for label, name in enumerate(LABELS):
        counts = [int(((faces.split == number) & (faces.label == label)).sum()) for number in shown]
        places = np.arange(len(shown)) + (label - 0.5) * 0.38
        bars = axes.bar(places, counts, 0.36, color=COLOURS[label], label=name)
        axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=2, color=GREY)
    axes.set_xticks(range(len(shown)), [SPLITS[number] for number in shown])
    axes.margins(y=0.14)
    _style(axes, "faces by split", "", "")
    axes.legend(fontsize=8, frameon=False)


def _draw_manipulations(axes: Any, faces: Faces) -> None:
    """The commonest kinds of face, reals first."""
    column = faces.manipulation
    counts: list[tuple[int, int, str]] = []  # label, minus how many, name
    for label in (0, 1):
        number = np.bincount(column.codes[faces.label == label], minlength=len(column.names))
        counts += [(label, -int(n), name or LABELS[label]) for n, name in zip(number, column.names, strict=True) if n]
    counts.sort()
    shown, left = counts[:MOST_BARS], len(counts) - MOST_BARS
    places = np.arange(len(shown))
    bars = axes.barh(places, [-n for _, n, _ in shown], 0.7, color=[COLOURS[label] for label, _, _ in shown])
    axes.bar_label(bars, [f"{-n:,}" for _, n, _ in shown], fontsize=8, padding=3, color=GREY)
    axes.set_yticks(places, [name for _, _, name in shown], parse_math=False)
    axes.set_ylim(max(len(shown), 3) - 0.4, -0.6)
    axes.margins(x=0.12)
    _style(axes, "faces by manipulation" + (f" (and {left} more)" if left > 0 else ""), "", "")


def _draw_histogram(
    axes: Any, faces: Faces, values: NDArray[np.float64], name: str, *, log: bool = False, line: Any = None
) -> None:
    finite = np.isfinite(values)
    low, high = (float(q) for q in np.quantile(values[finite], (0, 1))) if finite.any() else (0.0, 1.0)
    high = max(high, low + 1)
    edges = np.geomspace(low, high, 41) if log else np.linspace(low, high, 41)
    for label, title in enumerate(LABELS):
        some = values[finite & (faces.label == label)]
        if len(some):
            style = {"color": COLOURS[label], "label": title}
            axes.hist(some, edges, histtype="stepfilled", alpha=0.22, **style)
            axes.hist(some, edges, histtype="step", linewidth=1.3, color=COLOURS[label])
    if log:
        _scale_log(axes, low, high)
    if isinstance(line, int) and low < line < high:
        axes.axvline(line, color=GREY, linewidth=1, linestyle="--")
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top", "ha": "right"}
        axes.annotate("the network's input", (line, 1), (-4, -2), fontsize=7.5, color=GREY, **place)
    _style(axes, name, "", "faces")


def _scale_log(axes: Any, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers that do not run into one another."""
    axes.set_xscale("log")
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [step * 10**power for power in range(8) for step in steps if low <= step * 10**power <= high]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)


def _draw_clips(axes: Any, faces: Faces) -> None:
    clips, first, counts = np.unique(faces.clip, return_index=True, return_counts=True)
    most = int(counts.max())
    edges = np.linspace(0.5, most + 0.5, min(most, 40) + 1)
    both = [counts[faces.label[first] == label] for label in (0, 1)]
    axes.hist(both, edges, stacked=True, color=COLOURS, rwidth=0.9)
    axes.margins(x=0.02)
    _style(axes, f"faces a clip ({len(clips):,} clips)", "", "clips")


def _style(axes: Any, title: str, x_name: str, y_name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlabel(x_name, fontsize=9)
    axes.set_ylabel(y_name, fontsize=9)
    if y_name:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8.5)
    axes.grid(visible=True, axis="both", color="#eceff1", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_sheet(figure: Any, sheet: Sequence[SheetPart], height: float, cell: float) -> None:
    top = height - TITLE - PANELS  # inches from below
    for part in sheet:
        figure.text(
            0.4 / WIDTH, (top - 0.1) / height, part.heading, fontsize=11.5, fontweight="bold", va="top",
            color=COLOURS[part.label],
        )  # fmt: skip
        top -= HEADING
        for start in range(0, len(part.tiles), COLUMNS):
            for column, tile in enumerate(part.tiles[start : start + COLUMNS]):
                box = (0.4 + column * cell + 0.04, top - cell + 0.04, cell - 0.08, cell - 0.08)
                axes = figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height))
                _draw_tile(axes, tile, COLOURS[part.label])
            top -= cell + CAPTION


def _draw_tile(axes: Any, tile: Tile, colour: str) -> None:
    if tile.picture is None:
        axes.set_facecolor("#eceff1")
        axes.text(0.5, 0.5, "cannot\nbe read", ha="center", va="center", fontsize=9, color=GREY)
    else:
        axes.imshow(tile.picture, interpolation="antialiased")
    axes.set_xlabel(tile.caption, fontsize=7, color=GREY, labelpad=3, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(1.2)


PICTURE = "describe.png"


def run_describe(manifest_path: Path, *, say: Callable[[str], None]) -> Path:
    """Say what is in a set and draw describe.png beside the manifest; returns its path.

    manifest_path: the file, or the folder that holds it. Faces that cannot be read are empty tiles, counted by their
    reason. Raises UserError where there is no usable manifest, or the picture cannot be written.
    """
    faces = open_faces(manifest_path)
    say(f"{faces.manifest.path}: {len(faces):,} faces")
    for show in (show_splits, show_manipulations, show_sizes, show_quality):
        say(show(faces))
    sheet = build_sheet(faces)
    path = faces.manifest.folder / PICTURE
    draw_set(path, faces, sheet)
    tiles = [tile for part in sheet for tile in part.tiles]
    for reason, count in Counter(tile.reason for tile in tiles if tile.picture is None).most_common():
        say(f"{count:,} of the {len(tiles):,} faces drawn cannot be read: {reason}")
    say(f"drawn: {path}")
    return path
