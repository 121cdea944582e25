"""Clips, people and groups in two splits, and clips with two labels."""

from __future__ import annotations

import numpy as np

from lib.data.duplicates import find_mixed
from lib.data.manifest import SPLITS, FaceRow
from lib.tasks.deepfake.layouts.registry import LAYOUTS
from lib.tasks.deepfake.prepare.check_columns import LABELS, UNUSED, Codes, Faces
from lib.tasks.deepfake.prepare.check_finding import EXAMPLES, Finding, Findings, count_of


def check_leaks(faces: Faces) -> Findings:
    """Each leak once, at the smallest thing that explains it: a clip before its person, a person before the group."""
    found: list[Finding] = []
    left = faces.split != UNUSED
    layout = LAYOUTS.get(str(faces.find_setting("layout")))
    is_official = layout is not None and layout.data_set
    for one, many, codes in (
        ("clip", "clips", faces.clip),
        ("person", "people", faces.person),
        ("group of people who meet in a clip", "groups of people who meet in a clip", faces.group),
    ):
        shared = find_mixed(codes[left], faces.split[left])
        if len(shared):
            what = count_of(len(shared), f"{one} is", f"{many} are") + " in two splits"
            examples = [_show(faces, one, codes, int(code), left) for code in shared[:EXAMPLES]]
            found.append(Finding(what, len(shared), examples, _OFFICIAL if is_official else _REMEDY))
        left &= ~np.isin(codes, shared)
    return Findings((*found, *_find_two_labels(faces)))


_REMEDY = (
    "a score on people seen in training is a test of memory: prepare the set again so that they get one split "
    "(prepare_faces.py does so by itself where it draws the splits), or leave them out of one"
)
_OFFICIAL = (
    "the data set's own lists say so, and they are kept: name them with every score, or leave these people out of one "
    "split; such a score is partly a test of memory"
)


def _show(faces: Faces, kind: str, codes: Codes, code: int, among: np.ndarray) -> str:
    rows = np.flatnonzero((codes == code) & among)
    counts = np.bincount(faces.split[rows], minlength=len(SPLITS))
    where = ", ".join(f"{count:,} in {split}" for split, count in zip(SPLITS, counts, strict=True) if count)
    return f"{_name(faces.row(rows[0]), kind)}: {where}"


def _name(row: FaceRow, kind: str) -> str:
    return {"clip": row.clip_id, "person": row.identity}.get(kind, row.group)


def _find_two_labels(faces: Faces) -> list[Finding]:
    mixed = find_mixed(faces.clip, faces.label)
    if not len(mixed):
        return []
    examples: list[str] = []
    for code in mixed[:EXAMPLES]:
        rows = np.flatnonzero(faces.clip == code)
        counts = np.bincount(faces.label[rows], minlength=2)
        shown = ", ".join(f"{count:,} {label}" for label, count in zip(LABELS, counts, strict=True))
        examples.append(f"{faces.row(rows[0]).clip_id}: {shown}")
    what = count_of(len(mixed), "clip has", "clips have") + " faces of both labels"
    remedy = "a clip is real or fake as a whole: mend the folders or the list that the labels come from"
    return [Finding(what, len(mixed), examples, remedy)]
