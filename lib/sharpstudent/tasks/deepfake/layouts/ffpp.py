"""Finds the clips of FaceForensics++ as its download script leaves it: videos, and the official split.

    ROOT/original_sequences/{youtube,actors}/{raw,c23,c40}/videos/*.mp4
    ROOT/manipulated_sequences/{Deepfakes,Face2Face,FaceSwap,NeuralTextures,FaceShifter,DeepFakeDetection}/...
    ROOT/manipulated_sequences/{as above}/masks/videos/*.mp4      the manipulated region of the fake of that name
    ROOT/{train,val,test}.json                    lists of pairs of video numbers

000_003.mp4 shows the target 000 and the source 003. The actors and DeepFakeDetection have no official list.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import SHOWN, SPLITS, ClipCollector, Found, Split
from sharpstudent.tasks.deepfake.layouts.listing import (
    read_folder,
    read_json,
    read_names,
)
from sharpstudent.tasks.deepfake.layouts.names import ACTORS_FAKE, parse_actors, parse_ffpp_people

FORM = '[["071", "054"], ...]'


class OfficialPairs:
    """The official split of each video number.

    A list that is missing becomes a note; a number that is in two lists has no split.
    """

    def __init__(self, root: Path, collector: ClipCollector) -> None:
        """Read the lists.

        Args:
            root: The folder of the three lists.
            collector: Takes the notes.

        Raises:
            UserError: If a list has another form.
        """
        self._splits: dict[str, Split | None] = {}
        missing = [f"{split}.json" for split in SPLITS.values() if not (root / f"{split}.json").is_file()]
        for split in SPLITS.values():
            if f"{split}.json" not in missing:
                collector.know(root / f"{split}.json")
                self._read(root / f"{split}.json", split, collector)
        if missing:
            collector.note(
                f"{root} lacks {', '.join(missing)}: those videos have no official split "
                "(the lists are in the FaceForensics++ repository, dataset/splits)"
            )

    def find(self, numbers: Iterable[str]) -> Split | None:
        """Return the split that all the numbers share, else None."""
        splits: set[Split | None] = {self._splits.get(number) for number in numbers}
        return splits.pop() if len(splits) == 1 else None

    def _read(self, path: Path, split: Split, collector: ClipCollector) -> None:
        for number in dict.fromkeys(read_video_numbers(path)):
            known = self._splits.get(number, split)
            if known != split:
                collector.note(f"{path}: video {number} stands in another list too, so it has no official split")
            self._splits[number] = split if known == split else None


def read_video_numbers(path: Path) -> list[str]:
    """Read the numbers of a list of pairs, flattened. Raises UserError for a file of another form."""
    pairs = read_json(path, form=FORM)
    numbers: list[str] = []
    for index, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or not all(isinstance(number, str) for number in pair):
            where, remedy = f"{path}, entry {index}", "take the file from the FaceForensics++ repository"
            raise UserError.about(where, "is not a pair of video numbers", FORM, repr(pair)[:80], remedy)
        numbers += pair
    return numbers


SOURCE_SET = "FaceForensics++"
COMPRESSIONS = ("raw", "c23", "c40")
ORIGINALS = {"youtube": "", "actors": ""}
MANIPULATIONS = {
    name: name for name in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", ACTORS_FAKE)
}
BRANCHES = {"original_sequences": ORIGINALS, "manipulated_sequences": MANIPULATIONS}
OF_ACTORS = ("actors", ACTORS_FAKE)


def recognise(root: Path) -> bool:
    """Return whether one of the folders of videos is there."""
    return any(
        (root / branch / name / compression / "videos").is_dir()
        for branch, names in BRANCHES.items()
        for name in names
        for compression in COMPRESSIONS
    )


def find(root: Path, label: int | None) -> Found:
    """Find all videos of all manipulations and compressions; the label follows from the folder.

    Args:
        root: The data set's folder.
        label: Not used: the folders give the labels.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If an official list cannot be read.
    """
    collector = ClipCollector(root, SOURCE_SET)
    pairs = OfficialPairs(root, collector)
    for branch, names in BRANCHES.items():
        strange = [name for name in read_folder(root / branch).folders if name not in names]
        if strange:
            collector.note(f"not read, no part of FaceForensics++ as published: {branch}/{{{','.join(strange)}}}")
        for name, manipulation in names.items():
            for compression in COMPRESSIONS:
                _find_videos(root / branch / name / compression / "videos", manipulation, compression, pairs, collector)
    return collector.close()


def _find_videos(
    folder: Path, manipulation: str, compression: str, pairs: OfficialPairs, collector: ClipCollector
) -> None:
    of_actors = folder.parts[-3] in OF_ACTORS
    masks = folder.parents[1] / "masks" / "videos"
    names = read_names(masks) if manipulation else frozenset[str]()
    videos = collector.list_videos(folder)
    lacking = [file.name for file in videos if file.name not in names]
    if names:
        collector.know(masks)
        if lacking:
            shown = ", ".join(lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
            collector.note(f"{folder}: {len(lacking)} of {len(videos)} fakes have no mask in {masks}: {shown}")
    for file in videos:
        people = parse_actors(file.stem) if of_actors else parse_ffpp_people(file.stem, manipulation)
        if people is None:
            collector.note_unknown_people(str(folder), "those of FaceForensics++")
        collector.add_file(
            file,
            label=int(bool(manipulation)),
            people=people,
            split=None if of_actors or people is None else pairs.find(people),
            manipulation=manipulation,
            compression=compression,
            mask=masks / file.name if file.name in names else None,
        )
