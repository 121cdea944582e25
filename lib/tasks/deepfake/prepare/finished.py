"""The record that a set is finished: what it was made of, so that the same command sees that there is nothing to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.data.manifest import Manifest
from lib.errors import UserError
from lib.files import write_text_atomically
from lib.tasks.deepfake.layouts.clip import Rejected
from lib.tasks.deepfake.prepare.destination import MANIFEST, QUARANTINE, SHARDS, read_preparation
from lib.tasks.deepfake.prepare.parts import PARTS
from lib.tasks.deepfake.prepare.summary import Counts
from lib.tasks.deepfake.prepare.work import Job

FINISHED = f"{PARTS}/finished.json"  # there while manifest, crops and parts agree, and only then


@dataclass(frozen=True)
class Finished:
    """digest: of all that decided the set; shards: how many hold its crops, 0 for loose files; shortest_timeout: of
    the clips that were too slow [s].
    """

    digest: str
    shards: int
    shortest_timeout: float | None
    counts: Counts


def compute_digest(settings: Mapping[str, Any], jobs: Sequence[Job], rejected: Sequence[Rejected]) -> str:
    """Of what is asked for and all that it is made of."""
    clips = [
        [job.fingerprint, c.key, c.label, c.identities, c.split, c.source_set, c.manipulation, c.compression]
        for job, c in ((job, job.clip) for job in jobs)
    ]
    left_out = sorted([item.source, -1 if item.frame is None else item.frame, item.reason] for item in rejected)
    return hashlib.sha256(json.dumps([settings, clips, left_out], sort_keys=True).encode()).hexdigest()


def read_finished(dest: Path) -> Finished | None:
    """What `write_finished` wrote, if anything."""
    try:
        stored = json.loads((dest / FINISHED).read_text(encoding="utf-8"))
        return Finished(**stored | {"counts": Counts(**stored["counts"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_finished(dest: Path, finished: Finished) -> None:
    write_text_atomically(dest / FINISHED, json.dumps(asdict(finished), allow_nan=False) + "\n")


def is_whole(dest: Path) -> bool:
    """Whether all files of a finished set are there, the crops in their sizes."""
    if not (dest / QUARANTINE).is_file() or not (read_preparation(dest) or {}).get("is_finished"):
        return False
    try:
        manifest = Manifest.open(dest / MANIFEST)
        sizes, offsets = manifest.column("size"), manifest.column("offset")
        column = manifest.column("path")
        assert not isinstance(column, np.ndarray)
        paths = (path for chunk in column.chunks for path in chunk.to_pylist())
        ends: dict[str, int] = {}
        for path, size, offset in zip(paths, sizes, offsets, strict=True):
            if path.startswith(f"{SHARDS}/"):
                ends[path] = max(ends.get(path, 0), int(offset + size))
            elif (dest / path).stat().st_size != size:
                return False
        return all((dest / path).stat().st_size >= end for path, end in ends.items())
    except (UserError, OSError):
        return False
