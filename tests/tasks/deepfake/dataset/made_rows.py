"""Rows of a manifest, drawn from a seed: every field holds something, landmarks of both kinds."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow


def make_row(seed: int, split: str = "train", **fields: Any) -> FaceRow:
    rng = np.random.default_rng(seed)
    clip = seed // 4
    row = FaceRow(
        path=f"crops/clip {clip}/é{seed:06d}_0.png",
        offset=0,
        size=int(rng.integers(1, 2**40)),
        crc32=int(rng.integers(2**32)),
        label=seed % 2,
        clip_id=f"clip {clip}",
        identity=f"person {clip // 2}",
        group=f"people {clip // 2}",
        split=split,
        source_set="Drawn",
        manipulation="Deepfakes" if seed % 2 else "",
        compression="c23",
        source=f"videos/clip {clip}.mp4",
        frame_index=seed * 10,
        face_index=seed % 3,
        score=float(rng.random()),
        sharpness=float(rng.random() * 1000),
        face_size=float(rng.random() * 300),
        frame_size=(1920, 1080),
        box_xyxy=rng.random(4, np.float32) * 500,
        crop_xyxy=(1, 2, 301, 402),
        scale=0.5,
        landmarks=rng.random((68 if seed % 5 == 0 else 81, 2), np.float32) * 200,
        detector="yunet 2023mar",
        phash=int(rng.integers(2**64, dtype=np.uint64)),
    )
    return replace(row, **fields)


def describe_row(row: FaceRow) -> list[Any]:
    """Every field with its type, arrays as bytes: what two equal rows share."""
    return [
        (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else (type(value), value)
        for value in vars(row).values()
    ]


def make_rows(count: int) -> list[FaceRow]:
    """Rows of all four splits, sorted."""
    return [make_row(i, SPLITS[i * len(SPLITS) // count]) for i in range(count)]


def find_value(path: Path, name: str, buffer: int, position: int) -> int:
    """Where a byte of a column's buffer lies in the file. buffer: 1 offsets or numbers, 2 texts."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        whole = pa.py_buffer(mapped)
        column = pa.ipc.open_file(whole).get_batch(0).column(name)
        place = column.buffers()[buffer].address - whole.address + position
        del column, whole
    return place
