"""The data of the measurement of what SAM is worth: faces of many people, and self-blended fakes of those for the test.

    python benchmarks/sam_worth/prepare.py ../shared/data sam_data

FOLDER/faces has the crops of all (prepare_faces.py), split by person: 400 for the test, 100 for validation, the others
for training. FOLDER/blends.csv names the test faces and two blends of each, always the same ones.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

import cv2
from sharpstudent.core.errors import exit_codes
from sharpstudent.core.io import write_bytes_atomically, write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.core.random import build_generator
from sharpstudent.tasks.deepfake.samples import BlendedPairs
from sharpstudent.tasks.deepfake.sources.manifest import ManifestFaces, open_manifest

SIDE = 96  # [px]
TEST, VALIDATION = 400, 100  # people
BLENDS, SEED = 2, 20_261_130  # of each test face; no training or validation uses this seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds faces/index.csv, faces_cc0/photos and faces_congress/photos")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    table = options.folder / "people.csv"
    write_text_atomically(table, format_csv([("path", "person", "split"), *split_people(list_photos(options.data))]))
    words = [str(table), str(options.folder / "faces"), "--image-size", str(SIDE), "--picture", "jpg"]
    subprocess.run([sys.executable, str(ROOT / "prepare_faces.py"), *words], check=True)
    write_blends(options.folder)


def list_photos(data: Path) -> list[tuple[Path, str]]:
    """Every photo with its person."""
    with open(data / "faces" / "index.csv", newline="", encoding="utf-8") as file:
        photos = [(data / "faces" / row["file"], row["person"]) for row in csv.DictReader(file)]
    for source in ("cc0", "congress"):  # one photo a person
        found = sorted((data / f"faces_{source}" / "photos").glob("*.jpg"))
        photos += [(path, f"{source}_{path.stem}") for path in found]
    return photos


def split_people(photos: list[tuple[Path, str]]) -> list[tuple[str, str, str]]:
    """The rows of a table of photos: people in an order that their names alone decide."""
    people = sorted({person for _, person in photos}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    place = {person: number for number, person in enumerate(people)}

    def find_split(person: str) -> str:
        held_out = "val" if place[person] < TEST + VALIDATION else "train"
        return "test" if place[person] < TEST else held_out

    return [(str(path.resolve()), person, find_split(person)) for path, person in photos]


def write_blends(folder: Path) -> None:
    """The test faces and their fakes, as files that evaluate_model.py reads."""
    manifest = open_manifest(folder / "faces")
    faces = ManifestFaces(manifest, manifest.rows_of("test"))
    pairs = BlendedPairs(faces, image_size=SIDE, train=False, times=BLENDS)
    lines = [("path", "label", "person")]
    for index in range(len(pairs)):
        sample = pairs.make(index, build_generator(SEED, 0, index))
        for name, label, image in zip(sample.rows["id"], sample.targets["label"], sample.inputs["image"], strict=True):
            kind, person = ("real", "fake")[label], sample.rows["group"][0]
            place = f"test/{kind}/{person}/{hashlib.sha256(name.encode()).hexdigest()[:12]}.png"
            encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(folder / place, encoded.tobytes())
            lines.append((place, kind, person))
    write_text_atomically(folder / "blends.csv", format_csv(lines))
    print(f"{folder / 'blends.csv'}: {len(lines) - 1} pictures of {len(faces.find_identities())} people")


if __name__ == "__main__":
    with exit_codes():
        main()
