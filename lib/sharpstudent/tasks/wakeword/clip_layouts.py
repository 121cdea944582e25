"""Finds recordings in the three layouts of a data folder: the splits' JSON files, a folder a class, Speech Commands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.files import explain, read_json, read_text
from sharpstudent.core.naming import printable
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.splits import assign_splits
from sharpstudent.tasks.wakeword.clips import (
    BACKGROUND,
    CATEGORIES,
    HARD,
    NEGATIVE,
    POSITIVE,
    ROOMS,
    SHOWN,
    FoundClips,
    VoiceClip,
)
from sharpstudent.tasks.wakeword.recordings import SUFFIXES, read_info
from sharpstudent.tasks.wakeword.section import WakewordSection

NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}  # of a split, as files call it
ALIASES = {"hard": "hard_negative", "hard_negatives": "hard_negative", "positives": "positive", "rir": "rirs"} | {
    "negatives": "negative", "backgrounds": "background", "noise": "background",
}  # fmt: skip
HELD_OUT = {"validation_list.txt": "validation", "testing_list.txt": "test"}  # lists of Speech Commands
SYNTHETIC = "tts"  # the pool of synthetic voices in splits that name pools


def find_clips(section: WakewordSection) -> FoundClips:
    """Find all recordings of a data folder.

    Args:
        section: The keys of the data.

    Returns:
        The recordings of every split.

    Raises:
        UserError: For a folder without recordings, and for splits that cannot be read.
    """
    root = Path(section.data_root)
    if not root.is_dir():
        raise UserError.about(
            f"data.data_root = {section.data_root!r}",
            "is not a folder",
            expected="splits/train.json and splits/val.json, or folders positive/ and negative/, or Speech Commands",
            remedy="--set data.data_root=FOLDER with the folder of your recordings; docs/wakeword.md shows the layouts",
        )
    layout = _guess_layout(root) if section.layout == "auto" else section.layout
    found = LAYOUTS[layout](root, section)
    return found if section.mined is None else replace(found, clips=(*found.clips, *_find_mined(Path(section.mined))))


def _find_mined(folder: Path) -> list[VoiceClip]:
    """Find the false alarms of an earlier model: hard negatives of the training split."""
    clips = [replace(clip, group=f"mined {clip.group}") for clip in _walk_classes(folder, folder, False)] if (
        folder.is_dir()
    ) else []  # fmt: skip
    if not clips or any(clip.category != HARD for clip in clips):
        raise UserError.about(
            f"data.mined = {str(folder)!r}", "is no folder of false alarms", expected=f"{HARD}/ alone",
            remedy="sharpstudent mine RUN RECORDING --out FOLDER makes one",
        )  # fmt: skip
    return [replace(clip, split="train") for clip in clips]


def _guess_layout(root: Path) -> str:
    if any((folder / "train.json").is_file() for folder in (root / "splits", root)):
        return "splits"
    if any((root / name).is_file() for name in HELD_OUT):
        return "speech_commands"
    return "folders"


# --- splits/{train,val,test}.json -----------------------------------------------------------------------------------


def read_splits(root: Path, section: WakewordSection) -> FoundClips:
    """Read {files: [{path, category, duration, sample_rate, npy_path?}], categories, total_files} of each split.

    A file may also have `group` or `speaker`, `word`, and `pool`. A path begins at the folder of the data, at the
    current folder or at the folder of the JSON file.

    Args:
        root: The folder of the data.
        section: The keys of the data.
    """
    folder = root / "splits" if (root / "splits" / "train.json").is_file() else root
    files = sorted(folder.glob("*.json"))
    problems, clips = ProblemList(), list[VoiceClip]()
    for file in files:
        found = problems.attempt(_read_split, file, root)
        clips += found or []
    problems.raise_if_any()
    unknown = sum(1 for clip in clips if clip.group == clip.name)
    rooms = [] if any(clip.category == ROOMS for clip in clips) else list(_find_rooms(root))
    notes = (_warn_of_unknown(unknown, len(clips)),) if unknown else ()
    return FoundClips((*clips, *rooms), "splits", tuple(files), notes)


def _read_split(file: Path, root: Path) -> list[VoiceClip]:
    split = NAMES.get(file.stem, file.stem)
    try:
        entries = read_json(file)["files"]
        return [_read_entry(entry, split, (root, Path(), file.parent)) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"misses {error}" if isinstance(error, KeyError) else explain(error)
        raise UserError.about(
            str(file),
            f"is no list of recordings ({reason})",
            expected='{"files": [{"path": ..., "category": ..., "duration": ..., "sample_rate": ...}]}',
            remedy="write it again, or set data.layout to folders",
        ) from None


def _read_entry(entry: Mapping[str, Any], split: str, roots: Sequence[Path]) -> VoiceClip:
    text, category = str(entry["path"]), ALIASES.get(entry["category"], entry["category"])
    if category not in CATEGORIES:
        raise ValueError(f"the category {category!r} of {text} is none of {', '.join(CATEGORIES)}")
    if "\0" in text:
        raise ValueError("a path has a null byte")
    group = str(entry.get("group") or entry.get("speaker") or text)
    features = entry.get("npy_path")
    return VoiceClip(
        _find_path(text, roots), printable(text), category, printable(group), float(entry["duration"]),
        int(entry["sample_rate"]), split, str(entry.get("word", "")), entry.get("pool") == SYNTHETIC,
        None if not features else _find_path(str(features), roots),
    )  # fmt: skip


def _find_path(text: str, roots: Sequence[Path]) -> Path:
    """Find a file below the first of the folders that has it; one that none has is below the first."""
    found = (root / text for root in roots)
    return next((path for path in found if path.is_file()), roots[0] / text)


def _find_rooms(root: Path) -> Iterator[VoiceClip]:
    """Find room responses that no list names: wav files in rirs/ or audio/rir/."""
    for folder in (root / "rirs", root / "audio" / "rir"):
        for path in sorted(folder.glob("*.wav")) if folder.is_dir() else ():
            name = str(path.relative_to(root))
            yield VoiceClip(path, name, ROOMS, name, 0.0, 0, "train")


def _warn_of_unknown(count: int, total: int) -> str:
    return (
        f"warning: {count} of {total} recordings name no speaker, and each counts as one: a voice may be on both sides "
        "of a split, which makes a model look better than it is"
    )


# --- a folder a class -----------------------------------------------------------------------------------------------


def read_folders(root: Path, section: WakewordSection) -> FoundClips:
    """Read positive/, negative/, hard_negative/, background/ and rirs/, in train/, val/ and test/ or without them.

    Files of a speaker lie in a folder of their own, `positive/SPEAKER/x.wav`, or begin with the speaker's name and two
    underscores, `positive/SPEAKER__1.wav`. Without such names, each file counts as a speaker.

    Args:
        root: The folder of the data.
        section: The keys of the data.
    """
    named = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name in
             ("train", "val", "validation", "test", "outside")]  # fmt: skip
    clips = [clip for folder in named or [root] for clip in _walk_classes(folder, root, bool(named))]
    if not clips:
        raise UserError.about(
            f"data.data_root = {str(root)!r}",
            "holds no recordings in folders of classes",
            expected=f"positive/ and negative/ with files ({', '.join(SUFFIXES[:4])})",
            got=", ".join(sorted(path.name for path in root.iterdir())[:SHOWN]) or "an empty folder",
            remedy="name the folder that holds positive/ and negative/",
        )
    unknown = sum(1 for clip in clips if clip.group == clip.name)
    notes = (_warn_of_unknown(unknown, len(clips)),) if unknown else ()
    drawn = clips if named else draw_splits(clips, section)
    return FoundClips(tuple(drawn), "folders", notes=notes)


def _walk_classes(folder: Path, root: Path, is_split: bool) -> Iterator[VoiceClip]:
    split = NAMES.get(folder.name, folder.name) if is_split else ""
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        category = ALIASES.get(place.name, place.name)
        if category in CATEGORIES:
            for path in list_sounds(place):
                yield _describe(path, root, category, _name_speaker(path, place, root), split)


def _name_speaker(path: Path, place: Path, root: Path) -> str:
    if path.parent != place:
        return path.relative_to(place).parts[0]
    speaker, mark, _ = path.name.partition("__")
    return speaker if mark else str(path.relative_to(root))


def list_sounds(folder: Path) -> list[Path]:
    """List the sound files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _describe(path: Path, root: Path, category: str, group: str, split: str, word: str = "") -> VoiceClip:
    """Describe a file by its header; one that is no sound has length 0, and is reported when it is read."""
    name = printable(str(path.relative_to(root)))
    try:
        info = read_info(path)
    except UnreadableSample:
        return VoiceClip(path, name, category, printable(group), 0.0, 0, split, word)
    return VoiceClip(path, name, category, printable(group), info.seconds, info.rate, split, word)


def draw_splits(clips: Sequence[VoiceClip], section: WakewordSection) -> list[VoiceClip]:
    """Give every recording without a split one, so that no speaker is in two; room responses go to train.

    Args:
        clips: The recordings.
        section: Says how many speakers are held out.
    """
    speech = [clip for clip in clips if clip.category != ROOMS]
    share = section.validation_share
    drawn = assign_splits(
        [(clip.group,) for clip in speech], [None] * len(speech), validation_share=share, test_share=share,
        seed=section.split_seed,
    )  # fmt: skip
    placed = [
        replace(clip, split=NAMES.get(one.split, one.split), group=one.group)
        for clip, one in zip(speech, drawn, strict=True)
    ]
    return [*placed, *(replace(clip, split="train") for clip in clips if clip.category == ROOMS)]


# --- Speech Commands ------------------------------------------------------------------------------------------------


def read_speech_commands(root: Path, section: WakewordSection) -> FoundClips:
    """Read Speech Commands (Warden 2018): WORD/SPEAKER_nohash_0.wav, lists of the files held out, background noise.

    Args:
        root: The folder of the data.
        section: `word` names the wake word.
    """
    words = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] not in "_.")
    if section.word not in words:
        raise UserError.about(
            "data.word",
            "names no folder of Speech Commands",
            expected=", ".join(words),
            got=section.word or "nothing",
            remedy=f"--set data.word={words[0] if words else 'WORD'}",
        )
    split_of = {name: split for file, split in HELD_OUT.items() for name in _read_list(root / file)}
    clips = [
        _describe(
            path, root, POSITIVE if word == section.word else NEGATIVE,
            re.sub(r"_nohash_.*$", "", path.stem), split_of.get(f"{word}/{path.name}", "train"), word,
        )
        for word in words
        for path in list_sounds(root / word)
    ]  # fmt: skip
    noise = [_describe(path, root, BACKGROUND, f"noise {path.stem}", "train") for path in
             list_sounds(root / "_background_noise_")]  # fmt: skip
    files = tuple(root / file for file in HELD_OUT if (root / file).is_file())
    return FoundClips((*clips, *noise), "speech_commands", files)


def _read_list(path: Path) -> list[str]:
    """Read the files that a list of Speech Commands names; none where there is no such list."""
    try:
        return [line.strip() for line in read_text(path).splitlines()] if path.exists() else []
    except (OSError, ValueError) as error:
        raise UserError.about(
            str(path), f"is no list of files ({explain(error)})", expected="a line WORD/FILE for each recording",
            remedy="take it from the archive of Speech Commands again",
        ) from None  # fmt: skip


LAYOUTS: Mapping[str, Callable[[Path, WakewordSection], FoundClips]] = {
    "splits": read_splits,
    "folders": read_folders,
    "speech_commands": read_speech_commands,
}


def check_files(clips: Sequence[VoiceClip]) -> None:
    """Raise UserError where most recordings of a split are not there: a wrong folder, not a damaged file."""
    missing = [clip for clip in clips if not clip.path.is_file()]
    if len(missing) * 2 > len(clips):
        kinds = Counter(clip.path.suffix for clip in missing)
        raise UserError(
            Problem(
                "data",
                f"lists {len(clips)} recordings, and {len(missing)} are not there",
                expected="paths that begin at data_root, at the current folder, or at the folder of the lists",
                got=f"{missing[0].path} ({', '.join(kinds)})",
                remedy="--set data.data_root=FOLDER with the folder that these paths begin at",
            )
        )
