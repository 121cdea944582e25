"""Checks a prepared set and reports its faults (`prepare_faces.py check`).

In a set without faults no split and no class is empty, no source set or compression gives the label away, no clip,
person or group is in two splits, and no clip has two labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sharpstudent.tasks.deepfake.dataset.duplicates import find_mixed
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS
from sharpstudent.tasks.deepfake.prepare.check_columns import (
    LABELS,
    UNUSED,
    Codes,
    Faces,
    Finding,
    Named,
    count_of,
    open_faces,
    yield_finding,
)
from sharpstudent.tasks.deepfake.prepare.check_copies import check_copies, check_crops, encode_content
from sharpstudent.tasks.deepfake.prepare.check_near import check_near
from sharpstudent.tasks.deepfake.prepare.describe_tables import show_sizes, show_splits

USED = SPLITS[:3]  # train, val, test


def check_balance(faces: Faces) -> Iterator[Finding | str]:
    """Find splits and classes without a face, and source sets and compressions that give the label away."""
    counts = np.zeros((len(SPLITS), len(LABELS)), np.int64)
    np.add.at(counts, (faces.split, faces.label), 1)
    by_split: dict[str, list[int]] = dict(zip(SPLITS, counts.tolist(), strict=True))
    lacking = [f"{split}: no face" for split in ("train", "val") if not sum(by_split[split])]
    is_for_testing = len(lacking) == 2 and sum(by_split["test"]) > 0
    if is_for_testing:
        yield "all faces are for testing: nothing can be trained with this set"
    else:
        what = count_of(len(lacking), "split that training needs is", "splits that training needs are") + " empty"
        remedy = "training needs faces in train and in val: add clips of more people, or raise the share of the split"
        yield from yield_finding(what, len(lacking), lacking, remedy)
        if not counts[:, 1].any():
            yield "all faces are real: the fakes must come by self-blending"
    yield from _find_lone_class(by_split, ("test",) if is_for_testing else USED)
    for column, kind in ((faces.source_set, "source set"), (faces.compression, "compression")):
        yield from _find_one_sided(faces, counts, column, kind)


def _find_lone_class(by_split: dict[str, list[int]], splits: tuple[str, ...]) -> Iterator[Finding]:
    """Find splits that have only fakes, or no fakes where the set has some."""
    has_fakes = any(fakes for _, fakes in by_split.values())
    lacking: list[str] = []
    for split in splits:
        real, fake = by_split[split]
        if fake and not real:
            lacking.append(f"{split}: {fake:,} fake, no real face")
        elif real and not fake and has_fakes:
            lacking.append(f"{split}: {real:,} real, no fake face")
    remedy = "neither training nor an AUC works with one class: add clips of the other one to this split"
    what = count_of(len(lacking), "split has", "splits have") + " faces of one class only"
    return yield_finding(what, len(lacking), lacking, remedy)


def _find_one_sided(faces: Faces, counts: np.ndarray, column: Named, kind: str) -> Iterator[Finding]:
    """Find source sets (or compressions) with one label only in a split that has both: they give the label away."""
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
    what = count_of(len(sided), f"{kind} has", f"{kind}s have") + " one label only in a split"
    remedy = (
        f"a network learns the {kind} instead of what a fake is: add faces of the other label from it, or leave it out"
    )
    return yield_finding(what, len(examples), examples, remedy)


def check_leaks(faces: Faces) -> Iterator[Finding]:
    """Find each leak once, at the smallest unit that explains it.

    A clip in two splits is named before its person, a person before the group. Clips with two labels follow.
    """
    left = faces.split != UNUSED
    layout = LAYOUTS.get(str(faces.find_setting("layout")))
    remedy = _OFFICIAL if layout is not None and layout.data_set else _REMEDY
    in_splits = [f"in {split}" for split in SPLITS]
    for one, many, codes, column in (
        ("clip", "clips", faces.clip, "clip_id"),
        ("person", "people", faces.person, "identity"),
        ("group of people who meet in a clip", "groups of people who meet in a clip", faces.group, "group"),
    ):
        shared = find_mixed(codes[left], faces.split[left])
        what = count_of(len(shared), f"{one} is", f"{many} are") + " in two splits"
        examples = (_show(faces, column, (codes == code) & left, faces.split, in_splits) for code in shared)
        yield from yield_finding(what, len(shared), examples, remedy)
        left &= ~np.isin(codes, shared)
    mixed = find_mixed(faces.clip, faces.label)
    what = count_of(len(mixed), "clip has", "clips have") + " faces of both labels"
    remedy = "a clip is real or fake as a whole: mend the folders or the list that the labels come from"
    examples = (_show(faces, "clip_id", faces.clip == code, faces.label, LABELS) for code in mixed)
    yield from yield_finding(what, len(mixed), examples, remedy)


_REMEDY = (
    "a score on people seen in training only tests memory: prepare the set again so that they get one split "
    "(prepare_faces.py does so by itself where it draws the splits), or leave them out of one"
)
_OFFICIAL = (
    "the data set's own lists say so, and they are kept: name them with every score, or leave these people out of one "
    "split; such a score is partly a test of memory"
)


def _show(faces: Faces, column: str, among: np.ndarray, kinds: Codes, words: Sequence[str]) -> str:
    """Name the value that the chosen rows share in a column, and count the rows of each kind."""
    rows = np.flatnonzero(among)
    counts = np.bincount(kinds[rows], minlength=len(words))
    where = ", ".join(f"{count:,} {word}" for count, word in zip(counts, words, strict=True) if count)
    return f"{getattr(faces.row(rows[0]), column)}: {where}"


def run_check(manifest_path: Path | str, *, say: Callable[[str], None], full: bool = False) -> bool:
    """Print what is in a set, then each fault once with its count, up to five examples and what to do.

    Args:
        manifest_path: The manifest's file, the folder that holds it, or the address of a set in a storage.
        say: Prints a line.
        full: Whether every crop is read even in a set of more than 20,000, and every pair with near hashes compared.

    Returns:
        True where there is no fault.

    Raises:
        UserError: If there is no usable manifest.
    """
    faces = open_faces(manifest_path)
    say(f"{faces.manifest.place}: {len(faces):,} faces")
    say(show_splits(faces))
    say(show_sizes(faces))
    faults = 0
    for found in _run_checks(faces, say, full):
        faults += isinstance(found, Finding)
        say(found.as_text() if isinstance(found, Finding) else f"note     {found}")
    say("nothing wrong was found" if not faults else f"{count_of(faults, 'problem was', 'problems were')} found")
    return not faults


def _run_checks(faces: Faces, say: Callable[[str], None], full: bool) -> Iterator[Finding | str]:
    """Yield the findings, and the notes, which are no faults."""
    yield from check_balance(faces)
    yield from check_leaks(faces)
    content = encode_content(faces)
    yield from check_copies(faces, content, full=full)
    say("looking for near copies ...")
    yield from check_near(faces, content, full=full)
    say("reading crops ...")
    yield from check_crops(faces, full=full)
