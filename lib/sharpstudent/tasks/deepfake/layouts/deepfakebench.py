"""DeepfakeBench: face crops with landmarks and masks, and JSON files that list them.

    ROOT/*.json                            (or in ROOT/dataset_json, ROOT/preprocessing/dataset_json)
    ROOT/FaceForensics++/.../c23/frames/071/000.png      crops of 256 px (or below ROOT/rgb, ROOT/datasets/rgb)
                                /landmarks/071/000.npy   (81, 2) on the crop
                                /masks/071/000.png

A clip is a folder of frames: videos of the same name made by different manipulations stay apart, and one that several
files list is one clip. It lists the test videos of some sets under val too: test counts.

The JSON files are `{dataset: {label: {split: {[compression:] {video: {label, frames, ...}}}}}}`; the level of
compression exists in the FaceForensics family only. The frames that a list names are found by one directory listing a
folder, without a stat a frame.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts import names
from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, Found, FrameFiles, Gathering, RawClip, Split
from sharpstudent.tasks.deepfake.layouts.ffpp import MANIPULATIONS
from sharpstudent.tasks.deepfake.layouts.listing import (
    Reject,
    peek,
    read_json_object,
    read_names,
    show_name,
    split_name,
)

FORM = '{"FaceForensics++": {"FF-real": {"train": {"c23": {"071": {"label": "FF-real", "frames": ["..."]}}}}}}'
FOLDERS = ((), ("dataset_json",), ("preprocessing", "dataset_json"))
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


def list_json_files(root: Path) -> list[Path]:
    """The JSON files in ROOT, ROOT/dataset_json and ROOT/preprocessing/dataset_json that begin like such a list."""
    return [
        path
        for folder in FOLDERS
        for path in sorted(root.joinpath(*folder).glob("*.json"))
        if not path.name.startswith(".") and _START.match(peek(path))
    ]


def read_entries(path: Path, reject: Reject) -> Iterator[Entry]:
    """All videos of a file; what is no video is rejected. Raises UserError for a broken file."""
    for dataset, labels in read_json_object(path, form=FORM).items():
        for label, splits in _members(labels, f"{path}: {dataset}", reject):
            for split, videos in _members(splits, f"{path}: {dataset}/{label}", reject):
                place = f"{path}: {dataset}/{label}/{split}"
                if split not in SPLITS:
                    reject(place, f"is no split; expected {', '.join(SPLITS)}")
                    continue
                for compression, video, about in _list_videos(videos, place, reject):
                    inside = "/".join(filter(None, (place, compression, video)))
                    entry = _read_video(inside, dataset, label, split, compression, video, about, reject)
                    if entry is not None:
                        yield entry


def _list_videos(videos: Any, place: str, reject: Reject) -> Iterator[tuple[str, str, Any]]:
    """Compression, name and description of each video of a split."""
    for name, about in _members(videos, place, reject):
        if name in COMPRESSIONS and not (isinstance(about, dict) and "frames" in about):
            yield from ((name, *video) for video in _members(about, f"{place}/{name}", reject))
        else:
            yield "", name, about


def _members(level: Any, place: str, reject: Reject) -> list[tuple[str, Any]]:
    if isinstance(level, dict):
        return list(level.items())
    reject(place, f"holds {repr(level)[:80]}; expected {FORM}")
    return []


def _read_video(
    place: str, dataset: str, outer: str, split: str, compression: str, video: str, about: Any, reject: Reject
) -> Entry | None:
    if not isinstance(about, dict) or not isinstance(about.get("frames"), list):
        return reject(place, f"is not a video with a list of frames; expected {FORM}")
    inner = about.get("label")
    labels = {name: _tell_label(name) for name in (inner, outer) if isinstance(name, str)}
    labels = {name: label for name, label in labels.items() if label is not None}
    if len(set(labels.values())) != 1:
        return reject(place, f"label {inner!r} in {outer!r} says neither real nor fake; mend the entry")
    name, label = next(iter(labels.items()))
    return Entry(place, show_name(dataset), show_name(name), label, SPLITS[split], compression, video, about["frames"])


def _tell_label(name: str) -> int | None:
    """FF-real, CelebDFv2_real, DFDCP_Real: 0; FF-DF, CelebDFv2_fake, DFDCP_FakeA: 1."""
    if _FAKE.search(name):
        return 1
    return 0 if _REAL.search(name) else None


BASES = ((), ("rgb",), ("datasets",), ("datasets", "rgb"))
SHOWN = 3


class FrameFinder:
    """Turns listed paths into paths below the root, wherever in it the listed folders begin.

    "./datasets/rgb/FaceForensics++/..." is found in a root that is datasets/rgb, and "FaceForensics++/..." in one that
    has it in rgb/. here: the JSON file's own folder, a further place to begin.
    """

    def __init__(self, root: Path, here: Path) -> None:
        self.root = root
        self._bases = [root.joinpath(*base) for base in BASES]
        if here != root:
            self._bases.append(here)
        self._begins: dict[tuple[str, ...], tuple[Path, int]] = {}
        self._folders: dict[str, Path | str] = {}

    def place(self, parts: tuple[str, ...]) -> Path:
        """Where a listed folder is, or would be."""
        start = parts[:3]
        if start not in self._begins:
            self._begins[start] = next(
                (
                    (base, skipped)
                    for skipped in range(len(start))
                    for base in self._bases
                    if _is_folder(base / start[skipped])
                ),
                (self.root, 0),
            )
        base, skipped = self._begins[start]
        return base.joinpath(*parts[skipped:])

    def locate(self, text: str) -> Path | str:
        """Where a listed folder is, or what is wrong with its path."""
        if text not in self._folders:
            try:
                self._folders[text] = self.place(split_name(text, root=self.root))
            except ValueError as error:
                self._folders[text] = f"a path that {error}: {text[:80]!r}"
        return self._folders[text]

    def name_clip(self, entry: Entry, listed: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """The parts of what names an entry's clip: the folder of its first frame below the root."""
        folder = next((found for text, _ in listed if isinstance(found := self.locate(text), Path)), None)
        if folder is None:
            return ("unplaced", entry.dataset, entry.label_name, entry.compression or "any", entry.video)
        parts = folder.relative_to(self.root).parts
        return parts if folder.name == entry.video else (*parts, entry.video)

    def find(self, listed: Sequence[tuple[str, str]]) -> tuple[tuple[FrameFiles, ...], str]:
        """The frames that are there, in the order of the list, and what is wrong with the others, "" for nothing."""
        open_shelf = cache(_Shelf)
        found: dict[tuple[Path, str], None] = {}
        bad: Counter[str] = Counter()
        for text, name in listed:
            folder = self.locate(text)
            if isinstance(folder, str):
                bad[folder] += 1
            elif name in open_shelf(folder).names:
                found[folder, name] = None
            else:
                bad[f"not in {folder}"] += 1
        stems = [name.rpartition(".")[0] for _, name in found]
        frames = tuple(
            open_shelf(folder).take(index, name, stem)
            for index, stem, (folder, name) in zip(names.number_frames(stems), stems, found, strict=True)
        )
        if not listed:
            return frames, "lists no frame"
        reasons = "; ".join(f"{number} {reason}" for reason, number in list(bad.items())[:SHOWN])
        return frames, f"{bad.total()} of {len(listed)} frames left out: {reasons}" if bad else ""


class _Shelf:
    """What lies in one folder of frames, and in the folders of landmarks and masks that mirror it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._landmarks, self._masks = _mirror(folder, "landmarks"), _mirror(folder, "masks")
        self.names = read_names(folder)
        self._landmark_names, self._mask_names = read_names(self._landmarks), read_names(self._masks)

    def take(self, index: int, name: str, stem: str) -> FrameFiles:
        landmarks = f"{stem}.npy"
        return FrameFiles(
            index=index,
            picture=self._folder / name,
            landmarks=self._landmarks / landmarks if landmarks in self._landmark_names else None,
            mask=self._masks / name if name in self._mask_names else None,
        )


def _cut(frame: object) -> tuple[str, str]:
    """Folder and name as listed; a frame that is no text has an empty folder, which no path has."""
    if not isinstance(frame, str):
        return "", ""
    plain = frame.replace("\\", "/") if "\\" in frame else frame
    folder, slash, name = plain.rpartition("/")
    return (folder or "/") if slash else ".", name


def _mirror(folder: Path, kind: str) -> Path:
    """The folder of landmarks or masks that belongs to a folder of frames; an absent one where it is none."""
    parts = list(folder.parts)
    if "frames" not in parts:
        return folder / kind
    parts[len(parts) - 1 - parts[::-1].index("frames")] = kind
    return Path(*parts)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name longer than the disk takes
        return False


FF_LABELS = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-SH": "FaceShifter",
    "FF-FH": "FaceShifter",
}
STRICTEST = tuple(SPLITS)  # of two splits the later one counts: nothing of it is trained on


def recognise(root: Path) -> bool:
    return bool(list_json_files(root))


def find(root: Path, label: int | None) -> Found:
    """All listed videos of which frames are there. Raises UserError where no JSON file is found, or no frame."""
    files = list_json_files(root)
    if not files:
        looked = ", ".join(str(root.joinpath(*folder, "*.json")) for folder in FOLDERS)
        raise UserError.about(str(root), "holds no list of DeepfakeBench", FORM, f"none in {looked}", "put it there")
    gathering = Gathering(root, "")
    clips: dict[str, RawClip] = {}
    for path in files:
        finder = FrameFinder(root, path.parent)
        for entry in read_entries(path, gathering.reject):
            _take(entry, finder, clips, gathering)
    for clip in clips.values():
        gathering.add(clip)
    return gathering.close()


def _take(entry: Entry, finder: FrameFinder, clips: dict[str, RawClip], gathering: Gathering) -> None:
    listed = [_cut(frame) for frame in entry.frames]
    parts = finder.name_clip(entry, listed)
    key = names.build_key(parts)
    known = clips.get(key)
    if known is not None and known.label != entry.label:
        gathering.reject(entry.place, f"has the frames of {key}, which another entry says is of the other label")
    elif known is not None:
        clips[key] = _merge(known, entry, gathering)
    else:
        frames, reason = finder.find(listed)
        if reason:
            gathering.reject(entry.place, reason)
        if frames:
            clips[key] = _to_clip(key, entry, parts, frames)


def _merge(known: RawClip, entry: Entry, gathering: Gathering) -> RawClip:
    if known.split == entry.split:
        return known
    first, second = sorted((known.split or "train", entry.split), key=STRICTEST.index)
    gathering.note(f"{entry.dataset}: some videos are listed under {first} and {second}; they count as {second}")
    return replace(known, split=second)


def _to_clip(key: str, entry: Entry, parts: tuple[str, ...], frames: tuple[FrameFiles, ...]) -> RawClip:
    family = _tell_family(entry)
    manipulation = ""
    if entry.label == 1:
        in_path = [part for part in parts if part in MANIPULATIONS]
        manipulation = (in_path or [FF_LABELS.get(entry.label_name, entry.label_name)])[0]
    people = {
        "FaceForensics++": lambda: names.tell_ffpp_people(entry.video, manipulation),
        "DeepFakeDetection": lambda: names.tell_actors(entry.video),
        "Celeb-DF": lambda: names.tell_celebrities(entry.video),
    }.get(family, lambda: None)()
    return RawClip(
        key=key,
        kind="crops",
        label=entry.label,
        identities=people or (key,),
        frames=frames,
        split=entry.split,
        source_set=family if family == "FaceForensics++" else entry.dataset,
        manipulation=manipulation,
        compression=entry.compression,
    )


def _tell_family(entry: Entry) -> str:
    """Whose way of naming videos it is; FF-DF.json and the like hold parts of FaceForensics++."""
    for start, family in (("FF-", "FaceForensics++"), ("DFD_", "DeepFakeDetection"), ("CelebDF", "Celeb-DF")):
        if entry.label_name.startswith(start):
            return family
    return entry.dataset
