"""Where the frames that a DeepfakeBench list names are on disk: one directory listing a folder, no stat a frame."""

from __future__ import annotations

from pathlib import Path

from lib.tasks.deepfake.layouts.clip import FrameFiles
from lib.tasks.deepfake.layouts.deepfakebench_json import Entry
from lib.tasks.deepfake.layouts.frame_numbers import number_frames
from lib.tasks.deepfake.layouts.listing import read_names
from lib.tasks.deepfake.layouts.lists import split_name

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
