"""The data sets that a user names, and how they are read. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sharpstudent.core.naming import printable

FacesRule = Literal["largest", "max", "mean", "person"]
Split = Literal["test", "val", "train", "all"]


@dataclass(frozen=True, kw_only=True)
class DataChoices:
    """How data sets are read.

    Attributes:
        split: Which split is read, of a prepared set and of folders that have splits; `all` is everything, also what
            is kept out of all splits.
        crops: Whether the folders hold face crops.
        clips: Whether each subfolder of face crops holds the frames of one video.
        layout: The layout of a folder, as prepare_faces.py names it; None to recognise it.
        label: The label of everything in a folder, real 0 or fake 1; None where its folders or lists say it.
        people: What one person is in a folder, `folders` or `files`; None for folders, unless one holds too much.
        faces: Which faces of a frame count.
        frames: How many frames of each video are read.
        min_face: Faces whose box is narrower or lower are passed over [px].
    """

    split: Split = "test"
    crops: bool = False
    clips: bool = False
    layout: str | None = None
    label: int | None = None
    people: Literal["folders", "files"] | None = None
    faces: FacesRule = "largest"
    frames: int = 32
    min_face: int = 40


@dataclass(frozen=True)
class SetRequest(DataChoices):
    """One data set that the user names.

    Attributes:
        path: A prepared set's folder or its manifest.arrow, a folder or table of whole pictures or videos, or with
            crops a folder or table of face crops.
        name: The name in reports; None for that of the folder.
        workers: How many processes crop faces.
        image_size: The largest network input of all models that are evaluated on the set [px].
    """

    path: Path
    name: str | None = None
    workers: int = 1
    image_size: int = 380


def find_folder(path: Path) -> Path:
    """Find the folder that a set is in: its own, or its manifest's. A table of files stands for itself."""
    return path.parent if path.suffix == ".arrow" and path.is_file() else path


def name_folder(folder: Path) -> str:
    """The folder's own name, or a table's, as printable text."""
    whole = folder.resolve()
    return printable(whole.stem if folder.is_file() else whole.name) or "data"
