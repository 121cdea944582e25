"""`prepare_faces.py check`: what is wrong with a prepared set, and nothing that is not.

A set that training can use lacks no split and no class, and no data set or compression tells the label. No clip, person
or group is in two splits, and no clip has two labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sharpstudent.tasks.deepfake.dataset.duplicates import find_mixed
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS
from sharpstudent.tasks.deepfake.prepare.check_columns import (
    EXAMPLES,
    LABELS,
    UNUSED,
    Codes,
    Faces,
    Finding,
    Findings,
    Named,
    count_of,
    open_faces,
)
from sharpstudent.tasks.deepfake.prepare.check_copies import check_copies, check_crops, encode_content
from sharpstudent.tasks.deepfake.prepare.check_near import check_near
from sharpstudent.tasks.deepfake.prepare.describe_tables import show_sizes, show_splits

USED = SPLITS[:3]  # train, val, test


def check_balance(faces: Faces) -> Findings:
    counts = np.zeros((len(SPLITS), len(LABELS)), np.int64)
    np.add.at(counts, (faces.split, faces.label), 1)
    empty, notes = _find_empty(counts)
    one_sided = [*_find_one_sided(faces, counts, faces.source_set, "source set")]
    one_sided += _find_one_sided(faces, counts, faces.compression, "compression")
    return Findings((*empty, *one_sided), tuple(notes))


def _find_empty(counts: np.ndarray) -> tuple[list[Finding], list[str]]:
    """Splits and classes without a face. counts: int64 (4, 2), faces by split and label."""
    by_split: dict[str, list[int]] = {split: counts[number].tolist() for number, split in enumerate(SPLITS)}
    if sum(by_split["train"]) + sum(by_split["val"]) == 0 and sum(by_split["test"]):
        return _find_lone_class(by_split, ("test",)), [
            "all faces are for testing: nothing can be trained with this set"
        ]
    lacking = [f"{split}: no face" for split in ("train", "val") if not sum(by_split[split])]
    notes: list[str] = []
    found = _find_lone_class(by_split, USED)
    if not counts[:, 1].any():
        notes.append("all faces are real: the fakes must come by self-blending")
    if lacking:
        remedy = "training needs faces in train and in val: add clips of more people, or raise the share of the split"
        found.insert(
            0,
            Finding(
                f"{count_of(len(lacking), 'split that training needs is', 'splits that training needs are')} empty",
                1,
                lacking,
                remedy,
            ),
        )
    return found, notes


def _find_lone_class(by_split: dict[str, list[int]], splits: tuple[str, ...]) -> list[Finding]:
    """Splits that have only fakes, or no fakes where the set has some."""
    has_fakes = any(fakes for _, fakes in by_split.values())
    lacking: list[str] = []
    for split in splits:
        real, fake = by_split[split]
        if fake and not real:
            lacking.append(f"{split}: {fake:,} fake, no real face")
        elif real and not fake and has_fakes:
            lacking.append(f"{split}: {real:,} real, no fake face")
    if not lacking:
        return []
    remedy = "neither training nor an AUC works with one class: add clips of the other one to this split"
    what = count_of(len(lacking), "split has", "splits have") + " faces of one class only"
    return [Finding(what, len(lacking), lacking, remedy)]


def _find_one_sided(faces: Faces, counts: np.ndarray, column: Named, kind: str) -> list[Finding]:
    """Source sets (or compressions) with one label only in a split that has both: they tell the label."""
    table = np.zeros((len(SPLITS), len(column.names), len(LABELS)), np.int64)
    np.add.at(table, (faces.split, column.codes, faces.label), 1)
    examples: list[str] = []
    sided: set[int] = set()
    for split, name in np.argwhere((table > 0).sum(axis=2) == 1).tolist():
        if SPLITS[split] in USED and counts[split].all():
            label = int(table[split, name].argmax())
            sided.add(name)
            shown = column.names[name] or "(none)"
            examples.append(f"{SPLITS[split]}: {shown} has {table[split, name, label]:,} {LABELS[label]} faces only")
    if not examples:
        return []
    what = count_of(len(sided), f"{kind} has", f"{kind}s have") + " one label only in a split"
    remedy = (
        f"a network learns the {kind} instead of what a fake is: add faces of the other label from it, or leave it out"
    )
    return [Finding(what, len(examples), examples, remedy)]


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
