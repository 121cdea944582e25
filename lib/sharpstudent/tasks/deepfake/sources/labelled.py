"""Finds face crops that are labelled already, one folder a class, for plain classification without self-blending.

    ROOT/{real,fake}/...
    ROOT/{train,val}/{real,fake}/...

In the first form, people (or clips) are held out for validation by their subfolder, and files without one by
themselves. The second form has a split of the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.data.splits import choose_validation_identities
from sharpstudent.tasks.deepfake.layouts.listing import walk_media
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES, Face, FaceSplits, check_disjoint, load_picture

LABELS = {"real": 0, "fake": 1}
LAYOUT = "ROOT/real and ROOT/fake, or ROOT/train/{real,fake} and ROOT/val/{real,fake}"


def find_faces(root: Path, *, validation_share: float, split_seed: int, allow_shared: bool = False) -> FaceSplits:
    """Find every picture below the class folders.

    Args:
        root: The data set's folder.
        validation_share: The share of people held out for validation, where the folders have no split.
        split_seed: Draws these people.
        allow_shared: Permit people who are in both splits.

    Returns:
        The faces.

    Raises:
        UserError: If the layout is another one, a class is empty, or people are in both splits.
    """
    left_out: dict[str, str] = {}
    own_split = (root / "train").is_dir() or (root / "val").is_dir()
    if own_split:
        train, validation = (_find_in(root / name, left_out, prefix=f"{name}/") for name in ("train", "val"))
        if not allow_shared:
            check_disjoint(root, *([face.identity for face in faces] for faces in (train, validation)))
        held_out = "the folders train/ and val/"
    else:
        faces = _find_in(root, left_out)
        _check_both_classes(root, faces, "all")
        chosen = choose_validation_identities(
            [face.identity for face in faces], share=validation_share, seed=split_seed
        )
        train = [face for face in faces if face.identity not in chosen]
        validation = [face for face in faces if face.identity in chosen]
        held_out = (
            f"{len(chosen)} people or clips held out (validation_share {validation_share}, split_seed {split_seed})"
        )
    _check_both_classes(root, train, "training")
    _check_both_classes(root, validation, "validation")
    return FaceSplits(
        tuple(train),
        tuple(validation),
        (
            f"training: {_count(train)}; validation: {_count(validation)}; split by {held_out}",
            *(f"left out {path}: {reason}" for path, reason in left_out.items()),
        ),
    )


def _find_in(folder: Path, left_out: dict[str, str], *, prefix: str = "") -> list[Face]:
    missing = [str(folder / name) for name in LABELS if not (folder / name).is_dir()]
    if missing:
        there = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else []
        raise UserError.about(
            where=", ".join(missing),
            what="is missing: data_source labelled reads one folder a class",
            expected=LAYOUT,
            got=f"{folder} holds {', '.join(there)}" if there else f"{folder} is missing or empty",
            remedy="rename the class folders to real and fake, or set data_root; `make demo` needs no data",
        )
    return [
        _to_face(folder / name, path, label, prefix)
        for name, label in LABELS.items()
        for path in walk_media(folder / name, PICTURE_SUFFIXES, left_out.setdefault, any_name=True)
    ]


def _to_face(class_folder: Path, path: Path, label: int, prefix: str) -> Face:
    """Return the record of a picture.

    A subfolder is one person or clip, under both classes and splits alike; a file on its own stands for itself.
    """
    inside = path.relative_to(class_folder)
    group = inside.parts[0] if len(inside.parts) > 1 else f"{prefix}{class_folder.name}/{inside.stem}"
    return Face(name=str(path), clip_id=group, identity=group, label=label, load=partial(load_picture, path))


def _check_both_classes(root: Path, faces: Sequence[Face], split: str) -> None:
    absent = [name for name, label in LABELS.items() if not any(face.label == label for face in faces)]
    if absent:
        raise UserError.about(
            where=f"{root} ({split})",
            what=f"has no picture of the class {' and '.join(absent)}",
            expected="pictures of both classes in training and in validation",
            got=_count(faces),
            remedy=f"add pictures ({LAYOUT}), or choose another validation_share or split_seed",
        )


def _count(faces: Sequence[Face]) -> str:
    return ", ".join(f"{sum(face.label == label for face in faces)} {name}" for name, label in LABELS.items())
