"""The demo's test people as face crops, each with self-blended fakes: data/demo/blends/{real,fake}/PERSON/.

    python demo/write_blends.py [PHOTOS.csv FOLDER CONFIG]     for the test people of another table of photos

blends.csv names them, with their kind: a model that learnt from self-blends is tested on its own kind of fake.

Nobody in it was used for training, tuning or selection. The blends are those of docs/results.md.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from sharpstudent.config.load import read_config_file
from sharpstudent.core.errors import exit_codes
from sharpstudent.core.io import write_bytes_atomically, write_text_atomically
from sharpstudent.core.random import build_generator
from sharpstudent.tasks.deepfake.samples import BlendedPairs
from sharpstudent.tasks.deepfake.task import BLEND

from demo.measure import BLENDS, FACES, SEED, list_faces

FOLDER = Path("data/demo/blends")
TABLE = FOLDER / "blends.csv"
CONFIG = Path("configs/demo.json")


def main() -> None:
    table, folder, config = map(Path, sys.argv[1:] or (FACES, FOLDER, CONFIG))
    write_blends(table, folder, int(read_config_file(config)["image_size"]))


def write_blends(table: Path, folder: Path, image_size: int, times: int = BLENDS) -> None:
    """Write the real faces of a table's test people, and so many self-blends of each, anew into a folder."""
    faces = list_faces("test", image_size, table)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier version, which wrote the real face with every blend
    lines = ["path,label,person,manipulation"]
    pairs = BlendedPairs(faces, image_size=image_size, train=False, times=times)
    for index in range(len(pairs)):
        sample = pairs.make(index, build_generator(SEED, 0, index))
        repeat, face = divmod(index, len(faces))
        photo = Path(faces[face].name).stem
        for label, image in zip(sample.targets["label"], sample.inputs["image"], strict=True):
            place = Path(("real", "fake")[label]) / faces[face].identity / f"{photo}_{repeat}.png"
            _write(folder / place, image)
            lines.append(f"{place.as_posix()},{place.parts[0]},{faces[face].identity},{BLEND if label else ''}")
    write_text_atomically(folder / TABLE.name, "\n".join([*lines, ""]))
    people = {face.identity for face in faces}
    print(f"{folder}: {len(faces)} faces of {len(people)} test people, and {times} blends of each")


def _write(path: Path, image: np.ndarray) -> None:
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    write_bytes_atomically(path, encoded.tobytes())


if __name__ == "__main__":
    with exit_codes():
        main()
