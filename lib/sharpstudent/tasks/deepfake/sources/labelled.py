"""Finds face crops that are labelled already, for plain classification without self-blending.

    ROOT/{real,fake}/...
    ROOT/{train,val}/{real,fake}/...

Any other form of a folder or table that gives the classes will do. Where no split comes with it, people or clips are
held out for validation by their subfolder, and files without one by themselves. Pictures of test are never opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import UserError
from sharpstudent.core.naming import name_file
from sharpstudent.data.splits import choose_validation_identities
from sharpstudent.tasks.deepfake.layouts.clip import RawClip
from sharpstudent.tasks.deepfake.layouts.names import CLASSES
from sharpstudent.tasks.deepfake.layouts.registry import find_pictures
from sharpstudent.tasks.deepfake.sources.face import (
    Face,
    FaceSplits,
    check_apart,
    keep_copies_together,
    leave_out_copies,
    load_picture,
)

LAYOUT = "ROOT/real and ROOT/fake, ROOT/train/{real,fake} and ROOT/val/{real,fake}, or a table with path and label"


def find_faces(
    root: Path, *, validation_share: float, split_seed: int, allow_shared: bool = False, people: str | None = None
) -> FaceSplits:
    """Find every picture of both classes.

    Args:
        root: The folder, or a table of files.
        validation_share: The share of people held out for validation, where the source has no such part.
        split_seed: Draws these people.
        allow_shared: Permit people and identical files that are in two splits.
        people: What one person is, `folders` or `files`; None for folders, unless one holds too much.

    Returns:
        The faces.

    Raises:
        UserError: If nothing says the classes, a class is empty, people or identical files are in both splits, or a
            picture is under both labels.
    """
    remedy = f"set data_root to such a folder or table; `{advise_make('demo')}` needs no data"
    if not root.exists():
        raise UserError.about(str(root), "does not exist", expected=LAYOUT, remedy=remedy)
    found = find_pictures(root, source="data_source labelled", form=LAYOUT, remedy=remedy, people=people)
    if not found.says_labels:
        there = sorted({Path(clip.key).parts[0] for clip in found.clips})[:8]
        raise UserError.about(
            str(root),
            "does not say what is real and what is fake",
            expected=LAYOUT,
            got=", ".join(there),
            remedy="call the folders of the classes real and fake",
        )
    pictures = sorted(found.list_in_order(), key=lambda pair: pair[0].label)
    faces = [(_to_face(clip, file, root, found.root), clip.split) for clip, file in pictures]
    _check_both_classes(root, [face for face, _ in faces], "all")
    splits = [split for _, split in faces]
    if "val" in splits:
        held_out = "the folders or the table"
    else:
        free = {
            file: face.identity for (face, split), (_, file) in zip(faces, pictures, strict=True) if split != "test"
        }
        with found.told():
            drawn = choose_validation_identities(list(free.values()), share=validation_share, seed=split_seed)
        chosen = keep_copies_together(drawn, free.items())
        splits = [split if split == "test" else "val" if face.identity in chosen else "train" for face, split in faces]
        held_out = (
            f"{len(chosen)} people or clips held out (validation_share {validation_share}, split_seed {split_seed})"
        )
    entries = [
        (file, face.identity, str(split), face.label)
        for (face, _), split, (_, file) in zip(faces, splits, pictures, strict=True)
    ]
    split_of = {
        file: split for (clip, file), split in zip(pictures, splits, strict=True) if not clip.read_film(found.root)
    }
    copies = check_apart(root, entries, allow_shared=allow_shared)
    left_out, copy_notes = leave_out_copies(copies, split_of, root)
    train, validation, test = (
        [
            face
            for (face, _), (file, _, split, _) in zip(faces, entries, strict=True)
            if split == name and file not in left_out
        ]
        for name in ("train", "val", "test")
    )
    _check_both_classes(root, train, "training")
    _check_both_classes(root, validation, "validation")
    line = f"training: {_count(train)}; validation: {_count(validation)}; split by {held_out}"
    not_opened = [f"test: {_count(test)}, not opened"] if test else []
    notes = (line, *not_opened, *copy_notes, *found.notes, *found.describe_rejected())
    kinds = {
        clip.manipulation for (clip, _), split in zip(pictures, splits, strict=True) if split == "train" and clip.label
    }
    return FaceSplits(tuple(train), tuple(validation), notes, kinds=tuple(sorted(kinds)))


def _to_face(clip: RawClip, file: Path, root: Path, top: Path) -> Face:
    """Return the record of a picture, which is a clip of its own unless its name makes it the frame of one."""
    return Face(
        name=name_file(file, root),
        clip_id=clip.read_film(top) or clip.key,
        identity=clip.identities[0],
        label=clip.label,
        load=partial(load_picture, file),
    )


def _check_both_classes(root: Path, faces: Sequence[Face], split: str) -> None:
    absent = [name for label, name in enumerate(CLASSES) if not any(face.label == label for face in faces)]
    if absent:
        raise UserError.about(
            where=f"{root} ({split})",
            what=f"has no picture of the class {' and '.join(absent)}",
            expected="pictures of both classes in training and in validation",
            got=_count(faces),
            remedy=f"add pictures ({LAYOUT}), or choose another validation_share or split_seed",
        )


def _count(faces: Sequence[Face]) -> str:
    return ", ".join(f"{sum(face.label == label for face in faces)} {name}" for label, name in enumerate(CLASSES))
