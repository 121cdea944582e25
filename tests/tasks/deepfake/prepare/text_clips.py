"""Text files as clips, and a layout that finds them: for tests that need no pictures. See text_cropper.py.

A clip is a text file `KEY.txt` of lines: `face` gives one face of the next frame, `none` a frame without one; the
first line may be `crash`, `hang`, `exit`, `fail`, or `slow SECONDS`, which is what happens when it is cropped.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.progress import Counts
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import Request
from text_cropper import TextCropper


def write_clips(root: Path, clips: dict[str, str]) -> Path:
    for key, text in clips.items():
        path = root / f"{key}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(" ", "\n") if not text.startswith("slow") else text)
    return root


def write_many(root: Path, count: int = 8, *, slow: float = 0.0) -> Path:
    """Clips of 0 to 4 faces, real ones and fakes."""
    for index in range(count):
        lines = ["face"] * (index % 5) + ["none"] * (index % 2)
        text = "\n".join([f"slow {slow}", *lines] if slow else lines)
        write_clips(root, {f"{'real' if index % 2 else 'fake'}/person é {index}": ""})
        (root / f"{'real' if index % 2 else 'fake'}/person é {index}.txt").write_text(text)
    return root


def find_texts(root: Path, *, layout: str | None, label: int | None) -> tuple[str, Found]:
    clips = []
    for path in sorted(root.rglob("*.txt")):
        key = path.relative_to(root).with_suffix("").as_posix()
        real_or_fake = int(key.startswith("fake")) if label is None else label
        clips.append(RawClip(key, "photo", real_or_fake, (key,), file=path, source_set="made"))
    rejected = [Rejected(str(path), "is no text") for path in sorted(root.rglob("*.bad"))]
    if not clips:
        raise UserError(Problem(str(root), "has no layout that is known"))
    return layout or "texts", Found(tuple(reversed(clips)), tuple(rejected), ("a note",))


def prepare(source: Path, dest: Path, **settings: object) -> tuple[Counts, str]:
    """Run run_preparation with TextCropper; returns its counts and what it printed."""
    console = Console(file=io.StringIO(), width=300)
    request = Request(source, dest, **{"clip_timeout": 60.0, **settings})  # type: ignore[arg-type]
    counts = run_preparation(request, console, find=find_texts, build_cropper=TextCropper)
    assert isinstance(console.file, io.StringIO)
    return counts, console.file.getvalue()


def read_all(dest: Path) -> dict[str, bytes]:
    """Every file of DEST but the lock, and the folders."""
    return {
        str(path.relative_to(dest)): path.read_bytes() if path.is_file() else b""
        for path in sorted(dest.rglob("*"))
        if path.name != ".lock"
    }
