"""Data sets to evaluate on: videos of plain blocks for faces, prepared or not, and crops; no model file is needed."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_clips import build_cropper, draw_blocks, write_picture
from drawn_faces import draw_face
from made_videos import write_video
from prepared_set import SetFace
from rich.console import Console
from sharpstudent.tasks.deepfake.evaluation import crops_set as folder_set
from sharpstudent.tasks.deepfake.prepare import run
from sharpstudent.tasks.deepfake.prepare.settings import Request

LARGE, SMALL = (40, 40, 140, 160), (200, 60, 260, 130)  # boxes in pictures of 320 x 240 px
NOBODY = "no face found"


class InProcessPool:
    """Runs the tasks in this process; starting workers takes a second or two."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], count: int, *, timeout_s: float) -> None:
        self._build = build

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Sequence[Any], tick: Callable[[], None]) -> Iterator[tuple[Any, Any]]:
        work = self._build()
        for task in tasks:
            yield task, work(task)


def use_block_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let preparations find blocks as faces, without worker processes."""
    monkeypatch.setattr(run, "WorkerPool", InProcessPool)
    monkeypatch.setattr("sharpstudent.tasks.deepfake.sources.face_crops.check_model_files", lambda: None)
    prepare_blocks = functools.partial(run.run_preparation, build_cropper=build_cropper)
    monkeypatch.setattr(folder_set, "run_preparation", prepare_blocks)


def write_clip(path: Path, frames: str) -> None:
    """A video with a frame for each letter: L a large face, S a small one, B both, - nobody."""
    boxes = {"L": [LARGE], "S": [SMALL], "B": [LARGE, SMALL], "-": []}
    write_video(path, [draw_blocks(*boxes[letter]) for letter in frames])


def write_tree(root: Path) -> Path:
    """11 frames with a face and 5 without, of 4 people; a clip without any face, and a file that is no video."""
    write_clip(root / "real/ann/a.avi", "LL-L")
    write_clip(root / "real/ben/b.avi", "--")
    write_clip(root / "fake/cat/c.avi", "BBB")
    write_clip(root / "fake/dan/d.avi", "LLLLL-")
    (root / "fake/dan/broken.avi").write_bytes(b"no video")
    return root


def prepare(source: Path, dest: Path, **settings: Any) -> None:
    """Run run_preparation with the block detector; by default nobody is held out."""
    request = Request(source, dest, **{"validation_share": 0.0, **settings})
    run.run_preparation(request, Console(file=io.StringIO()), build_cropper=build_cropper)


def write_crops(root: Path, names: Sequence[str], *, side: int = 24) -> Path:
    """A picture for each name, all different."""
    for seed, name in enumerate(names):
        write_picture(root / name, np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))
    return root


def make_face(seed: int, label: int, clip: str, frame: int, face: int, split: str = "test") -> SetFace:
    fields = {"frame_index": frame, "face_index": face}
    return SetFace(*draw_face(seed, 80), split, label, clip, f"person of {clip}", fields)


TWO_FACES = [
    make_face(0, 0, "alone", 4, 0),
    make_face(1, 1, "pair", 0, 0),
    make_face(2, 1, "pair", 0, 1),
    make_face(3, 1, "pair", 7, 1),
]
