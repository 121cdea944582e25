"""The data sets that a user names, and how they are read. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FacesRule = Literal["largest", "max", "mean"]
Split = Literal["test", "val", "train", "all"]


@dataclass(frozen=True, kw_only=True)
class DataChoices:
    """How data sets are read.

    Attributes:
        split: Of a prepared set; `all` is every row, those kept out of all splits too.
        crops: Whether the folders hold face crops.
        layout: As prepare_faces.py takes it.
        label: Of everything in the folders, real 0, fake 1; None where folders or lists say it.
        faces: Which faces of a frame count.
        frames: Of each video.
        min_face: Narrower or lower faces are passed over [px].
    """

    split: Split = "test"
    crops: bool = False
    layout: str | None = None
    label: int | None = None
    faces: FacesRule = "largest"
    frames: int = 32
    min_face: int = 40


@dataclass(frozen=True)
class SetRequest(DataChoices):
    """One data set.

    Attributes:
        path: A prepared set's folder or its manifest.arrow, a folder of whole pictures or videos, or with crops a
            folder of face crops.
        name: As reports call it, by default the folder's.
        workers: Processes that crop.
        image_size: The largest network input of all models that are evaluated on the set [px].
    """

    path: Path
    name: str | None = None
    workers: int = 1
    image_size: int = 380


def find_folder(path: Path) -> Path:
    """Find the folder that a set is in: its own, or its manifest's."""
    return path.parent if path.is_file() else path


def name_folder(folder: Path) -> str:
    """The folder's own name as printable text."""
    return folder.resolve().name.encode("utf-8", "backslashreplace").decode() or "data"
