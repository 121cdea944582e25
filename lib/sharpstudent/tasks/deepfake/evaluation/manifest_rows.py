"""The columns of a prepared set's manifest, held as arrays: no object is made for a row.

Legend: R rows (all of the manifest's, or the chosen ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sharpstudent.core.naming import printable
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, Manifest
from sharpstudent.tasks.deepfake.dataset.shards import SHARD_SUFFIX
from sharpstudent.tasks.deepfake.sources.manifest import read_labels


@dataclass(frozen=True)
class Texts:
    """One column of texts.

    Attributes:
        names: The distinct texts, in the order of their first rows.
        codes: For each row the index of its text in `names`, int32 (R,).
    """

    names: list[str]
    codes: NDArray[np.int32]

    def at(self, row: int) -> str:
        """Return the text of one row."""
        return self.names[self.codes[row]]

    def read(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the texts of some rows; equal texts are one object."""
        return [self.names[code] for code in self.codes[rows].tolist()]


@dataclass(frozen=True)
class ManifestRows:
    """The columns of a manifest, R rows of each; they are those of `FaceRow`.

    Attributes:
        clips: The clip of each row.
        people: The person of each row.
        groups: The group of each row.
        manipulations: The kind of fake of each row.
        labels: The label of each row, real 0 and fake 1.
        frame_index: The number of each row's frame in its clip.
        face_index: The number of each row's person in its clip, 0 for the largest.
        crc32: The crc32 of each crop.
        split_ends: The end of the rows of each split, in the order of SPLITS.
    """

    clips: Texts
    people: Texts
    groups: Texts
    manipulations: Texts
    labels: NDArray[np.int8]
    frame_index: NDArray[np.int32]
    face_index: NDArray[np.int32]
    crc32: NDArray[np.uint32]
    split_ends: tuple[int, ...]

    def find_split(self, row: int) -> str:
        """Find the split that a row is in."""
        return SPLITS[int(np.searchsorted(self.split_ends, row, side="right"))]


def read_rows(manifest: Manifest) -> ManifestRows:
    """Read the columns. Raises UserError for damaged ones, and for labels other than 0 and 1."""
    rows = ManifestRows(
        clips=_read_texts(manifest, "clip_id"),
        people=_read_texts(manifest, "identity"),
        groups=_read_texts(manifest, "group"),
        manipulations=_read_texts(manifest, "manipulation"),
        labels=read_labels(manifest),
        frame_index=_read_numbers(manifest, "frame_index"),
        face_index=_read_numbers(manifest, "face_index"),
        crc32=_read_numbers(manifest, "crc32"),
        split_ends=tuple(manifest.rows_of(split).stop for split in SPLITS),
    )
    manifest.release()
    pa.default_memory_pool().release_unused()  # or each forked loader process would hold it, too
    return rows


def name_faces(manifest: Manifest, rows: range | NDArray[np.int32]) -> list[str]:
    """Name rows as `Manifest.name_of` does. Columns are read as a whole: a million rows one by one would take minutes.

    Args:
        manifest: The prepared set.
        rows: The numbers of the rows.

    Returns:
        The names.
    """
    numbers = np.asarray(rows, np.int64)
    paths, clips = (_read_texts(manifest, name).read(numbers) for name in ("path", "clip_id"))
    places = [_read_numbers(manifest, name)[numbers].tolist() for name in ("frame_index", "face_index")]
    return [
        printable(f"{path}:{clip}/{frame:06d}_{face}" if path.endswith(SHARD_SUFFIX) else path)
        for path, clip, frame, face in zip(paths, clips, *places, strict=True)
    ]


def _read_texts(manifest: Manifest, name: str) -> Texts:
    column: Any = manifest.column(name)
    coded: pa.DictionaryArray = column.dictionary_encode().unify_dictionaries().combine_chunks()
    return Texts(coded.dictionary.to_pylist(), coded.indices.to_numpy())


def _read_numbers(manifest: Manifest, name: str) -> NDArray:
    column = manifest.column(name)
    assert isinstance(column, np.ndarray)
    return column
