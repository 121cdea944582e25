"""A picture of one augmented batch: what the student really sees. Pairs as real | fake | mask, else a labelled grid.

Legend: N images of H x W pixels; matplotlib's objects only, no pyplot, so that nothing global is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sharpstudent.core.io import atomic_path

CELL_INCHES = 1.5
NAMES = {0: "real", 1: "fake"}
Cell = tuple[np.ndarray, str, int | None, str]  # picture, name, label (for the colour), id
COLOURS = {0: "#2e7d32", 1: "#c62828"}


def draw_batch(
    path: Path,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    ids: Sequence[str],
    *,
    masks: np.ndarray | None = None,
    max_items: int = 8,
    title: str = "one augmented training batch",
) -> None:
    """Draw images (N, H, W, 3) uint8 RGB with labels (N,) and ids (N,) to a PNG.

    With masks (N, H, W) in 0..1 and images in pairs of a real and a fake, each pair is shown as real | fake | mask of
    the fake; else the first images with their labels.
    """
    labels = np.asarray(labels)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
    if not len(images) == len(labels) == len(ids) or len(images) == 0:
        raise ValueError(f"images, labels and ids must be equally many, got {len(images)}, {len(labels)}, {len(ids)}")
    pairs = _find_pairs(labels.tolist()) if masks is not None else None
    if pairs is None or masks is None:
        count = min(len(images), 2 * max_items)
        grid: list[Cell] = [(images[i], _describe_label(int(labels[i])), int(labels[i]), ids[i]) for i in range(count)]
        _draw_grid(path, grid, columns=min(4, count), group=1, title=title)
        return
    cells: list[Cell] = []
    for at_real, at_fake in pairs[:max_items]:
        cells.append((images[at_real], "real", 0, ids[at_real]))
        cells.append((images[at_fake], "fake", 1, ids[at_fake]))
        cells.append((masks[at_fake], "mask", None, ""))
    _draw_grid(path, cells, columns=3 if len(cells) <= 12 else 6, group=3, title=title)


def _find_pairs(labels: Sequence[int]) -> list[tuple[int, int]] | None:
    """Where the real and the fake of each two images stand; None unless all are such pairs."""
    starts = range(0, len(labels), 2)
    if any(sorted(labels[start : start + 2]) != [0, 1] for start in starts):
        return None
    return [(start, start + 1) if labels[start] == 0 else (start + 1, start) for start in starts]


def _describe_label(label: int) -> str:
    return NAMES.get(label, f"class {label}")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[-(length - 1) :]}"


def _draw_grid(path: Path, cells: Sequence[Cell], *, columns: int, group: int, title: str) -> None:
    """Cells go row by row; `group` columns belong together."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(cells) // columns)
    gap = 0.25 if columns > group > 1 else 0.0
    width = max(3.2, columns * CELL_INCHES + gap * (columns // group - 1) + 0.2)  # wide enough for the title
    height = rows * (CELL_INCHES + 0.28) + 0.4
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, y=1 - 0.14 / height, va="top")
    for number, (picture, name, label, sample_id) in enumerate(cells):
        row, column = divmod(number, columns)
        left = 0.1 + column * CELL_INCHES + gap * (column // group if group > 1 else 0)
        bottom = height - 0.4 - (row + 1) * (CELL_INCHES + 0.28) + 0.06
        box = (left + 0.04, bottom, CELL_INCHES - 0.08, CELL_INCHES - 0.08)
        axes: Any = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        _draw_cell(axes, picture, name, label, sample_id)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_cell(axes: Any, picture: np.ndarray, name: str, label: int | None, sample_id: str) -> None:
    if picture.ndim == 2:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(picture, interpolation="nearest")
    colour = COLOURS.get(label, "#37474f") if label is not None else "#37474f"
    axes.set_title(name, fontsize=7.5, color=colour, fontweight="bold", loc="left", pad=2.5)
    axes.set_title(_shorten(sample_id, 22), fontsize=5.5, color="#555555", loc="right", pad=2.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
