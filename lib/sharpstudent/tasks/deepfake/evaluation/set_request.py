"""What a user asks to be judged: one data set each, and what is wrong with such a list before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FacesRule = Literal["largest", "max", "mean"]
Split = Literal["test", "val", "train", "all"]


@dataclass(frozen=True, kw_only=True)
class DataChoices:
    """How data sets are read. split: of a prepared set, `all` being every row, those kept out of all splits too; crops:
    the folders hold face crops; layout, label (real 0, fake 1): as prepare_faces.py takes them; faces: which of a
    frame's count; frames: of a video; min_face: narrower or lower ones are none [px].
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
    """One data set. path: a prepared set's folder or its manifest.arrow, a folder of whole pictures or videos, or with
    crops a folder of face crops; name: as reports call it, by default the folder's; workers: processes that cut;
    image_size: the largest network input of all models that judge the set [px].
    """

    path: Path
    name: str | None = None
    workers: int = 1
    image_size: int = 380


def find_folder(path: Path) -> Path:
    """The folder that a set lies in: its own, or its manifest's."""
    return path.parent if path.is_file() else path


def name_folder(folder: Path) -> str:
    """The folder's own name as printable text."""
    return folder.resolve().name.encode("utf-8", "backslashreplace").decode() or "data"
