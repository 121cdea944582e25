"""Finds the clips of the preview of the Deepfake Detection Challenge.

    ROOT/dataset.json    {"method_A/1/1_A/2_1_A_001.mp4": {"label": "fake", "set": "train", "augmentations": [],
                          "target_id": "1", "swapped_id": "2"}, ...}
    ROOT/{method_A,method_B,original_videos}/...

target_id is the person of the video, swapped_id the one whose face was put on it (null for a real video).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, ClipCollector, Found, Split
from sharpstudent.tasks.deepfake.layouts.listing import read_json_object, read_names, show_name, split_name
from sharpstudent.tasks.deepfake.layouts.names import build_key

SOURCE_SET = "DFDC preview"
LIST = "dataset.json"
FORM = '{"method_A/1/1_A/2_1_A_001.mp4": {"label": "fake", "set": "train", "target_id": "1", "swapped_id": "2"}, ...}'
FOLDERS = ("method_A", "method_B", "original_videos")
LABELS = {"real": 0, "fake": 1}


def recognise(root: Path) -> bool:
    """Return whether the root has the list and one of the folders."""
    return (root / LIST).is_file() and any((root / name).is_dir() for name in FOLDERS)


def find(root: Path, label: int | None) -> Found:
    """Find all listed videos that are there.

    Args:
        root: The data set's folder.
        label: Not used: the list gives the labels.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If the list cannot be read.
    """
    collector = ClipCollector(root, SOURCE_SET)
    path = root / LIST
    names: dict[Path, frozenset[str]] = {}
    for name, about in read_json_object(path, form=FORM).items():
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
    if label not in LABELS or split not in SPLITS:
        raise ValueError(f"expected an entry like {FORM}, got {repr(about)[:80]}")
    ids = (fields.get("swapped_id"), fields.get("target_id"))
    people = tuple(
        dict.fromkeys(show_name(str(person)) for person in ids if isinstance(person, (str, int)) and person != "")
    )
    return LABELS[label], SPLITS[split], people or None
