"""A small prepared set: crops with their rows, loose or in shards, as prepare_faces.py leaves it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.storage_cache import Kept
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow, write_manifest
from sharpstudent.tasks.deepfake.dataset.shards import write_shard
from sharpstudent.tasks.deepfake.dataset.stored_set import CONTENTS, render_contents


@dataclass(frozen=True)
class SetFace:
    """One face of a set. image: uint8 (H, W, 3) RGB, a frame; landmarks: (68 or 81, 2) in it; fields: of FaceRow."""

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    split: str
    label: int
    clip: str
    person: str
    fields: dict[str, Any]


def write_set(
    root: Path,
    faces: Sequence[SetFace],
    *,
    shards: bool = False,
    scale: float = 1.0,
    per_shard: int = 5,
    border: int = 0,
) -> Path:
    """Write ROOT/manifest.arrow and its crops: the frames without `border` pixels, scaled. Returns the manifest."""
    faces = sorted(faces, key=lambda face: SPLITS.index(face.split))
    names = [f"{face.clip}/{i:06d}_0.png" for i, face in enumerate(faces)]
    contents = [_encode(face.image, scale, border) for face in faces]
    if shards:
        places: list[tuple[str, int, int]] = []
        for start in range(0, len(faces), per_shard):
            path, some = f"shards/{start // per_shard:06d}.tar", slice(start, start + per_shard)
            found = write_shard(root / path, zip(names[some], contents[some], strict=True))
            places += [(path, *place) for place in found]
    else:
        for name, content in zip(names, contents, strict=True):
            (root / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "crops" / name).write_bytes(content)
        places = [(f"crops/{name}", 0, len(content)) for name, content in zip(names, contents, strict=True)]
    rows = [
        _to_row(face, i, content, place, scale, border)
        for i, (face, content, place) in enumerate(zip(faces, contents, places, strict=True))
    ]
    write_manifest(root / "manifest.arrow", rows, {})
    return root / "manifest.arrow"


def store_set(root: Path) -> str:
    """Write the list of contents that makes a set in ROOT one in a storage; returns its address."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != CONTENTS]
    files = {path.relative_to(root).as_posix(): Kept(path.stat().st_size, compute_sha256(path)) for path in paths}
    (root / CONTENTS).write_bytes(render_contents(files))
    return f"file://{root}"


def _encode(image: NDArray[np.uint8], scale: float, border: int) -> bytes:
    height, width = image.shape[:2]
    crop = np.ascontiguousarray(image[border : height - border, border : width - border, ::-1])
    if scale != 1.0:
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", crop)[1].tobytes()


def _to_row(
    face: SetFace, index: int, content: bytes, place: tuple[str, int, int], scale: float, border: int
) -> FaceRow:
    height, width = face.image.shape[:2]
    box = np.concatenate([face.landmarks[:68].min(axis=0), face.landmarks[:68].max(axis=0)]).astype(np.float32)
    values: dict[str, Any] = {
        "path": place[0],
        "offset": place[1],
        "size": place[2],
        "crc32": zlib.crc32(content),
        "label": face.label,
        "clip_id": face.clip,
        "identity": face.person,
        "group": face.person,
        "split": face.split,
        "source_set": "made",
        "manipulation": "Drawing" if face.label else "",
        "compression": "",
        "source": f"videos/{face.clip}.mp4",
        "frame_index": index,
        "face_index": 0,
        "score": 1.0,
        "sharpness": 100.0,
        "face_size": float((box[2:] - box[:2]).min()),
        "frame_size": (width, height),
        "box_xyxy": box,
        "crop_xyxy": (border, border, width - border, height - border),
        "scale": scale,
        "landmarks": ((face.landmarks - border) * scale).astype(np.float32),
        "detector": "none",
        "phash": 0,
    }
    return FaceRow(**{**values, **face.fields})
