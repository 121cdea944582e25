"""DeepfakeBench: face crops with landmarks and masks, and JSON files that list them.

    ROOT/*.json                            (or in ROOT/dataset_json, ROOT/preprocessing/dataset_json)
    ROOT/FaceForensics++/.../c23/frames/071/000.png      crops of 256 px (or below ROOT/rgb, ROOT/datasets/rgb)
                                /landmarks/071/000.npy   (81, 2) on the crop
                                /masks/071/000.png

A clip is a folder of frames: videos of the same name made by different manipulations stay apart, and one that several
files list is one clip. It lists the test videos of some sets under val too: test counts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib.errors import Problem, UserError
from lib.tasks.deepfake.layouts.clip import Found, FrameFiles, RawClip
from lib.tasks.deepfake.layouts.deepfakebench_frames import FrameFinder
from lib.tasks.deepfake.layouts.deepfakebench_json import FOLDERS, FORM, BadEntry, Entry, list_json_files, read_entries
from lib.tasks.deepfake.layouts.ffpp import MANIPULATIONS
from lib.tasks.deepfake.layouts.gathering import Gathering
from lib.tasks.deepfake.layouts.keys import build_key
from lib.tasks.deepfake.layouts.people import tell_actors, tell_celebrities, tell_ffpp_people

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
