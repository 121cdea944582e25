"""DEST: whether it may be written at all, and what it was prepared with before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import TEMPORARY_SUFFIX, remove_stray_temporaries, write_text_atomically
from sharpstudent.tasks.deepfake.prepare.parts import PARTS
from sharpstudent.tasks.deepfake.prepare.settings import MANIFEST_SETTINGS

QUARANTINE, PREPARATION = "quarantine.csv", "preparation.json"
SHARDS = "shards"
MADE_BY = "prepare_faces.py"
_LOCK = ".lock"


def check_places(source: Path, dest: Path) -> None:
    """Raise UserError where source cannot be read, or where writing dest would touch what is not ours."""
    if not source.is_dir():
        what = "is a file where a folder is wanted" if source.exists() else "does not exist"
        remedy = "name the folder that the file lies in" if source.exists() else "check the path; is the disk mounted?"
        raise UserError.about(str(source), what, expected="a folder of photos, videos or a data set", remedy=remedy)
    if not os.access(source, os.R_OK | os.X_OK):
        raise UserError.about(str(source), "cannot be read", remedy="give yourself the right to read it")
    outer, inner = source.resolve(), dest.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        what = "lies in SOURCE: its crops would be found as photos by the next preparation"
        if outer != inner and outer.is_relative_to(inner):
            what = "holds SOURCE: what is prepared must lie beside it"
        raise UserError.about(str(dest), what, got=f"SOURCE {source}", remedy="name a folder outside SOURCE")
    above = next(path for path in (inner, *inner.parents) if path.exists())
    if not above.is_dir():
        raise UserError.about(str(above), "is a file where a folder is wanted", remedy="name another DEST")
    if dest.is_dir() and read_preparation(dest) is None:
        foreign = sorted(entry.name for entry in dest.iterdir() if not _is_of_a_start(entry.name))
        if foreign:
            raise UserError(_explain_foreign(dest, foreign))


def _is_of_a_start(name: str) -> bool:
    """What a preparation that was killed in its first moments leaves."""
    return name == _LOCK or (name.startswith(f".{PREPARATION}") and name.endswith(TEMPORARY_SUFFIX))


def _explain_foreign(dest: Path, names: list[str]) -> Problem:
    return Problem(
        str(dest),
        "holds something else",
        expected=f"an empty folder, a new one, or one that {MADE_BY} has made (with its {PREPARATION})",
        got=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        remedy="name another folder as DEST",
    )


def read_preparation(dest: Path) -> dict[str, Any] | None:
    """What `write_preparation` wrote; None where there is no such file of ours."""
    try:
        stored = json.loads((dest / PREPARATION).read_text(encoding="utf-8"))
        is_ours = isinstance(stored, dict) and stored.get("made_by") == MADE_BY
        return stored if is_ours and isinstance(stored["settings"], dict) else None
    except (OSError, ValueError, KeyError):
        return None


def write_preparation(dest: Path, settings: dict[str, Any], counts: dict[str, Any] | None) -> None:
    """Record what DEST is prepared with; counts: None until it is finished."""
    record = {"made_by": MADE_BY, "is_finished": counts is not None, "settings": settings, "counts": counts}
    if read_preparation(dest) != record:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        write_text_atomically(dest / PREPARATION, text + "\n")


def remove_strays(dest: Path) -> None:
    """What killed writers left; those of crops go when their clip is looked at."""
    for folder in (dest, dest / PARTS, dest / SHARDS):
        remove_stray_temporaries(folder)


def check_settings(dest: Path, settings: dict[str, Any], *, overwrite: bool, say: Callable[[str], None]) -> None:
    """Say what differs from what DEST was prepared with. Raises UserError where finished crops would be replaced."""
    before = (read_preparation(dest) or {"settings": settings})["settings"]
    names = [name for name in settings if before.get(name) != settings[name]]
    changed = [f"{name}: {_show(before.get(name))} -> {_show(settings[name])}" for name in names]
    has_crops = any((dest / PARTS).glob("*.arrow"))
    if not changed or not has_crops:
        return
    if not set(names) <= set(MANIFEST_SETTINGS) and not overwrite:
        raise UserError.about(
            str(dest),
            "was prepared with other settings",
            got="\n".join(("DEST -> now", *changed)),
            remedy="choose another DEST, or repeat the settings of DEST; --overwrite makes its crops anew",
        )
    say(f"changed since {dest} was prepared: {'; '.join(changed)}")


def _show(value: Any) -> str:
    return "from the folders" if value is None else json.dumps(value, ensure_ascii=False)


def check_gone(dest: Path, gone: list[Path], *, overwrite: bool) -> None:
    """Raise UserError where finished clips are no longer in SOURCE: a disk that is not mounted must cost nothing."""
    if gone and not overwrite:
        raise UserError.about(
            str(dest),
            f"holds {len(gone)} finished clip{'s' if len(gone) > 1 else ''} that SOURCE no longer has",
            got=", ".join(_name_clip(path) for path in gone[:5]) + (", ..." if len(gone) > 5 else ""),
            remedy="is a disk not mounted? Bring them back; or --overwrite removes their crops from DEST",
        )


def _name_clip(part: Path) -> str:
    from sharpstudent.tasks.deepfake.dataset.manifest import Manifest

    try:
        return str(Manifest.open(part).about.get("key", part.name))
    except UserError:
        return part.name
