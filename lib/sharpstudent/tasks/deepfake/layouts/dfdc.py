"""The Deepfake Detection Challenge: parts with metadata.json, a validation and a test set with labels.csv.

    ROOT/dfdc_train_part_0/metadata.json   {"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}, ...}
    ROOT/dfdc_train_part_0/*.mp4           (or the part itself as ROOT, or ROOT/train/dfdc_train_part_0)
    ROOT/test/labels.csv, *.mp4            filename,label: 1 is fake (or in ROOT itself; videos may be in videos/)

The only person that the lists name is the one of the original video; who lent the face is not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, Found, Gathering
from sharpstudent.tasks.deepfake.layouts.listing import (
    peek,
    read_csv,
    read_folder,
    read_json_object,
    split_name,
)

SOURCE_SET = "DFDC"
MANIPULATION = "DFDC"  # which of its methods made a fake is not published
FORM = '{"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}, ...}'
LABELS = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}
SPLIT_NAMES = {**SPLITS, "validation": SPLITS["val"]}
PART_NAMES = ("dfdc_train_part", "train", "val", "test")
_METADATA = re.compile(r'\s*\{\s*"[^"]*\.\w+"\s*:\s*\{')

Entry = tuple[str, object, str, object, object]  # where it stands, file name, label, split, original


def recognise(root: Path) -> bool:
    return any(
        _METADATA.match(peek(part / "metadata.json")) or peek(part / "labels.csv").startswith("filename,label")
        for part in _list_parts(root)
    )


def find(root: Path, label: int | None) -> Found:
    """All listed videos that are there. Videos that no list names have no label and are left out."""
    gathering = Gathering(root, SOURCE_SET)
    for part in _list_parts(root):
        if (part / "labels.csv").is_file():  # the test set's metadata.json tells of other things
            _take(part, _read_labels(part / "labels.csv"), gathering)
        elif (part / "metadata.json").is_file():
            _take(part, _read_metadata(part / "metadata.json"), gathering)
    return gathering.close()


def _list_parts(root: Path) -> list[Path]:
    """Folders that may hold a list: ROOT, what is named like a part in it, and the parts in ROOT/train."""
    parts = [root / name for name in read_folder(root).folders if name.startswith(PART_NAMES)]
    inner = [root / "train" / name for name in read_folder(root / "train").folders if name.startswith(PART_NAMES)]
    return [root, *parts, *inner]


def _read_metadata(path: Path) -> Iterator[Entry]:
    for name, about in read_json_object(path, form=FORM).items():
        told: dict[str, Any] = about if isinstance(about, dict) else {}
        yield f"{path}: {name}", name, str(told.get("label")), told.get("split"), told.get("original")


def _read_labels(path: Path) -> Iterator[Entry]:
    split = "val" if path.parent.name.startswith("val") else "test"
    for line, row in read_csv(path, columns=("filename", "label")):
        yield f"{path}, line {line}: {row['filename']}", row["filename"], row["label"], split, None


def _take(part: Path, entries: Iterator[Entry], gathering: Gathering) -> None:
    files = {file.name: file for file in gathering.list_videos(part / "videos", part)}
    unlisted = dict(files)
    for where, name, label_name, split, original in entries:
        label = LABELS.get(label_name.strip().upper())
        try:
            listed = "/".join(split_name(name))
        except ValueError as error:
            gathering.reject(where, f"{error}; mend the name")
            continue
        if label is None or (split is not None and str(split) not in SPLIT_NAMES):
            gathering.reject(where, f"label {label_name!r}, split {split!r}: expected {FORM}; mend the entry")
        elif listed not in files:
            gathering.reject(where, f"is listed, but not in {part}")
        elif unlisted.pop(listed, None) is None:
            gathering.reject(where, "is listed a second time; the first entry counts")
        else:
            gathering.add_file(
                files[listed],
                label=label,
                people=(_name_person(original) or Path(listed).stem,),
                split=SPLIT_NAMES.get(str(split)),
                manipulation=MANIPULATION if label else "",
            )
    for file in unlisted.values():
        gathering.reject(str(file), f"has no label: the list in {part} does not name it")


def _name_person(original: object) -> str | None:
    try:
        return Path(split_name(original)[-1]).stem
    except ValueError:
        return None
