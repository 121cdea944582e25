"""Measure how often faces are called unlike the material that a detector was made with.

    python benchmarks/unlike.py MODEL FOLDER...

MODEL has a reference beside it (`best_model.pth.familiar`). FOLDER holds ordinary photos of people that the reference
does not have: what is called unlike among them is a false alarm. The same faces are then turned, scaled
down, compressed and painted, after they were cropped; drawn faces come last. Prints the share that is called unlike, as
JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers")]

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.core.types import Batch, InputSource
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.loader import pictures_to_tensor
from sharpstudent.deploy.familiar import open_familiar
from sharpstudent.deploy.inputs import find_inputs
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.models.forward import run_model
from sharpstudent.tasks.deepfake.read_input import SUFFIXES, read_input
from sharpstudent.tasks.deepfake.task import DeepfakeTask

Picture = NDArray[np.uint8]
DRAWN = 100


def scale_down(side: int) -> Callable[[Picture], Picture]:
    def change(face: Picture) -> Picture:
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, face.shape[1::-1]), np.uint8)

    return change


def compress(quality: int) -> Callable[[Picture], Picture]:
    def change(face: Picture) -> Picture:
        _, content = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)

    return change


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "painted": lambda face: np.asarray(cv2.stylization(face), np.uint8),
    "jpeg 5": compress(5),
    "jpeg 15": compress(15),
    "turned by 90": lambda face: np.ascontiguousarray(np.rot90(face)),
    "turned by 180": lambda face: np.ascontiguousarray(np.rot90(face, 2)),
    "24 px": scale_down(24),
    "40 px": scale_down(40),
}


def crop(path: Path, side: int) -> list[Picture]:
    """The largest face of a photo, as predict.py crops it."""
    try:
        samples = list(read_input(InputSource(path.name, path), image_size=side))
    except UnreadableSample:
        return []
    return [sample.inputs["image"][0] for sample in samples if sample.inputs][:1]


def draw_all(folder: Path, side: int) -> list[Picture]:
    from drawn_faces import draw_face  # pyright: ignore[reportMissingImports]

    faces: list[Picture] = []
    for seed in range(DRAWN):
        path = folder / f"{seed}.png"
        cv2.imwrite(str(path), cv2.cvtColor(draw_face(seed, 256)[0], cv2.COLOR_RGB2BGR))
        faces += crop(path, side)
    return faces


def main() -> None:
    import tempfile

    torch.set_num_threads(1)
    renderer = load_renderer(DeepfakeTask)
    opened = renderer.open_model(ModelRequest(Path(sys.argv[1])), torch.device("cpu"))
    familiar, side = open_familiar(opened, print), opened.input_key
    assert familiar is not None, "the model has no reference: predict.py MODEL INPUT --reference FOLDER"
    assert isinstance(side, int)
    found: dict[str, tuple[int, float]] = {}

    def measure(name: str, faces: list[Picture]) -> None:
        distances: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(faces), 16):
                pictures = pictures_to_tensor(torch.from_numpy(np.stack(faces[start : start + 16])))
                batch = Batch({"image": pictures}, rows={"id": [f"{name} {place}" for place in range(len(pictures))]})
                distances += familiar.measure(run_model(opened.model, batch.inputs), batch).tolist()
        if distances:
            found[name] = (len(faces), round(float(np.mean(np.array(distances) > familiar.threshold)), 4))

    everyone: list[Picture] = []
    for folder in sys.argv[2:]:
        paths = [source.path for source in find_inputs([folder], SUFFIXES, {}).sources if source.path is not None]
        faces = [face for path in paths for face in crop(path, side)]
        measure(f"ordinary: {Path(folder).name}", faces)
        everyone += faces
    measure("ordinary: all", everyone)
    for name, change in CHANGES.items():
        measure(name, [change(face) for face in everyone])
    with tempfile.TemporaryDirectory() as folder:
        measure("drawn", draw_all(Path(folder), side))
    print(json.dumps({name: {"faces": count, "unlike": share} for name, (count, share) in found.items()}, indent=2))


if __name__ == "__main__":
    main()
