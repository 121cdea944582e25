"""Finds the clips of DeepfakeBench: face crops with landmarks and masks, and JSON files that list them.

    ROOT/*.json                            (or in ROOT/dataset_json, ROOT/preprocessing/dataset_json)
    ROOT/FaceForensics++/.../c23/frames/071/000.png      crops of 256 px (or below ROOT/rgb, ROOT/datasets/rgb)
                                /landmarks/071/000.npy   (81, 2) on the crop
                                /masks/071/000.png

A clip is a folder of frames. Videos of the same name made by different manipulations are different clips, and a folder
that several files list is one clip. DeepfakeBench lists the test videos of some sets under val too: test counts.

The JSON files are `{dataset: {label: {split: {[compression:] {video: {label, frames, ...}}}}}}`; the level of
compression exists in the FaceForensics family only. The frames that a list names are found by one directory listing a
folder, without a stat for each frame.
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
from sharpstudent.core.naming import printable
from sharpstudent.tasks.deepfake.layouts import names
from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, ClipCollector, Found, FrameFiles, RawClip, Split
from sharpstudent.tasks.deepfake.layouts.ffpp import MANIPULATIONS
from sharpstudent.tasks.deepfake.layouts.listing import (
    Reject,
    peek,
    read_json_object,
    read_names,
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
    """One video as one file lists it.

    Attributes:
        place: The JSON file and the keys in it, for messages.
        dataset: The outermost key.
        label_name: The label as the file writes it, such as "FF-DF".
        label: Real 0, fake 1.
        split: The split that the file lists it under.
        compression: "raw", "c23", "c40", or "" where there is no such level.
        video: The video's name.
        frames: The listed frames as they stand in the file, not yet checked.
    """

    place: str
    dataset: str
    label_name: str
    label: int
    split: Split
    compression: str
    video: str
    frames: list[Any]


def list_json_files(root: Path) -> list[Path]:
    """List the JSON files that begin like a list of DeepfakeBench, in ROOT and its two folders for them."""
    return [
        path
        for folder in FOLDERS
        for path in sorted(root.joinpath(*folder).glob("*.json"))
        if not path.name.startswith(".") and _START.match(peek(path))
    ]


def read_entries(path: Path, reject: Reject) -> Iterator[Entry]:
    """Read all videos of a JSON file.

    Args:
        path: The file.
        reject: Takes the place and the reason of what is no video.

    Yields:
        Each video.

    Raises:
        UserError: If the file is no JSON object.
    """
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
    """List compression, name and description of each video of a split."""
    for name, about in _members(videos, place, reject):
        if name in COMPRESSIONS and not (isinstance(about, dict) and "frames" in about):
            yield from ((name, *video) for video in _members(about, f"{place}/{name}", reject))
        else:
            yield "", name, about


def _members(level: Any, place: str, reject: Reject) -> list[tuple[str, Any]]:
    """Return the keys and values of a level; one that is no object is rejected and has none."""
    if isinstance(level, dict):
        return list(level.items())
    reject(place, f"holds {repr(level)[:80]}; expected {FORM}")
    return []


def _read_video(
    place: str, dataset: str, outer: str, split: str, compression: str, video: str, about: Any, reject: Reject
) -> Entry | None:
    """Return the entry of a video; None where its description cannot be used, which is then rejected."""
    if not isinstance(about, dict) or not isinstance(about.get("frames"), list):
        reject(place, f"is not a video with a list of frames; expected {FORM}")
        return None
    inner = about.get("label")
    labels = {name: _parse_label(name) for name in (inner, outer) if isinstance(name, str)}
    labels = {name: label for name, label in labels.items() if label is not None}
    if len(set(labels.values())) != 1:
        reject(place, f"label {inner!r} in {outer!r} says neither real nor fake; mend the entry")
        return None
    name, label = next(iter(labels.items()))
    return Entry(place, printable(dataset), printable(name), label, SPLITS[split], compression, video, about["frames"])


def _parse_label(name: str) -> int | None:
    """Return 0 for FF-real and DFDCP_Real, 1 for FF-DF and DFDCP_FakeA, None for names that say neither."""
    if _FAKE.search(name):
        return 1
    return 0 if _REAL.search(name) else None


BASES = ((), ("rgb",), ("datasets",), ("datasets", "rgb"))
SHOWN = 3


class FrameFinder:
    """Turns listed paths into paths below the root, wherever in it the listed folders begin.

    "./datasets/rgb/FaceForensics++/..." is found in a root that is datasets/rgb, and "FaceForensics++/..." in one that
    has it in rgb/.
    """

    def __init__(self, root: Path, here: Path) -> None:
        """Prepare to look for frames.

        Args:
            root: The folder that the user names.
            here: The JSON file's own folder, a further place where listed folders may begin.
        """
        self.root = root
        self._bases = [root.joinpath(*base) for base in BASES]
        if here != root:
            self._bases.append(here)
        self._begins: dict[tuple[str, ...], tuple[Path, int]] = {}
        self._folders: dict[str, Path | str] = {}

    def find_folder(self, parts: tuple[str, ...]) -> Path:
        """Return where a listed folder is, or would be."""
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
        """Return where a listed folder is, or what is wrong with its path as text."""
        if text not in self._folders:
            try:
                self._folders[text] = self.find_folder(split_name(text, root=self.root))
            except ValueError as error:
                self._folders[text] = f"a path that {error}: {text[:80]!r}"
        return self._folders[text]

    def name_clip(self, entry: Entry, listed: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """Return the parts of a clip's name: the folder of its first frame below the root.

        Args:
            entry: The video.
            listed: Folder and file name of each of its frames.

        Returns:
            The parts; for a video without any usable path, parts made of the entry's own names.
        """
        folder = next((found for text, _ in listed if isinstance(found := self.locate(text), Path)), None)
        if folder is None:
            return ("unplaced", entry.dataset, entry.label_name, entry.compression or "any", entry.video)
        parts = folder.relative_to(self.root).parts
        return parts if folder.name == entry.video else (*parts, entry.video)

    def find(self, listed: Sequence[tuple[str, str]]) -> tuple[tuple[FrameFiles, ...], str]:
        """Find the frames that are there.

        Args:
            listed: Folder and file name of each frame.

        Returns:
            The frames in the order of the list, and what is wrong with the others, "" where nothing is.
        """
        open_folder = cache(_FrameFolder)
        found: dict[tuple[Path, str], None] = {}
        bad: Counter[str] = Counter()
        for text, name in listed:
            folder = self.locate(text)
            if isinstance(folder, str):
                bad[folder] += 1
            elif name in open_folder(folder).names:
                found[folder, name] = None
            else:
                bad[f"not in {folder}"] += 1
        stems = [name.rpartition(".")[0] for _, name in found]
        frames = tuple(
            open_folder(folder).take(index, name, stem)
            for index, stem, (folder, name) in zip(names.number_frames(stems), stems, found, strict=True)
        )
        if not listed:
            return frames, "lists no frame"
        reasons = "; ".join(f"{number} {reason}" for reason, number in list(bad.items())[:SHOWN])
        return frames, f"{bad.total()} of {len(listed)} frames left out: {reasons}" if bad else ""


class _FrameFolder:
    """The names in one folder of frames, and in the folders of landmarks and masks that mirror it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._landmarks, self._masks = _mirror(folder, "landmarks"), _mirror(folder, "masks")
        self.names = read_names(folder)
        self._landmark_names, self._mask_names = read_names(self._landmarks), read_names(self._masks)

    def take(self, index: int, name: str, stem: str) -> FrameFiles:
        """Return the files of one frame.

        Args:
            index: The frame's number in its video.
            name: The picture's file name.
            stem: The same without its suffix.

        Returns:
            The picture, with landmarks and mask where they are there.
        """
        landmarks = f"{stem}.npy"
        return FrameFiles(
            index=index,
            picture=self._folder / name,
            landmarks=self._landmarks / landmarks if landmarks in self._landmark_names else None,
            mask=self._masks / name if name in self._mask_names else None,
        )


def _split_path(frame: object) -> tuple[str, str]:
    """Split a listed path into folder and name; a frame that is no text gets an empty folder, which no path has."""
    if not isinstance(frame, str):
        return "", ""
    plain = frame.replace("\\", "/") if "\\" in frame else frame
    folder, slash, name = plain.rpartition("/")
    return (folder or "/") if slash else ".", name


def _mirror(folder: Path, kind: str) -> Path:
    """Return the folder of landmarks or masks for a folder of frames; an absent one where the path has no frames/."""
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
STRICTEST = tuple(SPLITS)  # a clip under two splits counts for the later: no test video is trained on


def recognise(root: Path) -> bool:
    """Return whether the root has a JSON file of DeepfakeBench."""
    return bool(list_json_files(root))


def find(root: Path, label: int | None) -> Found:
    """Find all listed videos of which frames are there.

    Args:
        root: The folder that holds the JSON files.
        label: Not used: the JSON files give the labels.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If there is no JSON file of this form, or one is broken.
    """
    files = list_json_files(root)
    if not files:
        looked = ", ".join(str(root.joinpath(*folder, "*.json")) for folder in FOLDERS)
        raise UserError.about(str(root), "holds no list of DeepfakeBench", FORM, f"none in {looked}", "put it there")
    collector = ClipCollector(root, "")
    clips: dict[str, RawClip] = {}
    for path in files:
        collector.know(path)
        finder = FrameFinder(root, path.parent)
        for entry in read_entries(path, collector.reject):
            _add_entry(entry, finder, clips, collector)
    for clip in clips.values():
        collector.add(clip)
    return collector.close()


def _add_entry(entry: Entry, finder: FrameFinder, clips: dict[str, RawClip], collector: ClipCollector) -> None:
    """Add a listed video to the clips, or to the clip that has its frames already."""
    listed = [_split_path(frame) for frame in entry.frames]
    parts = finder.name_clip(entry, listed)
    key = names.build_key(parts)
    known = clips.get(key)
    if known is not None and known.label != entry.label:
        collector.reject(entry.place, f"has the frames of {key}, which another entry says is of the other label")
    elif known is not None:
        clips[key] = _merge(known, entry, collector)
    else:
        frames, reason = finder.find(listed)
        if reason:
            collector.reject(entry.place, reason)
        if frames:
            clips[key] = _to_clip(key, entry, parts, frames)


def _merge(known: RawClip, entry: Entry, collector: ClipCollector) -> RawClip:
    """Return a clip that two entries list, in the stricter of their splits."""
    if known.split == entry.split:
        return known
    first, second = sorted((known.split or "train", entry.split), key=STRICTEST.index)
    collector.note(f"{entry.dataset}: some videos are listed under {first} and {second}; they count as {second}")
    return replace(known, split=second)


def _to_clip(key: str, entry: Entry, parts: tuple[str, ...], frames: tuple[FrameFiles, ...]) -> RawClip:
    family = _find_family(entry)
    manipulation = ""
    if entry.label == 1:
        in_path = [part for part in parts if part in MANIPULATIONS]
        manipulation = (in_path or [FF_LABELS.get(entry.label_name, entry.label_name)])[0]
    people = {
        "FaceForensics++": lambda: names.parse_ffpp_people(entry.video, manipulation),
        "DeepFakeDetection": lambda: names.parse_actors(entry.video),
        "Celeb-DF": lambda: names.parse_celebrities(entry.video),
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


def _find_family(entry: Entry) -> str:
    """Return the data set by whose rules an entry's video is named; FF-DF.json and the like are FaceForensics++."""
    for start, family in (("FF-", "FaceForensics++"), ("DFD_", "DeepFakeDetection"), ("CelebDF", "Celeb-DF")):
        if entry.label_name.startswith(start):
            return family
    return entry.dataset
