"""The columns of a prepared set's manifest that judging needs, as numbers: no row of it is ever an object.

Legend: R rows, all of the manifest's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.data.manifest import SPLITS, Manifest
from lib.data.shards import SHARD_SUFFIX
from lib.errors import Problem, UserError


@dataclass(frozen=True)
class Texts:
    """One column: names, each once in the order of their first row; codes: which of them each row has, int32 (R,)."""

    names: list[str]
    codes: NDArray[np.int32]

    def read(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of some rows; equal ones are one object."""
        return [self.names[code] for code in self.codes[rows].tolist()]


@dataclass(frozen=True)
class ManifestRows:
    """R of each; clips, people, groups, manipulations: texts; the others as `FaceRow` has them."""

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
        """The split that a row is in."""
        return SPLITS[int(np.searchsorted(self.split_ends, row, side="right"))]

    def find_first_of_clips(self) -> dict[str, int]:
        """The first row of each clip."""
        codes, rows = np.unique(self.clips.codes, return_index=True)
        return {self.clips.names[code]: row for code, row in zip(codes.tolist(), rows.tolist(), strict=True)}


def read_rows(manifest: Manifest) -> ManifestRows:
    """Raises UserError for damaged columns, and for labels other than 0 and 1."""
    labels = _read_numbers(manifest, "label")
    if not np.isin(labels, (0, 1)).all():
        raise UserError(
            Problem(
                f"{manifest.path}, label",
                "is neither 0 (real) nor 1 (fake)",
                got=f"{np.unique(labels).tolist()}",
                remedy="make the manifest again with prepare_faces.py",
            )
        )
    rows = ManifestRows(
        clips=_read_texts(manifest, "clip_id"),
        people=_read_texts(manifest, "identity"),
        groups=_read_texts(manifest, "group"),
        manipulations=_read_texts(manifest, "manipulation"),
        labels=labels,
        frame_index=_read_numbers(manifest, "frame_index"),
        face_index=_read_numbers(manifest, "face_index"),
        crc32=_read_numbers(manifest, "crc32"),
        split_ends=tuple(manifest.rows_of(split).stop for split in SPLITS),
    )
    manifest.release()
    pa.default_memory_pool().release_unused()  # the loader's processes are forked from this one
    return rows


def name_faces(manifest: Manifest, rows: range | NDArray[np.int32]) -> list[str]:
    """What `Manifest.name_of` calls these rows, read by column: a million rows one by one would take minutes."""
    numbers = np.asarray(rows, np.int64)
    paths, clips = (_read_texts(manifest, name).read(numbers) for name in ("path", "clip_id"))
    places = [_read_numbers(manifest, name)[numbers].tolist() for name in ("frame_index", "face_index")]
    above = str(manifest.folder / "x")[:-1]  # as pathlib writes it, without its price for each of a million paths
    return [
        f"{above}{path}:{clip}/{frame:06d}_{face}" if path.endswith(SHARD_SUFFIX) else above + path
        for path, clip, frame, face in zip(paths, clips, *places, strict=True)
    ]


def _read_texts(manifest: Manifest, name: str) -> Texts:
    column = manifest.column(name)
    assert isinstance(column, pa.ChunkedArray)
    names = pc.call_function("unique", [column])
    options = pc.SetLookupOptions(value_set=names)
    codes = pc.call_function("index_in", [column], options).to_numpy()
    return Texts(names.to_pylist(), codes.astype(np.int32))


def _read_numbers(manifest: Manifest, name: str) -> NDArray:
    column = manifest.column(name)
    assert isinstance(column, np.ndarray)
    return column
