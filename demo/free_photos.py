"""The freely licensed photos that the shipped deepfake model is trained and judged on, as data/free/faces.csv.

    python demo/free_photos.py DATA

DATA holds three folders: `faces` (index.csv; studio portraits, CC BY 4.0), `faces_cc0` (photos/*.jpg, CC0) and
`faces_congress` (photos/*.jpg, grey, public domain). People are held out by the digest of their name, so that a photo
that is added moves nobody. Of the grey photos every third person is taken, so that colour is the rule.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv

TABLE = Path("data/free/faces.csv")
SOURCES = ("faces/index.csv", "faces_cc0/photos", "faces_congress/photos")
TENTHS = {8: "val", 9: "test"}  # the others train
GREY_SHARE = 3


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
    return [(str(path.resolve()), person, tenths.get(_draw(person) % 10, "train")) for path, person in found]


def _draw(person: str) -> int:
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big")


if __name__ == "__main__":
    with exit_codes():
        main()
