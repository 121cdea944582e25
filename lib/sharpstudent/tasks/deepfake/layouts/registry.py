"""Lists all layouts by name, and finds out which of them a folder has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.layouts import (
    celebdf,
    deepfakebench,
    dfdc,
    dfdc_preview,
    ffiw,
    ffpp,
    ffpp_sbi,
)
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.listing import is_nameable, read_folder, show_name
from sharpstudent.tasks.deepfake.layouts.own_files import OwnFiles

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
    "dfdc_preview": Layout("dataset.json and method_A/, method_B/, original_videos/ (DFDC preview)", dfdc_preview),
    "ffiw": Layout("source/{train,val,test}/*.mp4 and target/... (FFIW10K)", ffiw),
    "folder": Layout("photos and videos, PERSON/*.jpg or {real,fake}/", OwnFiles("folder"), data_set=False),
    "photos": Layout("as folder, photos only", OwnFiles("photos"), data_set=False),
    "videos": Layout("as folder, videos only", OwnFiles("videos"), data_set=False),
}
OWN_FILES = "folder"


def find_clips(root: Path, *, layout: str | None, label: int | None) -> tuple[str, Found]:
    """Find all clips in a folder.

    Args:
        root: The folder.
        layout: The name of a layout; None to recognise it.
        label: Real 0, fake 1; None where the layout gives the labels.

    Returns:
        The name of the layout, and what it found.

    Raises:
        UserError: If there is no such folder or layout, none or several are recognised, a label is given for a data set
            that has its own, a list of the data set cannot be read, or no clip is found.
    """
    _check_folder(root)
    if layout is not None and layout not in LAYOUTS:
        raise UserError.about("--layout", "is not known", " or ".join(LAYOUTS), repr(layout), "choose one of them")
    try:
        name = layout or _recognise(root)
        if label is not None and LAYOUTS[name].data_set:
            raise UserError.about(
                "--label", f"was given, but the files of {name} give the labels", remedy="leave it out"
            )
        found = LAYOUTS[name].finder.find(root, label)
    except OSError as error:
        remedy = "make it readable, or move it away"
        raise UserError.about(
            str(error.filename or root), f"cannot be read ({error.strerror})", remedy=remedy
        ) from None
    if not found.clips:
        raise UserError(_explain_empty(root, name, found))
    return name, found


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.is_file() else "does not exist"
        raise UserError.about(str(root), what, "a folder in one of the layouts", remedy="name the folder")
    if not is_nameable(str(root.absolute())):
        where = show_name(str(root.absolute()))
        raise UserError.about(where, "is a name that is not UTF-8 text", remedy="rename the folder")


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
        expected=LAYOUTS[name].tree,
        got="\n".join([*reasons, f"and {more} more"] if more > 0 else reasons) or _show_content(root),
        remedy="check the folder, or choose another --layout NAME",
    )


def _show_content(root: Path) -> str:
    listing = read_folder(root)
    names = [f"{name}/" for name in listing.folders] + list(listing.files)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) or "an empty folder"
