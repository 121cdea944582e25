"""What check and describe work on: findings, each one fault with a count, a few examples by name and what to do; and
the columns of a manifest, names as numbers, so that a million rows stay small.
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
    """A fault of a set. what: a sentence with the count in it; examples: the first of them; count: how many such there
    are; remedy: what to do about it.
    """

    what: str
    count: int
    examples: Sequence[str]
    remedy: str

    def as_text(self) -> str:
        lines = [f"PROBLEM  {self.what}", *(f"    {example}" for example in self.examples)]
        if self.count > len(self.examples) > 0:
            lines.append(f"    and {self.count - len(self.examples):,} more")
        return "\n".join([*lines, f"    what to do: {self.remedy}"])


def find_any(what: str, count: int, examples: Iterable[str], remedy: str) -> Iterator[Finding]:
    """The finding with its first examples; nothing where the count is 0, and then no example is made."""
    if count:
        yield Finding(what, count, tuple(islice(examples, EXAMPLES)), remedy)


def count_of(number: int, one: str, many: str) -> str:
    """`1 crop is`, `2,000 crops are`."""
    return f"{number:,} {one if number == 1 else many}"


LABELS = ("real", "fake")
UNUSED = SPLITS.index("none")

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Named:
    """A column of names. codes: int64 (n,), which of `names` each row has."""

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True)
class Faces:
    """All rows of a manifest, column by column, each (n,).

    split: index into SPLITS; label: 0 or 1; clip, person, group: their numbers;
    face_size [px of the frame], sharpness; phash: uint64. What is not here is read row by row from `manifest`.
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
        return self.manifest.face(int(index))

    def name_of(self, index: int) -> str:
        """What the user calls a crop, below the manifest's folder, with its split and label."""
        row = self.row(index)
        name = self.manifest.name_of(row).removeprefix(f"{self.manifest.folder}/")
        return f"{name} ({row.split}, {LABELS[row.label]})"

    def find_setting(self, name: str) -> Any:
        """What the preparation says of one of its settings; None where it says nothing."""
        about = self.manifest.about
        settings = about.get("settings")
        return about.get(name, settings.get(name) if isinstance(settings, dict) else None)


def open_faces(path: Path) -> Faces:
    """The columns of a manifest, or of the manifest in a folder. Raises UserError where there is none, where it is
    damaged, or where it has no rows.
    """
    manifest = open_manifest(path)
    if len(manifest) == 0:
        remedy = "see quarantine.csv beside it: it has the reason for every file"
        raise UserError.about(str(manifest.path), "holds no face", remedy=remedy)
    manifest.verify()
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
    """Names in the order of their first row. Those of clips and people stay in the file."""
    column: Any = manifest.column(name)  # Arrow's, for texts
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    codes = encoded.indices.to_numpy().astype(np.int64)
    is_short = name in ("source_set", "manipulation", "compression")
    return Named(codes, tuple(encoded.dictionary.to_pylist()) if is_short else ())
