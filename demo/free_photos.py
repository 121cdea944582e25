"""The freely licensed photos that the shipped deepfake model is trained and judged on, as data/free/faces.csv.

    python demo/free_photos.py DATA

DATA holds three folders: `faces` (index.csv; studio portraits, CC BY 4.0), `faces_cc0` (photos/*.jpg, CC0) and
`faces_congress` (photos/*.jpg, grey, public domain). People are held out by the digest of their name, so that a photo
that is added moves nobody. Photos that show the same picture of a face, also in two sets and under two names, are one
person. Of the grey photos every third person is taken, so that colour is the rule; real faces and fakes are made of the
same photos, so that grey means neither.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.tasks.deepfake.prepare.check_near import ALIKE, DISTANCE, describe_face
from sharpstudent.tasks.deepfake.prepare.crop_frame import measure_face
from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops

TABLE = Path("data/free/faces.csv")
SOURCES = ("faces/index.csv", "faces_cc0/photos", "faces_congress/photos")
TENTHS = {8: "val", 9: "test"}  # the others train
GREY_SHARE = 3
CROPS_FOR = 112  # px: the side of the input whose crops are compared


def main() -> None:
    """Write the table of photos."""
    parser = Parser("demo/free_photos.py", str(__doc__), more=EXIT_CODES, examples=["demo/free_photos.py ../photos"])
    parser.add_argument("data", metavar="DATA", type=read_path, help="folder with the three sets of photos")
    rows = list_photos(parser.read(sys.argv[1:]).data)
    write_text_atomically(TABLE, format_csv([("path", "person", "split"), *rows]))
    people = {(person, split) for _, person, split in rows}
    counts = ", ".join(f"{sum(s == split for _, s in people)} {split}" for split in ("train", "val", "test"))
    print(f"{TABLE}: {len(rows)} photos of {len(people)} people ({counts})")


def list_photos(data: Path, tenths: Mapping[int, str] = TENTHS) -> list[tuple[str, str, str]]:
    """List path, person and split of every photo.

    Args:
        data: The folder that holds the three sets.
        tenths: The splits of the tenths of people who do not train.

    Returns:
        A row for each photo.

    Raises:
        UserError: Where a set is missing.
    """
    missing = [name for name in SOURCES if not (data / name).exists()]
    if missing:
        raise UserError.about(
            str(data),
            "lacks photos that this model is made of",
            expected=", ".join(SOURCES),
            got=f"no {', no '.join(missing)}",
            remedy="make train-free DATA=FOLDER, with the folder that holds the three sets",
        )
    with open(data / SOURCES[0], newline="", encoding="utf-8") as file:
        found = [(data / "faces" / row["file"], row["person"]) for row in csv.DictReader(file)]
    found += [(path, f"cc0_{path.stem}") for path in sorted((data / SOURCES[1]).glob("*.jpg"))]
    grey = [(path, f"congress_{path.stem}") for path in sorted((data / SOURCES[2]).glob("*.jpg"))]
    found += [one for one in grey if _draw(one[1]) // 10 % GREY_SHARE == 0]
    people = join_copies({path.resolve(): person for path, person in found})
    return [(str(path), person, tenths.get(_draw(person) % 10, "train")) for path, person in people.items()]


def join_copies(people: Mapping[Path, str]) -> dict[Path, str]:
    """Give the photos that show one picture of a face to one person, and say which they are.

    Two are copies where their hashes are near, and their faces, laid over one another by their landmarks, agree in fine
    details: the rule of `prepare_faces.py check`.

    Args:
        people: The person of each photo, by its path.

    Returns:
        The same photos; of people who share a picture all have the name of the first.
    """
    crops = FaceCrops(image_size=CROPS_FOR).prepare([*people])
    photos, faces = [*crops], [crop.load() for crop in crops.values()]
    pairs = [(one.image, np.asarray(one.landmarks, np.float32)) for one in faces]  # crops always have landmarks
    details = np.stack([describe_face(*pair) for pair in pairs])
    hashes = np.array([measure_face(*pair)[1] for pair in pairs], np.uint64)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= DISTANCE
    alike = np.argwhere(np.triu(near & (details @ details.T >= ALIKE), 1))
    names = {person: person for person in people.values()}
    for one, two in alike:
        first, second = (names[people[photos[int(place)]]] for place in (one, two))
        if first != second:
            print(
                f"near copies: {photos[int(one)].name} of {first} and {photos[int(two)].name} of {second}: one person"
            )
            names = {person: first if name == second else name for person, name in names.items()}
    return {path: names[person] for path, person in people.items()}


def _draw(person: str) -> int:
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big")


if __name__ == "__main__":
    with exit_codes():
        main()
