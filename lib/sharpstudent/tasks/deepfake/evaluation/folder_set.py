"""A folder of whole pictures or videos as a data set.

A console whose lines go to whoever has asked for them.

A folder of whole pictures or videos as a data set: its faces are cut exactly as for training, once, and kept under
data/evaluation_faces/ of the working folder for the next evaluation.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import EvaluationSet
from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.listing import read_folder
from sharpstudent.tasks.deepfake.layouts.own_files import CLASSES
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS, find_clips
from sharpstudent.tasks.deepfake.prepare.destination import read_preparation
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import CutSettings, Request
from sharpstudent.tasks.deepfake.swaps.folder import TABLE


class SaidLines(io.StringIO):
    """A text file that keeps nothing and hands on every line that is written to it, without its end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say, self._begun = say, ""

    def write(self, text: str, /) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._say(line)
        return len(text)


def build_line_console(say: Callable[[str], None]) -> Console:
    """Plain lines, no bar."""
    return Console(file=SaidLines(say), force_terminal=False, color_system=None, highlight=False)


CACHE = Path("data/evaluation_faces")


def read_folder_set(
    request: SetRequest, *, name: str, say: Callable[[str], None], console: Console | None
) -> EvaluationSet:
    """All faces of the folder; those that are cut already are not cut again, nor is any training split made.

    Raises UserError for what run_preparation refuses (no layout, no face model, no face at all), where nothing tells
    real from fake, and where the folder is a preparation that was never finished; RunInterrupted for Ctrl-C and
    SIGTERM: the next evaluation goes on where it was.
    """
    source = request.path
    _check_folder(source)
    wanted = build_request(request)
    say(f"{name}: faces of {source} are kept in {wanted.dest}")
    run_preparation(wanted, console or build_line_console(say), find=_find_labelled, for_training=False)
    notes = [f"cut for this evaluation from whole pictures or videos, {request.frames} frames of each video"]
    if (source / TABLE).is_file():
        notes.append(f"{TABLE} says that these pictures are face crops already: judge them with --crops")
    return read_manifest_set(wanted.dest, name=name, split="all", faces=request.faces, kind="folder", notes=notes)


def build_request(request: SetRequest) -> Request:
    """The preparation of a folder, with nobody held out. What lies in the cache is never worth more than its source:
    clips that the source no longer has go, so that none of them is judged.
    """
    source = request.path
    cut = CutSettings(
        frames=request.frames,
        faces="largest" if request.faces == "largest" else "all",
        image_size=request.image_size,
        min_face=request.min_face,
    )
    return Request(
        source=source,
        dest=CACHE / f"{_name(source)}-{_compute_key(request, cut)}",
        layout=request.layout,
        label=request.label,
        cut=cut,
        workers=request.workers,
        validation_share=0.0,
        test_share=0.0,
        overwrite=True,
    )


def _compute_key(request: SetRequest, cut: CutSettings) -> str:
    plain = [str(request.path.resolve()), request.layout, request.label, asdict(cut)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _name(source: Path) -> str:
    return source.resolve().name.encode("utf-8", "backslashreplace").decode() or "data"


def _check_folder(source: Path) -> None:
    if not source.is_dir():
        raise UserError(
            Problem(
                str(source),
                "is a file that is no manifest",
                expected="a prepared set's folder or manifest.arrow, or a folder of pictures or videos",
                remedy="name the folder that the file lies in",
            )
        )
    if read_preparation(source) is not None:
        raise UserError(
            Problem(
                str(source),
                "was begun by prepare_faces.py and holds no manifest.arrow: it is not finished",
                remedy="repeat that command; or name the folder of pictures or videos that it was made from",
            )
        )


def _find_labelled(root: Path, *, layout: str | None, label: int | None) -> tuple[str, Found]:
    """As `find_clips`, which calls everything real where nothing else is said: a figure must not rest on that."""
    name, found = find_clips(root, layout=layout, label=label)
    folders = read_folder(root).folders
    if LAYOUTS[name].data_set or label is not None or any(folder.lower() in CLASSES for folder in folders):
        return name, found
    there = [f"{folder}/" for folder in folders] or [clip.key for clip in found.clips]
    raise UserError(
        Problem(
            str(root),
            "does not say what is real and what is fake",
            expected="real/ and fake/ in it (one alone will do), or a data set that prepare_faces.py knows",
            got=", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else ""),
            remedy="move the files there, or say --label real or --label fake for all of them",
        )
    )
