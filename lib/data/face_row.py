"""One face of a prepared set: the record, and its form in Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.errors import Problem, UserError

SPLITS = ("train", "val", "test", "none")  # in the order of the rows; `none`: kept out of all three


@dataclass(frozen=True)
class FaceRow:
    """One face.

    path: the crop's file, or the shard that holds it, below the manifest's folder, '/' between parts; offset, size:
    the crop's bytes within it [bytes] (offset 0 for a file of its own); crc32: of those bytes. label: real 0, fake 1.
    clip_id: the video; identity: the person whose face is seen; group: people who appear together in some clip, whom
    no split may part. source: the file that the face was cut from, as the user knows it. frame_index: in the video, 0
    for a photo; face_index: 0 for the largest person of the clip, and so on. score: the detector's, 0..1 (1 where the
    source brought its own landmarks); sharpness: variance of the Laplacian of the face, scaled to 100 px; face_size:
    the shorter side of its box [px of the frame]. frame_size: width, height [px]. box_xyxy: float32 (4,) [px of the
    frame]. crop_xyxy: int (4,), what was cut out [px of the frame]; scale: pixels of the stored crop a pixel of the
    frame, at most 1. landmarks: float32 (68 or 81, 2), dlib order [px of the stored crop]. detector: its name and
    version. phash: 64-bit perceptual hash of the face.
    """

    path: str
    offset: int
    size: int
    crc32: int
    label: int
    clip_id: str
    identity: str
    group: str
    split: str
    source_set: str
    manipulation: str
    compression: str
    source: str
    frame_index: int
    face_index: int
    score: float
    sharpness: float
    face_size: float
    frame_size: tuple[int, int]
    box_xyxy: NDArray[np.float32]
    crop_xyxy: tuple[int, int, int, int]
    scale: float
    landmarks: NDArray[np.float32]
    detector: str
    phash: int


def _list_of(number: pa.DataType, length: int = -1) -> pa.DataType:
    return pa.list_(pa.field("item", number, nullable=False), length)


_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("path", "clip_id", "identity", "group", "split"), pa.utf8()),
    **dict.fromkeys(("source_set", "manipulation", "compression", "source", "detector"), pa.utf8()),
    **dict.fromkeys(("offset", "size"), pa.int64()),
    **dict.fromkeys(("frame_index", "face_index"), pa.int32()),
    **dict.fromkeys(("score", "sharpness", "face_size", "scale"), pa.float64()),
    "crc32": pa.uint32(),
    "label": pa.int8(),
    "frame_size": _list_of(pa.int32(), 2),
    "box_xyxy": _list_of(pa.float32(), 4),
    "crop_xyxy": _list_of(pa.int32(), 4),
    "landmarks": _list_of(pa.float32()),  # x, y, x, y, ... of 68 or 81 points
    "phash": pa.uint64(),
}
_FIELDS = tuple(field.name for field in fields(FaceRow))
SCHEMA = pa.schema([pa.field(name, _TYPES[name], nullable=False) for name in _FIELDS])


def describe_difference(found: pa.Schema) -> str:
    """What of a schema is not SCHEMA."""
    missing = [name for name in SCHEMA.names if name not in found.names]
    if missing:
        return f"it lacks the columns {', '.join(missing)}"
    other = [name for name in SCHEMA.names if not found.field(name).equals(SCHEMA.field(name))]
    return "its columns differ: " + (
        ", ".join(f"{name} is {found.field(name).type}" for name in other) or "their order"
    )


def to_batch(rows: Sequence[FaceRow]) -> pa.RecordBatch:
    """Columns of rows. Raises UserError for a name that is no text, ValueError for a row that no reader takes."""
    for row in rows:
        _check(row)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _FIELDS}
    columns["landmarks"] = [np.asarray(points, np.float32).ravel() for points in columns["landmarks"]]
    try:
        return pa.record_batch([pa.array(columns[name], _TYPES[name]) for name in _FIELDS], schema=SCHEMA)
    except UnicodeEncodeError as error:
        raise UserError(
            Problem(repr(error.object), "is a name that is not UTF-8", remedy="rename the file or folder")
        ) from None


def to_rows(batch: pa.RecordBatch) -> list[FaceRow]:
    """The rows of a batch, copied out of it. Raises ValueError for damaged ones: offsets that lead elsewhere, no UTF-8,
    other landmarks than 68 or 81.
    """
    for column in batch.columns:
        check_column(column)
    columns = [_to_values(column) for column in batch.columns]
    return [FaceRow(*values) for values in zip(*columns, strict=True)]


def check_column(column: pa.Array) -> None:
    """Look at every value. Raises ValueError where reading it would lead outside the column's bytes, or there is none
    or no UTF-8.
    """
    if len(column) == 0:
        return  # Arrow ends the process where a list of nothing has a damaged offset
    column.validate(full=True)
    if column.null_count or (pa.types.is_nested(column.type) and column.flatten().null_count):
        raise ValueError("it holds nothing where a value must be")


def _to_values(column: pa.Array) -> list[Any]:
    """numpy arrays for the lists of float32, tuples for those of int32, else plain values."""
    if len(column) == 0 or not pa.types.is_nested(column.type):
        return column.to_pylist()
    numbers = column.flatten().to_numpy().copy()
    if column.type == _TYPES["landmarks"]:
        lengths = column.value_lengths().to_numpy()
        if not np.isin(lengths, (2 * 68, 2 * 81)).all():
            raise ValueError(f"landmarks of {lengths.min()} to {lengths.max()} numbers")
        return [points.reshape(-1, 2) for points in np.split(numbers, np.cumsum(lengths)[:-1])]
    table = numbers.reshape(len(column), -1)
    return list(table) if table.dtype == np.float32 else list(map(tuple, table.tolist()))


def _check(row: FaceRow) -> None:
    place = PurePosixPath(row.path)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise ValueError(f"path {row.path!r}: expected one below the manifest's folder")
    if row.split not in SPLITS or row.label not in (0, 1):
        raise ValueError(f"{row.path}: split {row.split!r}, label {row.label!r}")
    if row.landmarks.shape not in ((68, 2), (81, 2)):
        raise ValueError(f"{row.path}: landmarks of shape {row.landmarks.shape}, expected (68 or 81, 2)")
