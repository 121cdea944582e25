"""Reads GazeFollow and VideoAttentionTarget as they are unpacked, and preprocessed JSON of either.

GazeFollow: `{train,test}_annotations_release.txt`, a CSV without a header. The training table has 17 columns: path,
index, body box (4), eye x, y, gaze x, y (0..1), head box x0, y0, x1, y1 [px], inout (1 in, 0 out, -1 unusable), source,
meta. The test table lacks inout; ten people marked each of its heads, which are told apart by path and eye x.

VideoAttentionTarget: `annotations/{train,test}/SHOW/CLIP/PERSON.txt` with lines `frame,x0,y0,x1,y1,gx,gy` [px], a
negative gaze for a head that looks out of the picture, and `images/SHOW/CLIP/FRAME`.

Preprocessed: a list of {"path", "width", "height", "heads": [{"bbox": [px], "gazex_norm", "gazey_norm", "inout"}]}, in
which the gaze of a head may be a list of several. A rendered scene adds "objects", and its heads "person".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_json, read_text
from sharpstudent.tasks.gaze.heads import (
    BrokenRows,
    Head,
    Scene,
    find_box_fault,
    find_point_fault,
    refuse_normalised,
)

COLUMNS = {"train": 17, "test": 16}
MOST_LABELS = 2 << 30  # bytes of a table
Found = tuple[list[Scene], tuple[str, ...]]  # the scenes, and notes about what is left out


def has_validation(root: Path) -> bool:
    """Whether a data set has a validation part: prepared JSON of that name."""
    return (root / "validation_preprocessed.json").is_file()


def read_scenes(root: Path, layout: str, split: str, *, every: int, smooth: int) -> Found:
    """Read the scenes of one part of a data set.

    Args:
        root: The folder of the data set.
        layout: `gazefollow` or `vat`.
        split: `train`, `test`, or `validation` where preprocessed JSON has such a part.
        every: With vat, every so many frames.
        smooth: With vat, frames that head boxes are averaged over.

    Returns:
        The scenes, and notes about rows that are left out.

    Raises:
        UserError: Where the labels are missing, or none can be used.
    """
    prepared = root / f"{split}_preprocessed.json"
    table, folder = root / f"{split}_annotations_release.txt", root / "annotations" / split
    if prepared.is_file():
        scenes, notes = _read_prepared(prepared, root)
    elif layout == "gazefollow" and table.is_file():
        scenes, notes = _read_table(table, root, split)
    elif layout == "vat" and folder.is_dir():
        scenes, notes = _read_clips(folder, root, every=every, smooth=smooth)
    else:
        wanted = table if layout == "gazefollow" else folder
        raise UserError.about(
            "data_root",
            f"has no labels of the part {split!r} in the layout {layout}",
            expected=f"{wanted.name if layout == 'gazefollow' else f'annotations/{split}/'}, or {prepared.name}",
            got=f"{root}: {', '.join(sorted(path.name for path in root.iterdir())[:8]) or 'empty'}"
            if root.is_dir()
            else f"{root} is no folder",
            remedy="set data.data_root to the folder that holds the unpacked data set",
        )
    if not scenes:
        raise UserError.about(str(root), f"has no head in the part {split!r}", remedy="check data.data_root")
    return scenes, notes


def _read_lines(path: Path) -> list[list[str]]:
    try:
        text = read_text(path, most_bytes=MOST_LABELS)
    except (OSError, ValueError) as error:
        raise UserError.about(str(path), f"cannot be read: {explain(error)}") from None
    return [line.split(",") for line in text.splitlines() if line.strip()]


def _read_table(path: Path, root: Path, split: str) -> Found:
    """Read a table of GazeFollow; rows of the same head are joined."""
    lines, broken = _read_lines(path), BrokenRows()
    boxes: dict[tuple[str, str], tuple[float, ...]] = {}
    points: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for number, cells in enumerate(lines, 1):
        try:
            name, box, point, inout = _read_row(cells, COLUMNS[split])
        except ValueError as error:
            broken.add(f"line {number}", str(error))
            continue
        if inout < 0:
            continue
        fault = find_box_fault(box) or (find_point_fault(point) if inout else None)
        if fault is not None:
            broken.add(f"line {number}, {name}", fault)
            continue
        # The test has a row for each person who marked a head; in training each row is a head.
        key = (name, cells[6] if split == "test" else str(number))
        boxes.setdefault(key, box)
        points[key] += [point] if inout else []
    refuse_normalised(broken, len(lines), path)
    heads: defaultdict[str, list[Head]] = defaultdict(list)
    for key, box in boxes.items():
        heads[key[0]].append(Head(tuple(box), tuple(points[key])))  # pyright: ignore[reportArgumentType]
    scenes = [Scene(root / name, tuple(found), name) for name, found in heads.items()]
    return scenes, broken.describe(len(lines), path.name)


def _read_row(cells: Sequence[str], columns: int) -> tuple[str, tuple[float, ...], tuple[float, float], float]:
    """Read path, head box, gaze point and inout of a row of GazeFollow; raises ValueError for one of another form."""
    if len(cells) != columns:
        raise ValueError(f"has {len(cells)} columns, {columns} are expected")
    box, point = tuple(map(float, cells[10:14])), (float(cells[8]), float(cells[9]))
    return cells[0], box, point, float(cells[14]) if columns == COLUMNS["train"] else 1.0


def _read_clips(folder: Path, root: Path, *, every: int, smooth: int) -> Found:
    """Read the text files of the people of all clips."""
    broken, rows, scenes = BrokenRows(), 0, list[Scene]()
    for clip in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        name = f"{clip.parent.name}/{clip.name}"
        heads: defaultdict[str, list[tuple[str, NDArray[np.float64]]]] = defaultdict(list)
        for person in sorted(clip.glob("*.txt")):
            lines = _read_lines(person)
            rows += len(lines)
            for frame, numbers in _read_person(lines, f"{name}/{person.name}", smooth, broken):
                heads[frame].append((f"{name}/{person.stem}", numbers))
        for frame in sorted(heads)[::every]:
            scenes.append(_make_frame(root / "images" / name / frame, heads[frame], clip.parent.name))
    refuse_normalised(broken, rows, folder)
    return scenes, broken.describe(rows, f"annotations/{folder.name}")


def _read_person(
    lines: Sequence[Sequence[str]], where: str, smooth: int, broken: BrokenRows
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Read the file of one person: the frame, and x0, y0, x1, y1, gx, gy [px] of each usable line."""
    kept: list[tuple[str, list[float]]] = []
    for number, cells in enumerate(lines, 1):
        try:
            if len(cells) != 7:
                raise ValueError(f"has {len(cells)} columns, 7 are expected")
            numbers = [float(cell) for cell in cells[1:]]
        except ValueError as error:
            broken.add(f"{where}, line {number}", str(error))
            continue
        fault = find_box_fault(numbers[:4])
        if fault is not None:
            broken.add(f"{where}, line {number}", fault)
            continue
        kept.append((cells[0].strip(), numbers))
    if kept:
        table = np.array([numbers for _, numbers in kept])
        table[:, :4] = smooth_boxes(table[:, :4], smooth)
        yield from ((frame, row) for (frame, _), row in zip(kept, table, strict=True))


def smooth_boxes(boxes: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Average boxes (n, 4) over a window of frames; beyond the ends the first and the last box are repeated."""
    if window <= 1:
        return boxes
    before, after = window // 2, window - 1 - window // 2
    padded = np.pad(boxes, ((before, after), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, np.full(window, 1.0 / window), mode="valid") for column in padded.T], 1)


def _make_frame(path: Path, found: Sequence[tuple[str, NDArray[np.float64]]], show: str) -> Scene:
    """Make the scene of a frame; its gaze points stay in pixels until the size of the picture is known."""
    heads = tuple(
        Head(
            tuple(map(float, row[:4])),  # pyright: ignore[reportArgumentType]
            () if min(row[4:6]) < 0 else ((float(row[4]), float(row[5])),),
            person,
        )
        for person, row in found
    )
    return Scene(path, heads, show, in_pixels=True)


def _read_prepared(path: Path, root: Path) -> Found:
    """Read preprocessed JSON."""
    try:
        entries: Any = read_json(path, most_bytes=MOST_LABELS)
    except (OSError, ValueError) as error:
        raise UserError.about(str(path), f"cannot be read: {explain(error)}") from None
    if not isinstance(entries, list):
        raise UserError.about(str(path), "has another form", expected="a list of pictures", got=type(entries).__name__)
    broken, rows, scenes = BrokenRows(), 0, list[Scene]()
    for number, entry in enumerate(entries):
        try:
            scene, count = _read_entry(entry, root, broken)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError.about(
                f"{path}, picture {number}",
                f"has another form ({type(error).__name__}: {error})",
                expected='{"path", "width", "height", "heads": [{"bbox", "gazex_norm", "gazey_norm", "inout"}]}',
                got=str(entry)[:200],
                remedy="write the file again from the tables of the data set, or remove it: the tables are read, too",
            ) from None
        rows += count
        scenes += [scene] if scene.heads else []
    refuse_normalised(broken, rows, path)
    return scenes, broken.describe(rows, path.name)


def _read_entry(entry: Mapping[str, Any], root: Path, broken: BrokenRows) -> tuple[Scene, int]:
    """Read one picture of preprocessed JSON, and count its heads."""
    name, size = str(entry["path"]), (int(entry["width"]), int(entry["height"]))
    if not entry["heads"]:
        broken.add(name, "has an empty list of heads")
        return Scene(root / name, (), name), 1
    heads: list[Head] = []
    for number, head in enumerate(entry["heads"]):
        box = tuple(map(float, head["bbox"]))
        x, y = head["gazex_norm"], head["gazey_norm"]
        pairs = zip(x, y, strict=True) if isinstance(x, list) else ((x, y),)
        is_in = float(head.get("inout", 1)) > 0
        points = tuple((float(one), float(other)) for one, other in pairs) if is_in else ()
        fault = find_box_fault(box, size) or next(filter(None, map(find_point_fault, points)), None)
        if float(head.get("inout", 1)) < 0:
            continue
        if fault is not None:
            broken.add(f"{name}, head {number}", fault)
            continue
        heads.append(Head(box, points, str(head.get("person", ""))))  # pyright: ignore[reportArgumentType]
    objects = tuple((float(x), float(y)) for x, y in entry.get("objects", ()))
    return Scene(root / name, tuple(heads), str(entry.get("group", name)), size, objects), len(entry["heads"])
