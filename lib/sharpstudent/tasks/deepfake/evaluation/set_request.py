"""What a user asks to be judged: one data set each, and what is wrong with such a list before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sharpstudent.core.errors import Problem, ProblemList, UserError

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


def choose_names(requests: Sequence[SetRequest]) -> list[str]:
    """A name for each set, all different. Raises UserError for no set at all, a path that does not exist or is there
    twice, and a name that is empty, holds a / (it stands between set and kind of fake in figures' names) or is twice.
    """
    if not requests:
        raise UserError(
            Problem("--data", "names no data set", "a prepared set or a folder", "none", "name one or more of them")
        )
    problems = ProblemList()
    _check_paths(requests, problems)
    given = [request.name for request in requests if request.name is not None]
    for name in dict.fromkeys(given):
        if not name.strip() or "/" in name or given.count(name) > 1:
            what = "names two data sets" if given.count(name) > 1 else "cannot name a data set"
            problems.add(Problem(repr(name), what, "a name of its own without /", remedy="choose another name"))
    problems.raise_if_any()
    taken, names = set(given), list[str]()
    for request in requests:
        name = request.name or _make_unique(name_folder(find_folder(request.path)), taken)
        taken.add(name)
        names.append(name)
    return names


def find_folder(path: Path) -> Path:
    """The folder that a set lies in: its own, or its manifest's."""
    return path.parent if path.is_file() else path


def _check_paths(requests: Sequence[SetRequest], problems: ProblemList) -> None:
    seen: set[Path] = set()
    for request in requests:
        path = request.path
        if not path.exists():
            wanted = "a prepared set's folder or manifest.arrow, or a folder of pictures or videos"
            problems.add(Problem(str(path), "does not exist", wanted, remedy="check the path; is the disk mounted?"))
            continue
        folder = find_folder(path).resolve()
        if folder in seen:
            problems.add(Problem(str(path), "is asked for twice: its frames would count twice", remedy="name it once"))
        seen.add(folder)


def name_folder(folder: Path) -> str:
    """The folder's own name as printable text."""
    return folder.resolve().name.encode("utf-8", "backslashreplace").decode() or "data"


def _make_unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique
