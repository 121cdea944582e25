"""Defines findings, and reads the columns of a manifest for `check` and `describe`.

A finding is one kind of fault, with a count, a few examples by name and a remedy. Names in columns are stored as
numbers, so that a million rows need little memory.

Legend: n rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow, Manifest
from sharpstudent.tasks.deepfake.sources.manifest import open_manifest

EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """A fault of a set.

    Attributes:
        what: A sentence with the count in it.
        count: How many such faults there are.
        examples: The first of them by name.
        remedy: What to do about it.
    """

    what: str
    count: int
    examples: Sequence[str]
    remedy: str

    def as_text(self) -> str:
        """Return the lines that are printed."""
        lines = [f"PROBLEM  {self.what}", *(f"    {example}" for example in self.examples)]
        if self.count > len(self.examples) > 0:
            lines.append(f"    and {self.count - len(self.examples):,} more")
        return "\n".join([*lines, f"    what to do: {self.remedy}"])


def yield_finding(what: str, count: int, examples: Iterable[str], remedy: str) -> Iterator[Finding]:
    """Yield the finding with its first examples; nothing where the count is 0, and then no example is made.

    Args:
        what: A sentence with the count in it.
        count: How many such faults there are.
        examples: Their names, in order; no more than needed are taken.
        remedy: What to do about it.

    Yields:
        The finding, or nothing.
    """
    if count:
        yield Finding(what, count, tuple(islice(examples, EXAMPLES)), remedy)


def count_of(number: int, one: str, many: str) -> str:
    """Return a number with its noun and verb: `1 crop is`, `2,000 crops are`.

    Args:
        number: The count.
        one: The words for one.
        many: The words for any other number.

    Returns:
        The text.
    """
    return f"{number:,} {one if number == 1 else many}"


LABELS = ("real", "fake")
UNUSED = SPLITS.index("none")

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Named:
    """A column of names.

    Attributes:
        codes: int64 (n,), which of `names` each row has.
        names: The names, in the order of their first row.
    """

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True)
class Faces:
    """All rows of a manifest, column by column, each (n,). Other columns are read row by row from `manifest`.

    Attributes:
        manifest: The prepared set.
        split: Index into SPLITS.
        label: Real 0, fake 1.
        clip: Number of the clip.
        person: Number of the person.
        group: Number of the group.
        source_set: The data set.
        manipulation: The method that made a fake.
        compression: The data set's name of it.
        face_size: The shorter side of the face's box [px of the frame].
        sharpness: Variance of the Laplacian of the face, scaled to 100 px.
        phash: uint64, the perceptual hash.
    """

    manifest: Manifest
    split: Codes
    label: Codes
    clip: Codes
    person: Codes
    group: Codes
    source_set: Named
    manipulation: Named
    compression: Named
    face_size: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    phash: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.split)

    def row(self, index: int) -> FaceRow:
        """Read a row."""
        return self.manifest.face(int(index))

    def name_of(self, index: int) -> str:
        """Return what the user calls a crop, below the manifest's folder, with its split and label."""
        row = self.row(index)
        name = self.manifest.name_of(row)
        return f"{name} ({row.split}, {LABELS[row.label]})"

    def find_setting(self, name: str) -> Any:
        """Return one setting of the preparation; None where the manifest does not have it."""
        about = self.manifest.about
        settings = about.get("settings")
        return about.get(name, settings.get(name) if isinstance(settings, dict) else None)


def open_faces(path: Path | str) -> Faces:
    """Read the columns of a manifest, or of the manifest in a folder.

    Raises UserError where there is none, where it is damaged, or where it has no rows.
    """
    manifest = open_manifest(path)
    if len(manifest) == 0:
        remedy = "see quarantine.csv beside it: it has the reason for every file"
        raise UserError.about(str(manifest.path), "holds no face", remedy=remedy)
    split = np.repeat(np.arange(len(SPLITS)), [len(manifest.rows_of(name)) for name in SPLITS])
    return Faces(
        manifest,
        split=split,
        label=np.asarray(manifest.column("label")).astype(np.int64),
        clip=_encode(manifest, "clip_id").codes,
        person=_encode(manifest, "identity").codes,
        group=_encode(manifest, "group").codes,
        source_set=_encode(manifest, "source_set"),
        manipulation=_encode(manifest, "manipulation"),
        compression=_encode(manifest, "compression"),
        face_size=np.asarray(manifest.column("face_size")),
        sharpness=np.asarray(manifest.column("sharpness")),
        phash=np.asarray(manifest.column("phash")),
    )


def _encode(manifest: Manifest, name: str) -> Named:
    """Number the names in the order of their first row; those of clips and people stay in the file."""
    column: Any = manifest.column(name)  # Arrow's, for texts
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    codes = encoded.indices.to_numpy().astype(np.int64)
    is_short = name in ("source_set", "manipulation", "compression")
    return Named(codes, tuple(encoded.dictionary.to_pylist()) if is_short else ())
