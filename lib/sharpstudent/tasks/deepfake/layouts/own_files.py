"""Finds the clips in a folder of the user's own photos and videos.

    ROOT/PERSON/*.jpg, *.mp4         a subfolder is one person, with all that is below it
    ROOT/*.jpg, *.mp4                a file on its own is its own person
    ROOT/{real,fake}/...             the same below each: the folder is the label; a person has one name in both

All are real where there is neither real/ nor fake/ and no label is given.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import ClipCollector, Found
from sharpstudent.tasks.deepfake.layouts.listing import VIDEO_SUFFIXES, read_folder, walk_media
from sharpstudent.tasks.deepfake.layouts.names import build_keys
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES

CLASSES = {"real": 0, "fake": 1}
KINDS = {"folder": PICTURE_SUFFIXES + VIDEO_SUFFIXES, "photos": PICTURE_SUFFIXES, "videos": VIDEO_SUFFIXES}
LOOKED_AT = 50  # the most folders that `recognise` lists
# Where a part of a data set is given as the user's own folder, its fakes would be taken for real faces.
FAKE_NAMES = frozenset(
    name.lower()
    for name in (
        *("manipulated_sequences", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter"),
        *("DeepFakeDetection", "Celeb-synthesis", "method_A", "method_B"),
    )
)


class OwnFiles:
    """The layouts "folder", "photos" and "videos"."""

    def __init__(self, kind: str) -> None:
        self._suffixes = KINDS[kind]

    def recognise(self, root: Path) -> bool:
        """Search at most `LOOKED_AT` folders, those nearest to the root first, for a file of this kind."""
        waiting, looked = deque([root]), 0
        while waiting and looked < LOOKED_AT:
            folder, looked = waiting.popleft(), looked + 1
            listing = read_folder(folder)
            if any(name.lower().endswith(self._suffixes) for name in listing.files):
                return True
            waiting.extend(folder / name for name in listing.folders[:LOOKED_AT])
        return False

    def find(self, root: Path, label: int | None) -> Found:
        """Find every photo and video below the root.

        Args:
            root: The folder.
            label: Real 0, fake 1; None for what the folders say.

        Returns:
            The clips, what was rejected, and notes for the user.

        Raises:
            UserError: If a label is given beside real/ and fake/, or if the folder looks like the fakes of a data set
                and no label is given.
        """
        collector = ClipCollector(root, root.absolute().name)
        classes = {name: CLASSES[name.lower()] for name in read_folder(root).folders if name.lower() in CLASSES}
        if classes and label is not None:
            raise UserError.about(
                where=str(root),
                what="has folders that give the labels, and a label was given too",
                got=f"{', '.join(f'{name}/' for name in classes)} and --label",
                remedy="leave out --label, or give one of the folders",
            )
        files = walk_media(root, self._suffixes, collector.reject)
        if not classes and label is None:
            _check_not_fake(root, files)
        for file, key in zip(files, build_keys(root, files), strict=True):
            inside = file.relative_to(root).parts
            if classes and inside[0] not in classes:
                collector.reject(
                    str(file), f"lies beside {'/ and '.join(classes)}/, so its label is not known; move it"
                )
                continue
            below = inside[1:] if classes else inside
            fake = classes[inside[0]] if classes else label or 0
            collector.add_file(
                file,
                key=key,
                kind="photo" if file.suffix.lower() in PICTURE_SUFFIXES else "video",
                people=(below[0],) if len(below) > 1 else None,
                label=fake,
                manipulation="fake" if fake else "",
            )
        return collector.close()


def _check_not_fake(root: Path, files: list[Path]) -> None:
    """Raise UserError where a folder is named like the fakes of a data set."""
    for name in (root.absolute().name, *(part for file in files for part in file.relative_to(root).parts[:-1])):
        if name.lower() in FAKE_NAMES:
            raise UserError.about(
                where=str(root),
                what=f"would be taken for real faces, but {name!r} is what a data set calls its fakes",
                remedy="give the data set's own folder, or add --label real or --label fake",
            )
