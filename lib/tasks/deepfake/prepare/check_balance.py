"""Whether training can use a set: no split or class is missing, no data set or compression tells the label."""

from __future__ import annotations

import numpy as np

from lib.data.manifest import SPLITS
from lib.tasks.deepfake.prepare.check_columns import LABELS, Faces, Named
from lib.tasks.deepfake.prepare.check_finding import Finding, Findings, count_of

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
