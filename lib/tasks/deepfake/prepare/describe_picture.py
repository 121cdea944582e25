"""A set on one page: how many faces of what, how large and how sharp they are, and a sheet of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.data.manifest import SPLITS
from lib.files import atomic_path
from lib.tasks.deepfake.prepare.check_columns import LABELS, Faces
from lib.tasks.deepfake.prepare.describe_sheet import COLUMNS, Part, Tile

COLOURS = ("#2e7d32", "#c62828")  # real, fake, as in the pictures of a batch
GREY = "#37474f"
WIDTH, DPI = 14.0, 110  # inches, dots an inch
TITLE, PANELS, HEADING, CAPTION = 0.6, 5.9, 0.42, 0.4  # heights of the parts of the page [inches]
MOST_BARS = 12


def draw_set(path: Path, faces: Faces, sheet: Sequence[Part]) -> None:
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


def _draw_sheet(figure: Any, sheet: Sequence[Part], height: float, cell: float) -> None:
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
