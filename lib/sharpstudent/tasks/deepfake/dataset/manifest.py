"""Writes and reads the manifest of a prepared set: an Arrow IPC file with one row a face.

It is read through a memory map. Rows are sorted by split, so that a split is a range of rows and needs no list of them.

Every batch of rows has a checksum of its values. Opening compares them all, a batch at a time: a million rows, 1 GB,
take half a second and the memory of one batch. A pickled copy, as a loader process gets, does not do so again while
size, time and inode of the file are the same.

Legend: n rows.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.files import explain, open_plain
from sharpstudent.core.io import atomic_path
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.shards import SHARD_SUFFIX, BrokenCrop, read_crop_bytes

if TYPE_CHECKING:
    from sharpstudent.tasks.deepfake.dataset.stored_set import StoredCrops

MANIFEST = "manifest.arrow"  # its file in the folder of a set
SPLITS = ("train", "val", "test", "none")  # in the order of the rows; `none`: kept out of all three


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """One face of a prepared set.

    Attributes with a default are filled in later: when the crop is stored, or when the set is put together.

    Attributes:
        path: The crop's file, or the shard that holds it, below the manifest's folder, with '/' between parts.
        offset: Where the crop's bytes begin in that file [bytes]; 0 for a file of its own.
        size: How many bytes the crop has.
        crc32: The checksum of these bytes.
        label: Real 0, fake 1.
        clip_id: The video or photo.
        identity: The person whose face is seen.
        group: The group of the person: people who appear together in some clip, and belong in one split.
        split: One of SPLITS.
        source_set: The data set's name.
        manipulation: The method that made the fake, "" for a real face.
        compression: The data set's name of it, "" where there is none.
        source: The file that the face was cut out of, as the user knows it.
        frame_index: The frame's number in its video, 0 for a photo.
        face_index: 0 for the largest person of the clip, and so on.
        score: The detector's score, 0..1; 1 where the source brought its own landmarks.
        sharpness: Variance of the Laplacian of the face, scaled to 100 px.
        face_size: The shorter side of its box [px of the frame].
        frame_size: Width and height of the frame [px].
        box_xyxy: float32 (4,), the detector's box [px of the frame].
        crop_xyxy: What was cut out: left, top, right, bottom [px of the frame].
        scale: Pixels of the stored crop for each pixel of the frame, at most 1.
        landmarks: float32 (68 or 81, 2), dlib order [px of the stored crop].
        detector: Name and version of what found the face and cropped it.
        phash: 64-bit perceptual hash of the face.
    """

    path: str = ""
    offset: int = 0
    size: int = 0
    crc32: int = 0
    label: int = 0
    clip_id: str = ""
    identity: str = ""
    group: str = ""
    split: str = "none"
    source_set: str = ""
    manipulation: str = ""
    compression: str = ""
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
    """Return in words how a schema differs from SCHEMA."""
    missing = [name for name in SCHEMA.names if name not in found.names]
    if missing:
        return f"it lacks the columns {', '.join(missing)}"
    other = [f"{field.name} is {found.field(field.name).type}" for field in SCHEMA if found.field(field.name) != field]
    return f"its columns differ: {', '.join(other) or 'their order'}"


def to_batch(rows: Sequence[FaceRow]) -> pa.RecordBatch:
    """Convert rows to columns.

    Raises UserError for a name that is no text, ValueError for a row that no reader takes.
    """
    for row in rows:
        _check(row)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _FIELDS}
    columns["landmarks"] = [np.asarray(points, np.float32).ravel() for points in columns["landmarks"]]
    try:
        return pa.record_batch([pa.array(columns[name], _TYPES[name]) for name in _FIELDS], schema=SCHEMA)
    except UnicodeEncodeError as error:
        raise UserError.about(
            repr(error.object), "is a name that is not UTF-8", remedy="rename the file or folder"
        ) from None


def to_rows(batch: pa.RecordBatch) -> list[FaceRow]:
    """Convert a batch to rows, copied out of it.

    Raises ValueError for damaged ones: offsets that lead elsewhere, no UTF-8, other landmarks than 68 or 81.
    """
    for column in batch.columns:
        check_column(column)
    columns = [_to_values(column) for column in batch.columns]
    return [FaceRow(**dict(zip(_FIELDS, values, strict=True))) for values in zip(*columns, strict=True)]


def check_column(column: pa.Array) -> None:
    """Check every value of a column.

    Raises ValueError for a value that is missing, lies outside the column's bytes, or is not UTF-8.
    """
    if len(column) == 0:
        return  # Arrow aborts the process for an empty list with a damaged offset
    column.validate(full=True)
    if column.null_count or (pa.types.is_nested(column.type) and column.flatten().null_count):
        raise ValueError("it holds nothing where a value must be")


def _to_values(column: pa.Array) -> list[Any]:
    """Return numpy arrays for the lists of float32, tuples for those of int32, else plain values."""
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


FORMAT = "sharpstudent manifest 1"
BATCH_ROWS = 4096


def write_manifest(path: Path, rows: Iterable[FaceRow], about: Mapping[str, Any], *, is_part: bool = False) -> None:
    """Write rows as they come, atomically; the same rows and the same `about` give the same bytes.

    Args:
        path: The file.
        rows: The rows, sorted by SPLITS.
        about: Facts about the preparation, as plain JSON.
        is_part: Whether the rows are those of one finished clip, with splits in any order.

    Raises:
        UserError: If the disk refuses, or a name is no text.
        ValueError: If rows are not sorted, or of a form that no reader takes.
    """
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    schema = SCHEMA.with_metadata(
        {"format": FORMAT, "is_part": json.dumps(is_part), "about": text, "crc32": _crc(text)}
    )
    waiting, last, done = iter(rows), 0, 0
    with atomic_path(path) as temporary, open(temporary, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while some := list(islice(waiting, BATCH_ROWS)):
            batch = to_batch(some)
            for row in () if is_part else some:
                if SPLITS.index(row.split) < last:
                    raise ValueError(f"{row.path}: split {row.split} after {SPLITS[last]}; sort the rows by SPLITS")
                last = SPLITS.index(row.split)
            writer.write_batch(batch, custom_metadata={"crc32": _crc_of_batch(batch, done)})
            done += len(batch)
        end = to_batch([])  # stores the number of rows, because damage may hide whole batches
        writer.write_batch(end, custom_metadata={"crc32": _crc_of_batch(end, done), "rows": str(done)})


def _crc(text: str) -> str:
    return str(zlib.crc32(text.encode()))


def _crc_of_batch(batch: pa.RecordBatch, first_row: int) -> str:
    """Return the checksum of all values of a batch, column by column, and of its place in the file."""
    crc32 = zlib.crc32(f"{first_row} {len(batch)}".encode())
    for column in batch.columns:
        for buffer in column.buffers():
            crc32 = crc32 if buffer is None else zlib.crc32(buffer, crc32)
    return str(crc32)


FileVersion = tuple[int, int, int, int]  # size [bytes], time of the last change [ns], inode, device


UNSURE_FAKES = "unsure_fakes"  # the fact about a preparation that counts the clips of `describe_bystanders`
UNSURE = "nothing tells which person of a fake was manipulated"


def describe_bystanders(clips: int) -> tuple[str, ...]:
    """Return the warning about fake clips that show several people and have no usable mask; () for 0 clips."""
    if not clips:
        return ()
    count = format_count_of(clips, "fake clip")
    return (f"{UNSURE} in {count} of several people: real bystanders may be labelled fake there",)


class Manifest:
    """The faces of a prepared set by index, read when they are asked for: memory does not grow with the set.

    A forked or pickled copy reads the same file.

    Attributes:
        path: The path of the file.
        folder: The folder that the rows' paths are relative to.
        about: Facts about the preparation.
        is_part: Whether it holds one clip's rows, with splits in any order.
        notes: A line where another program wrote the file, without checksums, and one where bystanders may be fakes.
    """

    def __init__(self, path: Path, verified: FileVersion | None = None, stored: StoredCrops | None = None) -> None:
        """Open a manifest, as `open` does.

        Args:
            path: The file.
            verified: The version of the file that another process has verified.
            stored: Reads the crops where the set lies in a storage; None where they lie beside the file.
        """
        path = path if stored is None else stored.find_manifest()
        self.path, self.folder, self._stored = path, path.parent, stored
        self.notes: tuple[str, ...] = ()
        try:
            self._map(path)
            if self._version != verified:
                self.verify()
            self._bounds = None if self.is_part else self._find_splits()
            self.notes += describe_bystanders(self.about.get(UNSURE_FAKES, 0))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
            raise _explain_unusable(path, error) from None
        self.release()

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Open and verify a manifest's file.

        Raises UserError for any other file, a damaged or cut one, another schema, unsorted rows.
        """
        return cls(path)

    @property
    def place(self) -> str:
        """Its file, or its address in a storage."""
        return str(self.path) if self._stored is None else f"{self._stored.storage.address}/{MANIFEST}"

    @property
    def is_stored(self) -> bool:
        """Whether the set lies in a storage."""
        return self._stored is not None

    @property
    def name(self) -> str:
        """The name of the set's folder."""
        return (self.folder.resolve() if self._stored is None else PurePosixPath(self._stored.storage.address)).name

    def __reduce__(self) -> tuple[type[Manifest], tuple[Path, FileVersion, StoredCrops | None]]:
        return type(self), (self.path, self._version, self._stored)

    def __len__(self) -> int:
        return self._starts[-1]

    def rows_of(self, split: str) -> range:
        """Return the rows of one of SPLITS. Raises ValueError for a part, which has no such order."""
        if self._bounds is None:
            raise ValueError(f"{self.path} is one clip's part: its rows are not sorted by split")
        place = SPLITS.index(split)
        return range(self._bounds[place], self._bounds[place + 1])

    def face(self, index: int) -> FaceRow:
        """Read row 0..len-1. Raises IndexError beyond; UnreadableSample for a row whose bytes are damaged."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = bisect_right(self._starts, index) - 1
        (row,) = self._read(batch, index - self._starts[batch], 1)
        # A row lies in some 40 places of the file, and the kernel maps 64 KB around each: without the
        # release, 2 to 4 MB would stay in memory for each row.
        self.release()
        return row

    def __iter__(self) -> Iterator[FaceRow]:
        """Read all rows in order, a batch at a time: ten times as fast as one by one."""
        for i, batch in enumerate(self._batches):
            yield from self._read(i, 0, len(batch))
            self.release()

    def column(self, name: str) -> NDArray[Any] | pa.ChunkedArray:
        """Read one column of all rows.

        Args:
            name: The column's name.

        Returns:
            Numbers as a numpy copy (n,) or (n, k); texts and landmarks as Arrow's view of the file.

        Raises:
            UserError: If the column is damaged.
        """
        chunks = [batch.column(name) for batch in self._batches if len(batch)]
        try:
            for chunk in chunks:
                check_column(chunk)
        except (ValueError, pa.ArrowException) as error:
            raise _explain_unusable(self.path, error) from None
        kind = SCHEMA.field(name).type
        if pa.types.is_string(kind) or pa.types.is_list(kind):
            return pa.chunked_array(chunks, kind)
        if pa.types.is_fixed_size_list(kind):
            empty = np.zeros((0, kind.list_size), kind.value_type.to_pandas_dtype())
            parts = [chunk.flatten().to_numpy().reshape(-1, kind.list_size) for chunk in chunks]
        else:
            empty, parts = np.zeros(0, kind.to_pandas_dtype()), [chunk.to_numpy() for chunk in chunks]
        numbers = np.concatenate([empty, *parts])
        self.release()
        return numbers

    def read_crop(self, index: int) -> bytes:
        """Read the picture file of a row. Raises UnreadableSample where it is missing or not what was prepared."""
        return self.read_crop_of(self.face(index))

    def read_crop_of(self, row: FaceRow) -> bytes:
        """Read the picture file of a row at hand, as `read_crop` does."""
        place = PurePosixPath(row.path)
        try:
            if place.is_absolute() or ".." in place.parts:
                raise BrokenCrop("leads out of the manifest's folder")
            if self._stored is not None:
                return self._stored.read(row.path, offset=row.offset, size=row.size, crc32=row.crc32)
            return read_crop_bytes(self.folder / place, offset=row.offset, size=row.size, crc32=row.crc32)
        except BrokenCrop as error:
            raise UnreadableSample(
                self.name_of(row), f"{error} (cut from {row.source}, frame {row.frame_index})"
            ) from None

    def name_of(self, row: FaceRow) -> str:
        """Name a crop by its file below the manifest's folder, or by its shard and which crop in it."""
        is_packed = row.path.endswith(SHARD_SUFFIX)
        return f"{row.path}:{row.clip_id}/{row.frame_index:06d}_{row.face_index}" if is_packed else row.path

    def verify(self) -> None:
        """Read every byte of the table. Raises UserError that names the rows that are not as they were written."""
        damaged: list[str] = []
        has_any = False
        for i in range(len(self._batches)):
            batch, about = self._reader.get_batch_with_custom_metadata(i)
            stated = (about or {}).get(b"crc32")
            has_any = has_any or stated is not None
            if stated != _crc_of_batch(batch, self._starts[i]).encode():
                damaged.append(f"rows {self._starts[i]:,} to {self._starts[i + 1] - 1:,}")
            self.release()
        if not has_any:
            self.notes = (f"{self.path} is not verified: it has no checksums, so damage would not be noticed",)
        elif damaged:
            raise _explain_unusable(self.path, ValueError(f"{'; '.join(damaged[:5])}: other bytes than were written"))

    def release(self) -> None:
        """Drop the pages read so far from memory; they come back from the system's cache when they are needed again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, path: Path) -> None:
        with open_plain(path) as file:
            about_file = os.fstat(file.fileno())
            self._version = (about_file.st_size, about_file.st_mtime_ns, about_file.st_ino, about_file.st_dev)
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # ValueError: an empty file
        self._reader = pa.ipc.open_file(pa.py_buffer(self._mapped))
        found = self._reader.schema
        about = found.metadata or {}
        if about.get(b"format") != FORMAT.encode():
            raise ValueError(f"its format is {about.get(b'format')!r}")
        if not found.equals(SCHEMA, check_metadata=False):
            raise ValueError(describe_difference(found))
        if about[b"crc32"].decode() != _crc(about[b"about"].decode()):
            raise ValueError("what it says of its preparation is damaged")
        self.about: dict[str, Any] = json.loads(about[b"about"])
        if about[b"is_part"] not in (b"true", b"false"):
            raise ValueError("whether it is the part of one clip is damaged")
        self.is_part = about[b"is_part"] == b"true"
        self._batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        for batch in self._batches:
            batch.validate()  # that its columns lie within the file; each row is checked when it is read
            self.release()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)]).tolist()
        _, end = self._reader.get_batch_with_custom_metadata(len(self._batches) - 1)
        if end is None or end.get(b"rows") != str(len(self)).encode():
            raise ValueError(f"{len(self)} rows are not all that were written")

    def _find_splits(self) -> list[int]:
        """Return where each of SPLITS begins, and the end."""
        options = pc.SetLookupOptions(value_set=pa.array(SPLITS))
        codes = [np.zeros(0, np.int32)]
        for batch in filter(len, self._batches):
            check_column(batch.column("split"))
            found = pc.call_function("index_in", [batch.column("split")], options)
            codes.append(found.fill_null(-1).to_numpy())
            self.release()
        places = np.concatenate(codes)
        if (places < 0).any():
            row = int(np.argmax(places < 0))
            raise ValueError(f"row {row} has the split {self._name_split(row)!r}, which is none of {', '.join(SPLITS)}")
        if (np.diff(places) < 0).any():
            raise ValueError(f"its rows are not sorted by split ({', '.join(SPLITS)})")
        return np.searchsorted(places, range(len(SPLITS) + 1)).tolist()

    def _name_split(self, row: int) -> str:
        batch = bisect_right(self._starts, row) - 1
        return self._batches[batch].column("split")[row - self._starts[batch]].as_py()

    def _read(self, batch: int, start: int, count: int) -> list[FaceRow]:
        try:
            return to_rows(self._batches[batch].slice(start, count))
        except (ValueError, pa.ArrowException) as error:  # ValueError: also text that is no UTF-8
            first = self._starts[batch] + start
            raise UnreadableSample(f"{self.path}, row {first}", f"is damaged ({error}); {REMEDY}") from None


REMEDY = "make the manifest again with prepare_faces.py: the crops that are there are kept"


def _explain_unusable(path: Path, error: Exception) -> UserError:
    return UserError.about(
        where=str(path),
        what="is not a usable manifest",
        expected=f"a whole Arrow file ({FORMAT}), as prepare_faces.py writes it",
        got=explain(error),
        remedy=REMEDY,
    )
