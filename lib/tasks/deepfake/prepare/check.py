"""`prepare_faces.py check`: what is wrong with a prepared set, and nothing that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lib.tasks.deepfake.prepare.check_balance import check_balance
from lib.tasks.deepfake.prepare.check_columns import Faces, open_faces
from lib.tasks.deepfake.prepare.check_copies import check_copies, encode_content
from lib.tasks.deepfake.prepare.check_crops import check_crops
from lib.tasks.deepfake.prepare.check_finding import Findings, count_of
from lib.tasks.deepfake.prepare.check_leaks import check_leaks
from lib.tasks.deepfake.prepare.check_near import check_near
from lib.tasks.deepfake.prepare.describe_tables import show_sizes, show_splits


def run_check(manifest_path: Path, *, say: Callable[[str], None], full: bool = False) -> bool:
    """Say what is in a set, then each fault once with its count, up to five examples and what to do. True: no fault.

    manifest_path: the file, or the folder that holds it; full: read every crop of a set of more than 20,000 and look
    at every pair with near hashes. Raises UserError where there is no usable manifest.
    """
    faces = open_faces(manifest_path)
    say(f"{faces.manifest.path}: {len(faces):,} faces")
    say(show_splits(faces))
    say(show_sizes(faces))
    faults = 0
    for found in _look(faces, say, full):
        for note in found.notes:
            say(f"note     {note}")
        for fault in found.faults:
            faults += 1
            say(fault.as_text())
    say("nothing wrong was found" if not faults else f"{count_of(faults, 'problem was', 'problems were')} found")
    return not faults


def _look(faces: Faces, say: Callable[[str], None], full: bool) -> Iterator[Findings]:
    yield check_balance(faces)
    yield check_leaks(faces)
    content = encode_content(faces)
    yield check_copies(faces, content, full=full)
    say("looking for near copies ...")
    yield check_near(faces, content, full=full)
    say("reading crops ...")
    yield check_crops(faces, full=full)
