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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.layouts.clip import Found, FrameFiles, Gathering, RawClip, Split
from sharpstudent.tasks.deepfake.layouts.ffpp import MANIPULATIONS
from sharpstudent.tasks.deepfake.layouts.listing import peek, read_json_object, read_names, show_name, split_name
from sharpstudent.tasks.deepfake.layouts.names import (
    build_key,
    number_frames,
    tell_actors,
    tell_celebrities,
    tell_ffpp_people,
)

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

    def open(self, entry: Entry) -> EntryFrames:
        return EntryFrames(self, entry)

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


class EntryFrames:
    """The frames of one entry. key_parts: what names its clip, the folder of its first frame below the root;
    reason: after `find`, what is wrong with some or all of the frames, "" where nothing is.
    """

    def __init__(self, finder: FrameFinder, entry: Entry) -> None:
        self._finder = finder
        self._folders: dict[str, Path | str] = {}
        self._listed = [_cut(frame) for frame in entry.frames]
        self.reason = ""
        folder = next((found for found in map(self._locate, self._listed) if isinstance(found, Path)), None)
        if folder is None:
            self.key_parts = ("unplaced", entry.dataset, entry.label_name, entry.compression or "any", entry.video)
            return
        self.key_parts = folder.relative_to(finder.root).parts
        if folder.name != entry.video:
            self.key_parts = (*self.key_parts, entry.video)

    def find(self) -> tuple[FrameFiles, ...]:
        """The frames that are there, in the order of the list; sets `reason`."""
        shelves: dict[Path, _Shelf] = {}
        found: dict[tuple[Path, str], None] = {}
        bad: dict[str, int] = {}
        for frame in self._listed:
            folder = self._locate(frame)
            if isinstance(folder, str):
                bad[folder] = bad.get(folder, 0) + 1
                continue
            if folder not in shelves:
                shelves[folder] = _Shelf(folder)
            if frame[1] in shelves[folder].names:
                found[folder, frame[1]] = None
            else:
                reason = f"not in {folder}"
                bad[reason] = bad.get(reason, 0) + 1
        self._explain(bad)
        stems = [name.rpartition(".")[0] for _, name in found]
        return tuple(
            shelves[folder].take(index, name, stem)
            for index, stem, (folder, name) in zip(number_frames(stems), stems, found, strict=True)
        )

    def _locate(self, frame: tuple[str, str]) -> Path | str:
        """The folder of a frame, or what is wrong with its path."""
        text = frame[0]
        if text not in self._folders:
            try:
                parts = split_name(text, root=self._finder.root)
                self._folders[text] = self._finder.place(parts)
            except ValueError as error:
                self._folders[text] = f"a path that {error}: {text[:80]!r}"
        return self._folders[text]

    def _explain(self, bad: dict[str, int]) -> None:
        if not self._listed:
            self.reason = "lists no frame"
        elif bad:
            shown = [f"{number} {reason}" for reason, number in list(bad.items())[:SHOWN]]
            self.reason = f"{sum(bad.values())} of {len(self._listed)} frames left out: {'; '.join(shown)}"


class _Shelf:
    """What lies in one folder of frames, and in the folders of landmarks and masks that mirror it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._landmarks, self._masks = _mirror(folder)
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


def _mirror(folder: Path) -> tuple[Path, Path]:
    """The folders of landmarks and masks that belong to a folder of frames; absent ones where it is none."""
    parts = list(folder.parts)
    if "frames" not in parts:
        return folder / "landmarks", folder / "masks"
    place = len(parts) - 1 - parts[::-1].index("frames")
    return (
        Path(*parts[:place], "landmarks", *parts[place + 1 :]),
        Path(*parts[:place], "masks", *parts[place + 1 :]),
    )


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
STRICTEST = ("train", "val", "test")  # of two splits the later one counts: nothing of it is trained on


def recognise(root: Path) -> bool:
    return bool(list_json_files(root))


def find(root: Path, label: int | None) -> Found:
    """All listed videos of which frames are there. Raises UserError where no JSON file is found, or no frame."""
    files = list_json_files(root)
    if not files:
        looked = ", ".join(str(root.joinpath(*folder, "*.json")) for folder in FOLDERS)
        raise UserError(Problem(str(root), "holds no list of DeepfakeBench", FORM, f"none in {looked}", "put it there"))
    gathering = Gathering(root, "")
    clips: dict[str, RawClip] = {}
    for path in files:
        finder = FrameFinder(root, path.parent)
        for entry in read_entries(path):
            if isinstance(entry, BadEntry):
                gathering.reject(entry.place, entry.reason)
            else:
                _take(entry, finder, clips, gathering)
    for clip in clips.values():
        gathering.add(clip)
    return gathering.close()


def _take(entry: Entry, finder: FrameFinder, clips: dict[str, RawClip], gathering: Gathering) -> None:
    listed = finder.open(entry)
    key = build_key(listed.key_parts)
    known = clips.get(key)
    if known is not None and known.label != entry.label:
        gathering.reject(entry.place, f"has the frames of {key}, which another entry says is of the other label")
    elif known is not None:
        clips[key] = _merge(known, entry, gathering)
    else:
        frames = listed.find()
        if listed.reason:
            gathering.reject(entry.place, listed.reason)
        if frames:
            clips[key] = _to_clip(key, entry, listed.key_parts, frames)


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
        "FaceForensics++": lambda: tell_ffpp_people(entry.video, manipulation),
        "DeepFakeDetection": lambda: tell_actors(entry.video),
        "Celeb-DF": lambda: tell_celebrities(entry.video),
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
