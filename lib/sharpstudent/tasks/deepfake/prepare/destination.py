"""Checks whether DEST may be written, and records the settings that it was prepared with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import read_json, read_plain
from sharpstudent.core.io import list_foreign, remove_stray_temporaries, write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.tasks.deepfake.layouts.clip import RawClip
from sharpstudent.tasks.deepfake.layouts.listing import TABLE_SUFFIXES
from sharpstudent.tasks.deepfake.prepare.parts import PARTS
from sharpstudent.tasks.deepfake.prepare.settings import MANIFEST_SETTINGS

QUARANTINE, PREPARATION = "quarantine.csv", "preparation.json"
COLUMNS = "columns.csv"  # further columns of the user's table, by clip, for --by of an evaluation
SHARDS = "shards"
MADE_BY = "prepare_faces.py"


def check_places(source: Path, dest: Path) -> None:
    """Check that the source can be read, and that writing the set touches nothing else.

    Args:
        source: The folder of photos, videos or a data set, or a table of files.
        dest: The folder for the set.

    Raises:
        UserError: If one of them cannot serve.
    """
    is_table = source.is_file() and source.name.lower().endswith(TABLE_SUFFIXES)
    if not source.is_dir() and not is_table:
        what = "is a file, not a folder or a table" if source.exists() else "does not exist"
        remedy = "name the folder that the file lies in" if source.exists() else "check the path; is the disk mounted?"
        expected = "a folder of photos, videos or a data set, or a .csv or .tsv table of files"
        raise UserError.about(str(source), what, expected=expected, remedy=remedy)
    if not os.access(source, os.R_OK if is_table else os.R_OK | os.X_OK):
        raise UserError.about(str(source), "cannot be read", remedy="give yourself the right to read it")
    outer, inner = source.resolve(), dest.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        what = "lies in SOURCE: its crops would be found as photos by the next preparation"
        if outer != inner and outer.is_relative_to(inner):
            what = "holds SOURCE: the prepared set must lie beside it"
        raise UserError.about(str(dest), what, got=f"SOURCE {source}", remedy="name a folder outside SOURCE")
    above = next(path for path in (inner, *inner.parents) if path.exists())
    if not above.is_dir():
        raise UserError.about(str(above), "is a file where a folder is wanted", remedy="name another DEST")
    if dest.is_dir() and read_preparation(dest) is None:
        foreign = list_foreign(dest)
        if foreign:
            raise UserError(_explain_foreign(dest, foreign))


def _explain_foreign(dest: Path, names: list[str]) -> Problem:
    return Problem(
        str(dest),
        "holds something else",
        expected=f"an empty folder, a new one, or one that {MADE_BY} has made (with its {PREPARATION})",
        got=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        remedy="name another folder as DEST",
    )


def read_preparation(dest: Path) -> dict[str, Any] | None:
    """Return what `write_preparation` wrote; None where there is no such file of this script."""
    try:
        stored = read_json(dest / PREPARATION)
        is_ours = isinstance(stored, dict) and stored.get("made_by") == MADE_BY
        return stored if is_ours and isinstance(stored["settings"], dict) else None
    except (OSError, ValueError, KeyError):
        return None


def write_preparation(dest: Path, settings: dict[str, Any], counts: dict[str, Any] | None) -> None:
    """Record what DEST is prepared with.

    Args:
        dest: The folder of the prepared set.
        settings: What decides the set.
        counts: What it holds; None until it is finished.
    """
    record = {"made_by": MADE_BY, "is_finished": counts is not None, "settings": settings, "counts": counts}
    if read_preparation(dest) != record:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        write_text_atomically(dest / PREPARATION, text + "\n")


def render_columns(clips: Sequence[RawClip]) -> str | None:
    """Render COLUMNS: a line for each clip of which the user's table says more than class, person and split.

    Args:
        clips: All clips of the set.

    Returns:
        CSV; None where no table says more.
    """
    rows = [{"clip": clip.key, "person": clip.identities[0], **dict(clip.columns)} for clip in clips if clip.columns]
    if not rows:
        return None
    heads = list(dict.fromkeys(name for row in rows for name in row))
    return format_csv([heads, *([row.get(name, "") for name in heads] for row in rows)])


def has_columns(dest: Path, text: str | None) -> bool:
    """Whether COLUMNS in a folder is as `render_columns` gives it."""
    path = dest / COLUMNS
    try:
        return not os.path.lexists(path) if text is None else read_plain(path) == text.encode("utf-8", "surrogatepass")
    except OSError:
        return False


def remove_strays(dest: Path) -> None:
    """Remove what killed writers left; leftovers of crops go when their clip is checked."""
    for folder in (dest, dest / PARTS, dest / SHARDS):
        remove_stray_temporaries(folder)


def check_settings(dest: Path, settings: dict[str, Any], *, overwrite: bool, say: Callable[[str], None]) -> None:
    """Print what differs from the settings that DEST was prepared with.

    Args:
        dest: The folder of the prepared set.
        settings: What decides the set now.
        overwrite: Finished crops may be replaced.
        say: Prints a line.

    Raises:
        UserError: If finished crops would be replaced without permission.
    """
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
    """Check that finished clips are still in SOURCE: a disk that is not mounted must cost nothing.

    Args:
        dest: The folder of the prepared set.
        gone: Parts of clips that SOURCE no longer has.
        overwrite: Their crops may be removed.

    Raises:
        UserError: If there are any, and no permission.
    """
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
