"""Finds the clips of the Deepfake Detection Challenge, and those of its preview.

    ROOT/dfdc_train_part_0/metadata.json   {"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}, ...}
    ROOT/dfdc_train_part_0/*.mp4           (or the part itself as ROOT, or ROOT/train/dfdc_train_part_0)
    ROOT/test/labels.csv, *.mp4            filename,label: 1 is fake (or in ROOT itself; videos may be in videos/)

The only person that the lists name is the one of the original video; they do not say whose face was put on it.

    PREVIEW/dataset.json    {"method_A/1/1_A/2_1_A_001.mp4": {"label": "fake", "set": "train", "augmentations": [],
                             "target_id": "1", "swapped_id": "2"}, ...}
    PREVIEW/{method_A,method_B,original_videos}/...

target_id is the person of the video, swapped_id the one whose face was put on it (null for a real video).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharpstudent.core.naming import printable
from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, ClipCollector, Found, Split
from sharpstudent.tasks.deepfake.layouts.listing import (
    peek,
    read_csv,
    read_folder,
    read_json_object,
    read_names,
    split_name,
)
from sharpstudent.tasks.deepfake.layouts.names import build_key

SOURCE_SET = "DFDC"
MANIPULATION = "DFDC"  # which of its methods made a fake is not published
FORM = '{"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}, ...}'
LABELS = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}
SPLIT_NAMES = {**SPLITS, "validation": SPLITS["val"]}
PART_NAMES = ("dfdc_train_part", "train", "val", "test")
_METADATA = re.compile(r'\s*\{\s*"[^"]*\.\w+"\s*:\s*\{')

Entry = tuple[str, object, str, object, object]  # where it stands, file name, label, split, original


def recognise(root: Path) -> bool:
    """Return whether a part of the data set has one of its lists."""
    return any(
        _METADATA.match(peek(part / "metadata.json")) or peek(part / "labels.csv").startswith("filename,label")
        for part in _list_parts(root)
    )


def find(root: Path, label: int | None) -> Found:
    """Find all listed videos that are there; videos that no list names have no label and are left out.

    Args:
        root: The data set's folder, or one part of it.
        label: Not used: the lists give the labels.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If a list cannot be read.
    """
    collector = ClipCollector(root, SOURCE_SET)
    for part in _list_parts(root):
        collector.know(part / "labels.csv", part / "metadata.json")
        if (part / "labels.csv").is_file():  # the test set's metadata.json tells of other things
            _add_videos(part, _read_labels(part / "labels.csv"), collector)
        elif (part / "metadata.json").is_file():
            _add_videos(part, _read_metadata(part / "metadata.json"), collector)
    return collector.close()


def _list_parts(root: Path) -> list[Path]:
    """List folders that may hold a list: ROOT, what is named like a part in it, and the parts in ROOT/train."""
    parts = [root / name for name in read_folder(root).folders if name.startswith(PART_NAMES)]
    inner = [root / "train" / name for name in read_folder(root / "train").folders if name.startswith(PART_NAMES)]
    return [root, *parts, *inner]


def _read_metadata(path: Path) -> Iterator[Entry]:
    for name, about in read_json_object(path, form=FORM).items():
        fields: dict[str, Any] = about if isinstance(about, dict) else {}
        yield f"{path}: {name}", name, str(fields.get("label")), fields.get("split"), fields.get("original")


def _read_labels(path: Path) -> Iterator[Entry]:
    split = "val" if path.parent.name.startswith("val") else "test"
    for line, row in read_csv(path, columns=("filename", "label")):
        yield f"{path}, line {line}: {row['filename']}", row["filename"], row["label"], split, None


def _add_videos(part: Path, entries: Iterator[Entry], collector: ClipCollector) -> None:
    """Add the listed videos of one part."""
    files = {file.name: file for file in collector.list_videos(part / "videos", part)}
    unlisted = dict(files)
    for where, name, label_name, split, original in entries:
        label = LABELS.get(label_name.strip().upper())
        try:
            listed = "/".join(split_name(name))
        except ValueError as error:
            collector.reject(where, f"{error}; mend the name")
            continue
        if label is None or (split is not None and str(split) not in SPLIT_NAMES):
            collector.reject(where, f"label {label_name!r}, split {split!r}: expected {FORM}; mend the entry")
        elif listed not in files:
            collector.reject(where, f"is listed, but not in {part}")
        elif unlisted.pop(listed, None) is None:
            collector.reject(where, "is listed a second time; the first entry counts")
        else:
            collector.add_file(
                files[listed],
                label=label,
                people=(_name_person(original) or Path(listed).stem,),
                split=SPLIT_NAMES.get(str(split)),
                manipulation=MANIPULATION if label else "",
            )
    for file in unlisted.values():
        collector.reject(str(file), f"has no label: the list in {part} does not name it")


def _name_person(original: object) -> str | None:
    try:
        return Path(split_name(original)[-1]).stem
    except ValueError:
        return None


PREVIEW_SET = "DFDC preview"
PREVIEW_LIST = "dataset.json"
PREVIEW_FORM = (
    '{"method_A/1/1_A/2_1_A_001.mp4": {"label": "fake", "set": "train", "target_id": "1", "swapped_id": "2"}, ...}'
)
PREVIEW_FOLDERS = ("method_A", "method_B", "original_videos")
PREVIEW_LABELS = {"real": 0, "fake": 1}


class Preview:
    """The layout "dfdc_preview"."""

    def recognise(self, root: Path) -> bool:
        """Return whether the root has the list and one of the folders."""
        return (root / PREVIEW_LIST).is_file() and any((root / name).is_dir() for name in PREVIEW_FOLDERS)

    def find(self, root: Path, label: int | None) -> Found:
        """Find all listed videos that are there.

        Args:
            root: The data set's folder.
            label: Not used: the list gives the labels.

        Returns:
            The clips, what was rejected, and notes for the user.

        Raises:
            UserError: If the list cannot be read.
        """
        collector = ClipCollector(root, PREVIEW_SET)
        path = root / PREVIEW_LIST
        collector.know(path)
        names: dict[Path, frozenset[str]] = {}
        for name, about in read_json_object(path, form=PREVIEW_FORM).items():
            where = f"{path}: {name}"
            try:
                parts = split_name(name)
                label_here, split, people = _read_entry(about)
            except ValueError as error:
                collector.reject(where, f"{error}; mend the entry")
                continue
            folder = root.joinpath(*parts[:-1])
            if folder not in names:
                names[folder] = read_names(folder)
            if parts[-1] not in names[folder]:
                collector.reject(where, "is listed, but not there")
                continue
            collector.add_file(
                folder / parts[-1],
                label=label_here,
                people=people,
                key=build_key((*parts[:-1], Path(parts[-1]).stem)),
                split=split,
                manipulation=parts[0] if label_here else "",
            )
        return collector.close()


def _read_entry(about: Any) -> tuple[int, Split, tuple[str, ...] | None]:
    """Return label, split and people of an entry. Raises ValueError that says what is wrong with it."""
    fields = about if isinstance(about, dict) else {}
    label, split = (str(fields.get(name)) for name in ("label", "set"))
    if label not in PREVIEW_LABELS or split not in SPLITS:
        raise ValueError(f"expected an entry like {PREVIEW_FORM}, got {repr(about)[:80]}")
    ids = (fields.get("swapped_id"), fields.get("target_id"))
    people = tuple(
        dict.fromkeys(printable(str(person)) for person in ids if isinstance(person, (str, int)) and person != "")
    )
    return PREVIEW_LABELS[label], SPLITS[split], people or None
