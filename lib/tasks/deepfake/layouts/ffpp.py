"""FaceForensics++ as its download script leaves it: videos.

    ROOT/original_sequences/{youtube,actors}/{raw,c23,c40}/videos/*.mp4
    ROOT/manipulated_sequences/{Deepfakes,Face2Face,FaceSwap,NeuralTextures,FaceShifter,DeepFakeDetection}/...
    ROOT/{train,val,test}.json                    lists of pairs of video numbers

000_003.mp4 shows the target 000 and the source 003. The actors and DeepFakeDetection have no official list.
"""

from __future__ import annotations

from pathlib import Path

from lib.tasks.deepfake.layouts.clip import Found
from lib.tasks.deepfake.layouts.gathering import Gathering
from lib.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, list_media, read_folder
from lib.tasks.deepfake.layouts.official_pairs import OfficialPairs
from lib.tasks.deepfake.layouts.people import ACTORS_FAKE, tell_actors, tell_ffpp_people

SOURCE_SET = "FaceForensics++"
COMPRESSIONS = ("raw", "c23", "c40")
ORIGINALS = {"youtube": "", "actors": ""}
MANIPULATIONS = {
    name: name for name in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", ACTORS_FAKE)
}
BRANCHES = {"original_sequences": ORIGINALS, "manipulated_sequences": MANIPULATIONS}
OF_ACTORS = ("actors", ACTORS_FAKE)


def recognise(root: Path) -> bool:
    return any(
        (root / branch / name / compression / "videos").is_dir()
        for branch, names in BRANCHES.items()
        for name in names
        for compression in COMPRESSIONS
    )


def find(root: Path, label: int | None) -> Found:
    """All videos of all manipulations and compressions; the label follows from the folder."""
    gathering = Gathering(root, SOURCE_SET)
    pairs = OfficialPairs(root, gathering)
    for branch, names in BRANCHES.items():
        strange = [name for name in read_folder(root / branch).folders if name not in names]
        if strange:
            gathering.note(f"not read, no part of FaceForensics++ as published: {branch}/{{{','.join(strange)}}}")
        for name, manipulation in names.items():
            for compression in COMPRESSIONS:
                _find_videos(root / branch / name / compression / "videos", manipulation, compression, pairs, gathering)
    return gathering.close()


def _find_videos(folder: Path, manipulation: str, compression: str, pairs: OfficialPairs, gathering: Gathering) -> None:
    of_actors = folder.parts[-3] in OF_ACTORS
    for file in list_media(folder, VIDEO_SUFFIXES, gathering.reject):
        people = tell_actors(file.stem) if of_actors else tell_ffpp_people(file.stem, manipulation)
        if people is None:
            gathering.note_unknown_people(str(folder), "those of FaceForensics++")
        gathering.add_video(
            file,
            label=int(bool(manipulation)),
            people=people,
            split=None if of_actors or people is None else pairs.find(people),
            manipulation=manipulation,
            compression=compression,
        )
