"""Lists all layouts by name, and finds out which of them a folder has.

Every entrance reads a user's data through `find_clips` or `find_pictures`. Each file below the root is used, known to
the layout, or named once as left out.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.naming import printable
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.layouts import (
    celebdf,
    deepfakebench,
    dfdc,
    ffiw,
    ffpp,
    ffpp_sbi,
)
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip, Rejected
from sharpstudent.tasks.deepfake.layouts.listing import (
    TABLE_SUFFIXES,
    VIDEO_SUFFIXES,
    explain_file,
    is_nameable,
    read_folder,
    walk_files,
)
from sharpstudent.tasks.deepfake.layouts.own_files import FORM as TABLE_FORM
from sharpstudent.tasks.deepfake.layouts.own_files import OwnFiles, find_table
from sharpstudent.tasks.deepfake.layouts.structure import Asks
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES

SHOWN = 12  # names in a message


class ClipFinder(Protocol):
    """Finds the clips of a layout: a module of this package, or an `own_files.OwnFiles`."""

    def recognise(self, root: Path) -> bool:
        """Return whether the folder has this layout, judging by a few names."""
        ...

    def find(self, root: Path, label: int | None) -> Found:
        """Find all clips.

        Args:
            root: The folder.
            label: Real 0, fake 1; None where the layout gives the labels.

        Returns:
            The clips, what was rejected, and notes for the user.
        """
        ...


@dataclass(frozen=True)
class Layout:
    """A layout that can be chosen by name.

    Attributes:
        tree: Its tree of folders, in one line.
        finder: Finds its clips: a module of this package, or an `OwnFiles`.
        data_set: Whether it is a published set, whose own files give the labels. The others are taken where no data set
            is recognised.
    """

    tree: str
    finder: ClipFinder
    data_set: bool = True


LAYOUTS: dict[str, Layout] = {
    "ffpp": Layout("{original,manipulated}_sequences/NAME/{raw,c23,c40}/videos/*.mp4 (FaceForensics++)", ffpp),
    "ffpp_sbi": Layout(
        "original_sequences/youtube/{raw,c23,c40}/{frames,landmarks,retina}/VIDEO/ (as for self-blended images)",
        ffpp_sbi,
    ),
    "deepfakebench": Layout(
        "*.json or dataset_json/*.json with {dataset: {label: {train: ...}}}, beside the crops", deepfakebench
    ),
    "celebdf": Layout("Celeb-real/, YouTube-real/, Celeb-synthesis/ (Celeb-DF-v2)", celebdf),
    "dfdc": Layout("dfdc_train_part_0/metadata.json or test/labels.csv (DFDC)", dfdc),
    "dfdc_preview": Layout("dataset.json and method_A/, method_B/, original_videos/ (DFDC preview)", dfdc.Preview()),
    "ffiw": Layout("source/{train,val,test}/*.mp4 and target/... (FFIW10K)", ffiw),
    "folder": Layout(
        "photos and videos: PERSON/*.jpg, {real,fake}/, {train,val,test}/{real,fake}/",
        OwnFiles("folder"),
        data_set=False,
    ),
    "photos": Layout("as folder, photos only", OwnFiles("photos"), data_set=False),
    "videos": Layout("as folder, videos only", OwnFiles("videos"), data_set=False),
}
OWN_FILES = "folder"


TABLE = "table"  # the name of the layout of a table of files


def find_clips(
    root: Path,
    *,
    layout: str | None,
    label: int | None,
    people: str | None = None,
    asks: Asks | None = None,
    allow_none: bool = False,
) -> tuple[str, Found]:
    """Find all clips in a folder, or in a table of files.

    Args:
        root: The folder or the table.
        layout: The name of a layout; None to recognise it.
        label: Real 0, fake 1; None where the layout gives the labels.
        people: What one person is in a user's own files, `folders` or `files`; None for folders, unless one holds too
            much.
        asks: How the user says what the names leave open.
        allow_none: Whether nothing may be found, because the caller has a message of its own; it takes names that are
            not UTF-8, too.

    Returns:
        The name of the layout, and what it found.

    Raises:
        UserError: If there is no such folder or layout, none or several are recognised, a label is given for a data set
            that has its own, a list of the data set cannot be read, class, split or person of a file can be meant in
            two ways, or no clip is found.
    """
    is_table = root.is_file() and root.name.lower().endswith(TABLE_SUFFIXES)
    _check_root(root, is_table=is_table, any_name=allow_none)
    if layout is not None and (layout not in LAYOUTS or is_table):
        what = "is not known" if layout not in LAYOUTS else "is for folders, and SOURCE is a table"
        raise UserError.about(
            "--layout", what, " or ".join(LAYOUTS), repr(layout), "choose one of them, or leave it out"
        )
    try:
        name = TABLE if is_table else layout or _recognise(root)
        if name == TABLE:
            found = find_table(root, label, people=people, asks=asks)
        else:
            found = account_for_files(root, name, _find(root, name, label, people, asks, any_name=allow_none))
    except OSError as error:
        remedy = "make it readable, or move it away"
        raise UserError.about(
            str(error.filename or root), f"cannot be read ({error.strerror})", remedy=remedy
        ) from None
    if not found.clips and not allow_none:
        raise UserError(_explain_empty(root, name, found))
    return name, found


def find_pictures(
    root: Path, *, source: str, form: str, remedy: str, people: str | None = None, label: int | None = None
) -> Found:
    """Find the pictures of a user's own folder or table, for an entrance that takes no videos and no data sets.

    Args:
        root: The folder or table.
        source: What the entrance is called, for messages.
        form: What it expects, for messages.
        remedy: What a user can do where there is no picture.
        people: What one person is, as in `find_clips`.
        label: Real 0, fake 1; None for what folders or table say.

    Returns:
        The pictures; videos are left out by name.

    Raises:
        UserError: Where there is no picture, for a data set that has to be prepared first, and where class, split or
            person of a file can be meant in two ways.
    """
    asks = _ASK_OPTIONS if source.startswith("--") else _build_config_asks(root)
    if root.is_dir() and not (root / MANIFEST).is_file():
        sets = [name for name, layout in LAYOUTS.items() if layout.data_set and layout.finder.recognise(root)]
        if sets:
            what = f"is a data set ({', '.join(sets)}) that {source} does not read"
            remedy = "leave out --crops" if asks is _ASK_OPTIONS else f"{_prepare(root)}, then {_TRAIN}"
            raise UserError.about(str(root), what, remedy=remedy)
    layout = OWN_FILES if root.is_dir() else None
    found = find_clips(root, layout=layout, label=label, people=people, asks=asks, allow_none=True)[1]
    videos = [
        Rejected(str(clip.file), f"is a video, and {source} reads pictures; prepare_faces.py crops its faces")
        for clip in found.clips
        if clip.kind != "photo"
    ]
    found = replace(found, clips=tuple(clip for clip in found.clips if clip.kind == "photo")).with_rejected(*videos)
    if not found.clips:
        got = "\n".join(found.describe_rejected()[:SHOWN]) or ("no line" if root.is_file() else _show_content(root))
        raise UserError.about(str(root), f"holds no picture that {source} reads", form, got, remedy)
    return found


_ASK_OPTIONS = Asks()
_TRAIN = "set data_source to manifest and data_root to data/prepared"


def _prepare(root: Path) -> str:
    return f"python prepare_faces.py {shlex.quote(printable(str(root)))} data/prepared"


def _build_config_asks(root: Path) -> Asks:
    """Return how a user of a config says what the names leave open."""
    return Asks(
        label=f"if all are real: {_prepare(root)} --label real, then {_TRAIN}",
        fake="",
        people="--set people=files",
        folders="--set people=folders",
    )


def _find(root: Path, name: str, label: int | None, people: str | None, asks: Asks | None, *, any_name: bool) -> Found:
    layout = LAYOUTS[name]
    if isinstance(layout.finder, OwnFiles):
        return layout.finder.find(root, label, people=people, asks=asks, any_name=any_name)
    for option, what, value in (("--label", "labels", label), ("--people", "people", people)):
        if value is not None:
            raise UserError.about(option, f"was given, but the files of {name} give the {what}", remedy="leave it out")
    return layout.finder.find(root, label)


def account_for_files(root: Path, name: str, found: Found) -> Found:
    """Name every file below the root that is neither used nor known nor left out already.

    A folder of which nothing is used is named once, with the number of its files.

    Args:
        root: The folder.
        name: The name of the layout.
        found: What the layout found.

    Returns:
        The same with what is left over among the rejected.
    """
    covered = {printable(path) for clip in found.clips for path in _list_files(clip)}
    covered |= {str(path) for path in found.known} | {one.source for one in found.rejected}
    covered |= {_find_listed(one.source) for one in found.rejected}
    folders = {os.path.dirname(path) for path in covered}
    used_folders = {parent for folder in folders for parent in (Path(folder), *Path(folder).parents)}
    left: dict[str, list[Path]] = defaultdict(list)
    for file in walk_files(root, lambda *_: None):
        if printable(str(file)) in covered:
            continue
        parents = [parent for parent in file.parents if parent != root and parent.is_relative_to(root)]
        if any(str(parent) in covered for parent in parents):
            continue
        unused = [parent for parent in parents if parent not in used_folders]
        left[str(unused[-1]) if unused else str(file)].append(file)
    for folder, files in _group_by_folder(left).items():
        left[f"{folder}/*"] = [file for name in files for file in left.pop(name)]
    return found.with_rejected(*(_reject_left(Path(place), name, files) for place, files in sorted(left.items())))


def _find_listed(source: str) -> str:
    """Return the file that a rejected entry of a list names, such as `ROOT/metadata.json: x.mp4`."""
    place, _, name = source.rpartition(": ")
    return str(Path(place.partition(", line ")[0]).parent / name) if place else source


def _group_by_folder(left: Mapping[str, list[Path]]) -> dict[Path, list[str]]:
    """Find the folders with many files that are left, beside others that are used."""
    beside: dict[Path, list[str]] = defaultdict(list)
    for name, files in left.items():
        if files == [Path(name)]:
            beside[files[0].parent].append(name)
    return {folder: names for folder, names in beside.items() if len(names) > SHOWN}


def _list_files(clip: RawClip) -> list[str]:
    frames = [(frame.picture, frame.landmarks, frame.boxes, frame.mask) for frame in clip.frames]
    return [str(path) for path in (clip.file, *(path for files in frames for path in files)) if path is not None]


def _reject_left(place: Path, name: str, files: list[Path]) -> Rejected:
    """Explain why a file, or all files of a folder, are left out."""
    if len(files) == 1:
        return Rejected(printable(str(files[0])), _explain_left(files[0].name, name))
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(4))
    reasons = {_explain_left(file.name, name) for file in files}
    reason = reasons.pop().replace("is ", "are ", 1) if len(reasons) == 1 else f"are no part of layout {name}"
    return Rejected(printable(str(place)), f"its {len(files):,} files ({shown}) {reason}")


def _explain_left(file: str, layout: str) -> str:
    reason = explain_file(file) if not file.lower().endswith((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)) else ""
    only = {
        "photos": "is a video, and layout photos takes photos",
        "videos": "is a photo, and layout videos takes videos",
    }
    return reason or only.get(layout, f"is no part of layout {layout}; move it to a folder of its own to prepare it")


def _check_root(root: Path, *, is_table: bool, any_name: bool) -> None:
    if not root.is_dir() and not is_table:
        what = "is a file, not a folder or a table" if root.exists() else "does not exist"
        if root.exists() and not root.is_file():
            what = "is a named pipe or a device, not a folder or a table"
        raise UserError.about(
            str(root), what, "a folder in one of the layouts, or a .csv or .tsv table", remedy="name one of them"
        )
    if not (any_name or is_nameable(str(root.absolute()))):
        where = printable(str(root.absolute()))
        raise UserError.about(where, "is a name that is not UTF-8 text", remedy="rename the folder")
    if root.is_dir() and (root / MANIFEST).is_file():
        where = shlex.quote(str(root))
        raise UserError.about(
            str(root),
            f"is a set that prepare_faces.py has made: its labels stand in {MANIFEST}, not in its folders",
            remedy=f"to train on it: --set data_source=manifest --set data_root={where}; "
            "to evaluate it: leave out --crops",
        )


def _recognise(root: Path) -> str:
    """Return the one data set that the folder is, else the user's own photos and videos."""
    names = [name for name, layout in LAYOUTS.items() if layout.data_set and layout.finder.recognise(root)]
    if len(names) == 1:
        return names[0]
    if not names and LAYOUTS[OWN_FILES].finder.recognise(root):
        return OWN_FILES
    looked_for = names or list(LAYOUTS)
    raise UserError.about(
        where=str(root),
        what="has more than one layout" if names else "has no layout that is known",
        expected="one of\n" + "\n".join(f"{name}: {LAYOUTS[name].tree}" for name in looked_for),
        got=_show_content(root),
        remedy=f"add --layout {'|'.join(names)}" if names else "add --layout NAME, or name the folder above or below",
    )


def _explain_empty(root: Path, name: str, found: Found) -> Problem:
    reasons = [f"{rejected.source}: {rejected.reason}" for rejected in found.rejected[:SHOWN]]
    more = len(found.rejected) - len(reasons)
    return Problem(
        where=str(root),
        what=f"holds nothing that layout {name} can use",
        expected=TABLE_FORM if name == TABLE else LAYOUTS[name].tree,
        got="\n".join([*reasons, f"and {more} more"] if more > 0 else reasons) or _show_content(root),
        remedy="check the folder, or choose another --layout NAME",
    )


def _show_content(root: Path) -> str:
    listing = read_folder(root)
    names = [f"{name}/" for name in listing.folders] + list(listing.files)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) or "an empty folder"
