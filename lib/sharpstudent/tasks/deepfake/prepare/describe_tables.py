"""Prints what is in a set as tables that read the same in a terminal, a log and a pipe."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS
from sharpstudent.tasks.deepfake.prepare.check_columns import LABELS, Codes, Faces, Named

WIDTH = 100  # columns
MOST_LINES = 30  # of one table


def show_splits(faces: Faces) -> str:
    """Return a table of faces, clips and people by split."""
    heads = ("split", "faces", "real", "fake", "clips", "people", "manipulations", "compressions")
    lines: list[list[str]] = []
    for number, split in [*enumerate(SPLITS), (-1, "all")]:
        rows = _rows_of(faces, number)
        if len(rows) == 0 and split == "none":
            continue
        real = int((faces.label[rows] == 0).sum())
        counts = [len(rows), real, len(rows) - real, _count(faces.clip[rows]), _count(faces.person[rows])]
        fakes = rows[faces.label[rows] == 1]
        lines.append([split, *(f"{count:,}" for count in counts), str(_count(faces.manipulation.codes[fakes]))])
        lines[-1].append(", ".join(_names(faces.compression, rows)) or "-")
    return _render("faces, clips and people by split", heads, lines)


def show_sizes(faces: Faces) -> str:
    """Return quartiles of the faces' sizes by split and label, and how many the network would enlarge."""
    side = faces.find_setting("image_size")
    heads = ["split", "label", "least", "25 %", "median", "75 %", "largest"]
    heads += [f"below {side} px"] if isinstance(side, int) else []
    lines: list[list[str]] = []
    for split, label, rows in _list_parts(faces):
        sizes = faces.face_size[rows]
        lines.append([split, label, *_quantiles(sizes, (0, 0.25, 0.5, 0.75, 1))])
        if isinstance(side, int):
            lines[-1].append(f"{np.mean(sizes < side):.1%}")
    title = "shorter side of the face's box [px of the frame]"
    return _render(title + ("; last: smaller than the network's input" if isinstance(side, int) else ""), heads, lines)


def show_manipulations(faces: Faces) -> str:
    """Return a table of faces and clips by source set, manipulation and compression."""
    heads = ("source set", "label", "manipulation", "compression", "clips", *SPLITS)
    columns = (faces.source_set, faces.manipulation, faces.compression)
    shape = (len(columns[0].names), len(LABELS), len(columns[1].names), len(columns[2].names))
    codes = (columns[0].codes, faces.label, columns[1].codes, columns[2].codes)
    kinds, which = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    lines: list[list[str]] = []
    for number, kind in enumerate(kinds):
        source_set, label, manipulation, compression = (int(code) for code in np.unravel_index(kind, shape))
        rows = np.flatnonzero(which == number)
        counts = np.bincount(faces.split[rows], minlength=len(SPLITS)).tolist()
        names = (faces.manipulation.names[manipulation] or "-", faces.compression.names[compression] or "-")
        source = faces.source_set.names[source_set] or "-"
        lines.append([source, LABELS[label], *names, f"{_count(faces.clip[rows]):,}", *(f"{c:,}" for c in counts)])
    return _render("faces by source set and manipulation", heads, lines)


def show_quality(faces: Faces) -> str:
    """Return quartiles of the sharpness and of the number of faces a clip."""
    heads = ("split", "label", "sharpness 25 %", "median", "75 %", "faces a clip, least", "median", "most")
    lines: list[list[str]] = []
    for split, label, rows in _list_parts(faces):
        a_clip = np.unique(faces.clip[rows], return_counts=True)[1]
        lines.append([split, label, *_quantiles(faces.sharpness[rows], (0.25, 0.5, 0.75))])
        lines[-1] += _quantiles(a_clip, (0, 0.5, 1))
    return _render("sharpness (variance of the Laplacian at 100 px) and faces a clip", heads, lines)


def _rows_of(faces: Faces, split: int) -> Codes:
    return np.arange(len(faces)) if split < 0 else np.flatnonzero(faces.split == split)


def _list_parts(faces: Faces) -> list[tuple[str, str, Codes]]:
    """List split, label and rows of every part that has any."""
    parts = [
        (name, label, np.flatnonzero((faces.split == split) & (faces.label == number)))
        for split, name in enumerate(SPLITS)
        for number, label in enumerate(LABELS)
    ]
    return [part for part in parts if len(part[2])]


def _quantiles(values: np.ndarray, shares: Sequence[float]) -> list[str]:
    """Return quantiles of the finite values; a manifest of other makers may hold anything."""
    finite = values[np.isfinite(values)]
    return [f"{value:.0f}" for value in np.quantile(finite, shares)] if len(finite) else ["-"] * len(shares)


def _count(codes: Codes) -> int:
    return len(np.unique(codes))


def _names(column: Named, rows: Codes) -> list[str]:
    return [column.names[code] for code in np.unique(column.codes[rows]) if column.names[code]]


def _render(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Render a table: the first column and other words to the left, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(heads):
        is_words = any(line[number][:1].isalpha() or line[number] == "-" for line in lines)
        table.add_column(head, justify="left" if number == 0 or is_words else "right", overflow="fold")
    for line in lines[:MOST_LINES]:
        table.add_row(*line)
    if len(lines) > MOST_LINES:
        table.caption = f"and {len(lines) - MOST_LINES:,} more lines"
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, highlight=False, markup=False).print(table)
    return "\n".join(
        ["", f"{title}:", *(line.rstrip() for line in text.getvalue().strip("\n").splitlines() if line.strip())]
    )
