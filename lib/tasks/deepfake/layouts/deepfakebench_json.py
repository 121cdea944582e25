"""The JSON files of DeepfakeBench: `{dataset: {label: {split: {[compression:] {video: {label, frames, ...}}}}}}`.

The level of compression exists in the FaceForensics family only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.tasks.deepfake.layouts.clip import Split
from lib.tasks.deepfake.layouts.listing import show_name
from lib.tasks.deepfake.layouts.lists import peek, read_json_object

FORM = '{"FaceForensics++": {"FF-real": {"train": {"c23": {"071": {"label": "FF-real", "frames": ["..."]}}}}}}'
FOLDERS = ((), ("dataset_json",), ("preprocessing", "dataset_json"))
SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
COMPRESSIONS = ("raw", "c23", "c40")
_TEXT = r'"(?:[^"\\]|\\.)*"\s*:\s*\{\s*'
_START = re.compile(r"\s*\{\s*" + _TEXT + _TEXT + r'"(?:train|val|test)"\s*:')
_REAL, _FAKE = re.compile("(?i)real$"), re.compile("(?i)fake|^FF-(DF|F2F|FS|NT|SH|FH)$")


@dataclass(frozen=True)
class Entry:
    """One video as one file lists it. place: file and keys, for messages; frames: whatever stands there."""

    place: str
    dataset: str
    label_name: str
    label: int
    split: Split
    compression: str
    video: str
    frames: list[Any]


@dataclass(frozen=True)
class BadEntry:
    place: str
    reason: str


def list_json_files(root: Path) -> list[Path]:
    """The JSON files in ROOT, ROOT/dataset_json and ROOT/preprocessing/dataset_json that begin like such a list."""
    return [
        path
        for folder in FOLDERS
        for path in sorted(root.joinpath(*folder).glob("*.json"))
        if not path.name.startswith(".") and _START.match(peek(path))
    ]


def read_entries(path: Path) -> Iterator[Entry | BadEntry]:
    """All videos of a file. Raises UserError for a broken file."""
    bad: list[BadEntry] = []
    for dataset, labels in read_json_object(path, form=FORM).items():
        place = f"{path}: {dataset}"
        for label, splits in _members(labels, place, bad):
            for split, videos in _members(splits, f"{place}/{label}", bad):
                if split in SPLITS:
                    yield from _read_split(f"{place}/{label}/{split}", dataset, label, split, videos, bad)
                else:
                    bad.append(BadEntry(f"{place}/{label}/{split}", f"is no split; expected {', '.join(SPLITS)}"))
    yield from bad


def _read_split(
    place: str, dataset: str, label: str, split: str, videos: Any, bad: list[BadEntry]
) -> Iterator[Entry | BadEntry]:
    for name, about in _members(videos, place, bad):
        if name in COMPRESSIONS and not (isinstance(about, dict) and "frames" in about):
            for video, inner in _members(about, f"{place}/{name}", bad):
                yield _read_video(f"{place}/{name}/{video}", dataset, label, split, name, video, inner)
        else:
            yield _read_video(f"{place}/{name}", dataset, label, split, "", name, about)


def _members(level: Any, place: str, bad: list[BadEntry]) -> list[tuple[str, Any]]:
    if isinstance(level, dict):
        return list(level.items())
    bad.append(BadEntry(place, f"holds {repr(level)[:80]}; expected {FORM}"))
    return []


def _read_video(
    place: str, dataset: str, outer: str, split: str, compression: str, video: str, about: Any
) -> Entry | BadEntry:
    if not isinstance(about, dict) or not isinstance(about.get("frames"), list):
        return BadEntry(place, f"is not a video with a list of frames; expected {FORM}")
    inner = about.get("label")
    names = [name for name in (inner, outer) if isinstance(name, str) and _tell_label(name) is not None]
    labels = {_tell_label(name) for name in names}
    label = labels.pop() if len(labels) == 1 else None
    if label is None:
        return BadEntry(place, f"label {inner!r} in {outer!r} says neither real nor fake; mend the entry")
    return Entry(
        place, show_name(dataset), show_name(names[0]), label, SPLITS[split], compression, video, about["frames"]
    )


def _tell_label(name: str) -> int | None:
    """FF-real, CelebDFv2_real, DFDCP_Real: 0; FF-DF, CelebDFv2_fake, DFDCP_FakeA: 1."""
    if _FAKE.search(name):
        return 1
    return 0 if _REAL.search(name) else None
