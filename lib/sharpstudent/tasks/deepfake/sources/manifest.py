"""Finds the faces of a prepared set: crops with landmarks and boxes, loose or in shards.

prepare_faces.py makes it, as DEST/manifest.arrow. A face is made from its row when it is asked for, so that a set of
any size needs no list in memory, and no whole frame is ever decoded. No crop of the test split is ever opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.storage import find_user_cache
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, FaceRow, Manifest
from sharpstudent.tasks.deepfake.section import CACHE_GB
from sharpstudent.tasks.deepfake.sources.face import (
    COUNTS_ONCE,
    WEIGHS_MORE,
    Face,
    FaceSplits,
    LoadedFace,
    check_disjoint,
    decode_picture,
    describe_copies,
)

Fakes = Literal["blend", "labels"]
CLASSES = ("real", "fake")  # labels 0 and 1
USED_SPLITS = ("train", "val")


def find_faces(
    root: Path | str,
    *,
    fakes: Fakes,
    allow_shared: bool = False,
    cache_folder: str | None = None,
    cache_gb: float = CACHE_GB,
) -> FaceSplits:
    """Find training and validation rows.

    Args:
        root: The manifest's file or its folder; a text is the address of a set in a storage.
        fakes: "blend" takes real faces only, whose fakes come by self-blending; "labels" takes real and fake faces.
        allow_shared: Permit people and clips that are in both splits.
        cache_folder: As `open_manifest` takes it.
        cache_gb: As `open_manifest` takes it.

    Returns:
        The faces.

    Raises:
        UserError: If there is no usable manifest, a split lacks a class that is needed, or people or clips are in both
            splits.
    """
    manifest = open_manifest(root, cache_folder=cache_folder, cache_gb=cache_gb)
    labels = read_labels(manifest)
    rows = {split: manifest.rows_of(split) for split in USED_SPLITS}
    counts = {split: np.bincount(labels[found.start : found.stop], minlength=2) for split, found in rows.items()}
    _check_classes(manifest, counts, fakes)
    if not allow_shared:
        for name in ("group", "identity", "clip_id"):
            shared = _find_shared(manifest, name, *rows.values())
            check_disjoint(manifest.path, shared, shared)
    chosen = {split: _choose_real(labels, found) if fakes == "blend" else found for split, found in rows.items()}
    kinds = () if fakes == "blend" else _list_kinds(manifest, labels, rows["train"])
    copies = {split: find_copies_of_stills(manifest, found) for split, found in rows.items()}
    if copies["val"]:
        left_out = np.fromiter(copies["val"], np.int64)
        counts["val"] -= np.bincount(labels[left_out], minlength=2)
        chosen["val"] = np.setdiff1d(np.asarray(chosen["val"], np.int32), left_out)
    notes = (
        manifest.place,
        *manifest.notes,
        *(_describe(manifest, split, rows[split], counts[split], fakes) for split in rows),
        *(f"{split}: {line}" for split in rows for line in describe_stills(manifest, copies[split], EFFECTS[split])),
    )
    manifest.release()
    pa.default_memory_pool().release_unused()  # or each forked loader process would hold it, too
    train, validation = (ManifestFaces(manifest, found) for found in chosen.values())
    return FaceSplits(train, validation, notes, depends_on=(manifest.path,), kinds=kinds)


def open_manifest(root: Path | str, *, cache_folder: str | None = None, cache_gb: float = CACHE_GB) -> Manifest:
    """Open the manifest that is this file, or lies in this folder.

    Args:
        root: The file or folder; a text is the address of a set in a storage.
        cache_folder: Where files of a storage are kept on this machine; None for the user's cache.
        cache_gb: How much that folder may hold [GB].

    Returns:
        The manifest.

    Raises:
        UserError: For a missing or broken one, for the part of one clip, and where a storage refuses.
    """
    if isinstance(root, str):
        from sharpstudent.tasks.deepfake.dataset.stored_set import StoredCrops

        folder = find_user_cache() / "storage" if cache_folder is None else Path(cache_folder)
        return StoredCrops.open(root, folder, cache_gb).open_manifest()
    path = root / MANIFEST if root.is_dir() else root
    if not path.exists():
        raise UserError.about(
            where=str(root),
            what=f"holds no {MANIFEST}" if root.is_dir() else "does not exist",
            expected=f"a folder that prepare_faces.py has made, or the {MANIFEST} in it",
            remedy="python prepare_faces.py SOURCE DEST, then name DEST (in a config: data_root)",
        )
    manifest = Manifest.open(path)
    if manifest.is_part:
        remedy = f"name the prepared folder or the {MANIFEST} in it"
        raise UserError.about(str(path), "is the part of one clip, not a manifest", remedy=remedy)
    return manifest


@dataclass(frozen=True)
class ManifestFaces(Sequence[Face]):
    """The faces of some rows, made when they are asked for.

    Attributes:
        manifest: The prepared set.
        rows: A range of rows, or an array of row numbers, int32 (n,): 4 MB a million.
    """

    manifest: Manifest
    rows: range | NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def take_label(self, label: int) -> ManifestFaces:
        """Return the faces with a label: real 0, fake 1."""
        labels = np.asarray(self.manifest.column("label"), np.int8)
        rows = np.asarray(self.rows, np.int32)
        return ManifestFaces(self.manifest, rows[labels[rows] == label])

    def find_identities(self) -> frozenset[str]:
        """Return every person in these rows, by the column."""
        return frozenset(pc.call_function("unique", [self._take("identity")]).to_pylist())

    def count_clips(self) -> int:
        """Count the clips of these rows, by the column."""
        return pc.call_function("count_distinct", [self._take("clip_id")]).as_py()

    def _take(self, name: str) -> pa.ChunkedArray:
        column, rows = self.manifest.column(name), self.rows
        assert not isinstance(column, np.ndarray)
        return column.slice(rows.start, len(rows)) if isinstance(rows, range) else column.take(pa.array(rows))

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Face]: ...
    def __getitem__(self, index: int | slice) -> Face | Sequence[Face]:
        if isinstance(index, slice):
            return ManifestFaces(self.manifest, self.rows[index])
        try:
            row = self.manifest.face(int(self.rows[index]))
        except UnreadableSample as error:  # raised when the face is loaded: the loader then takes a substitute
            return Face(name=error.path, clip_id="", identity="", label=0, load=_DamagedRow(error).load)
        return Face(
            name=self.manifest.name_of(row),
            clip_id=row.clip_id,
            identity=row.identity,
            label=row.label,
            load=StoredCrop(self.manifest, row).load,
            load_points=StoredCrop(self.manifest, row).load_points,
        )


@dataclass(frozen=True)
class StoredCrop:
    """A crop by its row.

    Attributes:
        manifest: The prepared set.
        row: The crop's row.
    """

    manifest: Manifest
    row: FaceRow

    def load(self) -> LoadedFace:
        """Read the crop, with its landmarks and the detector's box in its own pixels."""
        row = self.row
        image = decode_picture(self.manifest.read_crop_of(row), self.manifest.name_of(row), f" (cut from {row.source})")
        corner = np.array(row.crop_xyxy[:2] * 2, np.float32)
        return LoadedFace(image, row.landmarks, ((row.box_xyxy - corner) * np.float32(row.scale))[None])

    def load_points(self) -> NDArray[np.generic] | None:
        """Read the landmarks in the crop's own pixels, without the crop."""
        return self.row.landmarks


@dataclass(frozen=True)
class _DamagedRow:
    """Stands for a face whose row is damaged; the error is raised when the face is loaded."""

    error: UnreadableSample

    def load(self) -> LoadedFace:
        """Raise the error."""
        raise self.error


EFFECTS = {"val": COUNTS_ONCE, "train": f"{WEIGHS_MORE}; delete the copies of these photos, and prepare the set again"}


def find_copies_of_stills(manifest: Manifest, rows: range) -> dict[int, int]:
    """Find the copies among single pictures of a class; equal frames of a video are frames all the same.

    Args:
        manifest: The prepared set.
        rows: The rows to compare with each other.

    Returns:
        Each row whose crop equals that of an earlier one to the last byte, with that row, ascending.
    """
    crc32 = _read_numbers(manifest, "crc32", rows)
    in_order = np.sort(crc32)
    some = np.flatnonzero(np.isin(crc32, in_order[1:][in_order[1:] == in_order[:-1]]))
    if not len(some):
        return {}
    some = some[_are_stills(manifest, rows, some)]
    kinds = [_read_numbers(manifest, name, rows)[some].tolist() for name in ("label", "size", "phash")]
    first: dict[tuple[int, ...], int] = {}
    found = {
        row: first.setdefault(key, row)
        for row, key in zip((some + rows.start).tolist(), zip(crc32[some].tolist(), *kinds, strict=True), strict=True)
    }
    return {row: earlier for row, earlier in found.items() if row != earlier}


def describe_stills(manifest: Manifest, copies: Mapping[int, int], effect: str = COUNTS_ONCE) -> tuple[str, ...]:
    """Say that rows are copies of others, by the files that they were cut from.

    Args:
        manifest: The prepared set.
        copies: As `find_copies_of_stills` returns them.
        effect: What that means.

    Returns:
        A line; () for no copies.
    """
    pairs = [(str(row), str(earlier)) for row, earlier in copies.items()]
    pairs[:1] = [(manifest.face(row).source, manifest.face(copies[row]).source) for row in [*copies][:1]]
    return describe_copies(pairs, effect)


def _are_stills(manifest: Manifest, rows: range, some: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return of some rows, counted from the first, whether their clips show one frame each."""
    clips = _slice(manifest, "clip_id", rows)
    names = pc.call_function("unique", [clips.take(pa.array(some))])
    place = pc.call_function("index_in", [clips], pc.SetLookupOptions(value_set=names)).fill_null(-1).to_numpy()
    frames, of_some = _read_numbers(manifest, "frame_index", rows), place >= 0
    lowest, highest = np.full(len(names), np.iinfo(np.int32).max), np.full(len(names), -1)
    np.minimum.at(lowest, place[of_some], frames[of_some])
    np.maximum.at(highest, place[of_some], frames[of_some])
    return (lowest == highest)[place[some]]


def _read_numbers(manifest: Manifest, name: str, rows: range) -> NDArray[Any]:
    column = manifest.column(name)
    assert isinstance(column, np.ndarray)
    return column[rows.start : rows.stop]


def read_labels(manifest: Manifest) -> NDArray[np.int8]:
    """Read the label of every row, int8 (n,). Raises UserError for any but 0 and 1."""
    labels = np.asarray(manifest.column("label"), np.int8)
    if ((labels < 0) | (labels > 1)).any():
        raise UserError.about(
            where=f"{manifest.path}, label",
            what="is neither 0 (real) nor 1 (fake)",
            got=f"{np.unique(labels).tolist()}",
            remedy="make the manifest again with prepare_faces.py",
        )
    return labels


def _choose_real(labels: NDArray[np.int8], rows: range) -> range | NDArray[np.int32]:
    real = np.flatnonzero(labels[rows.start : rows.stop] == 0)
    return rows if len(real) == len(rows) else (real + rows.start).astype(np.int32)


def _list_kinds(manifest: Manifest, labels: NDArray[np.int8], rows: range) -> tuple[str, ...]:
    """List the kinds of fake in a range of rows."""
    is_fake = pa.array(labels[rows.start : rows.stop] == 1)
    return tuple(
        sorted(pc.call_function("unique", [_slice(manifest, "manipulation", rows).filter(is_fake)]).to_pylist())
    )


def _find_shared(manifest: Manifest, name: str, train: range, validation: range) -> list[str]:
    """Return the texts of a column that occur in both ranges of rows."""
    one, other = (pc.call_function("unique", [_slice(manifest, name, rows)]) for rows in (train, validation))
    is_shared = pc.call_function("is_in", [other], pc.SetLookupOptions(value_set=one))
    return other.filter(is_shared).to_pylist()


def _slice(manifest: Manifest, name: str, rows: range) -> pa.ChunkedArray:
    column = manifest.column(name)
    assert not isinstance(column, np.ndarray)
    return column.slice(rows.start, len(rows))


def _check_classes(manifest: Manifest, counts: dict[str, NDArray[np.int64]], fakes: Fakes) -> None:
    wanted = CLASSES[:1] if fakes == "blend" else CLASSES
    absent = [
        f"no {name} face in {split}"
        for split, count in counts.items()
        for name, n in zip(wanted, count[: len(wanted)], strict=True)
        if n == 0
    ]
    if absent:
        remedy = "prepare more clips or people"
        if fakes == "labels":
            remedy += "; or set fakes to blend, which makes the fakes from the real faces"
        raise UserError.about(
            where=str(manifest.path),
            what=f"has {' and '.join(absent)}",
            expected=f"{' and '.join(wanted)} faces in train and in val (fakes = {fakes!r})",
            got="; ".join(f"{split}: {_count(count)}" for split, count in counts.items()),
            remedy=remedy,
        )


def _count(count: NDArray[np.int64]) -> str:
    return ", ".join(f"{n} {name}" for name, n in zip(CLASSES, count.tolist(), strict=True))


def _describe(manifest: Manifest, split: str, rows: range, count: NDArray[np.int64], fakes: Fakes) -> str:
    clips, people = (
        pc.call_function("count_distinct", [_slice(manifest, name, rows)]).as_py() for name in ("clip_id", "identity")
    )
    used = f"{count[0]} real faces, fakes by self-blending" if fakes == "blend" else _count(count)
    return f"{split}: {used}; {clips} clips, {people} people in its {len(rows)} rows"
