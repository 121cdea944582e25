"""Finds real photos by person: `ROOT/PERSON/*.jpg`, any other form of a folder, or a table of files.

The fakes come by self-blending, so that fakes of the source are left out. Folders or a table may say the split; photos
of test are never opened. Otherwise `validation_share` of the people are held out. Faces are found once (YuNet,
468-point mesh) and kept as loose crops under data/face_crops/.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import Problem, UserError, format_count_of
from sharpstudent.core.naming import name_file
from sharpstudent.data.splits import choose_validation_identities
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.registry import find_pictures
from sharpstudent.tasks.deepfake.sources.face import (
    Face,
    FaceSplits,
    check_apart,
    keep_copies_together,
    leave_out_copies,
)
from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops

SPLITS = ("train", "val", "test")
LAYOUT = "ROOT/PERSON/*.jpg, or a table with the columns path and person (and split, if you like)"


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        path: Its file.
        person: Who it shows.
        split: "train", "val" or "test"; None where nothing says it.
    """

    path: Path
    person: str
    split: str | None = None


def find_faces(
    root: Path,
    *,
    image_size: int,
    validation_share: float,
    split_seed: int,
    allow_shared: bool,
    people: str | None = None,
) -> FaceSplits:
    """Find the largest face of every photo.

    Args:
        root: A folder with one folder a person, or a table of files.
        image_size: Side of the network's input that the crops are for [px].
        validation_share: The share of people held out for validation, where the source has no split.
        split_seed: Draws these people.
        allow_shared: Permit people and identical files that are in two splits.
        people: What one person is, `folders` or `files`; None for folders, unless one holds too much.

    Returns:
        The faces, all real.

    Raises:
        UserError: If the layout is another one, people are in two splits, or a split has no usable face.
    """
    remedy = f"set data_root to such a folder or file; `{advise_make('demo')}` fetches portraits to try it with"
    listed, about = read_photos(root, remedy=remedy, people=people)
    with about.told():
        photos = split_photos(listed, validation_share, split_seed)
    entries = [(photo.path, photo.person, str(photo.split), 0) for photo in photos]
    copies = check_apart(root, entries, allow_shared=allow_shared)
    left_out, copy_notes = leave_out_copies(copies, {photo.path: photo.split for photo in photos}, root)
    is_test = sum(photo.split == "test" for photo in photos)
    photos = [photo for photo in photos if photo.split != "test" and photo.path not in left_out]
    crops = FaceCrops(image_size=image_size)
    found = crops.prepare([photo.path for photo in photos])
    faces: dict[str, list[Face]] = {"train": [], "val": []}
    for photo in photos:
        if photo.path in found:
            name = name_file(photo.path, root)
            face = Face(
                name=name,
                clip_id=name,
                identity=photo.person,
                label=0,
                load=found[photo.path].load,
                load_points=found[photo.path].load_points,
            )
            faces[str(photo.split)].append(face)
    for split, members in faces.items():
        if not members:
            raise UserError(_explain_no_face(root, split, crops.rejected))
    notes = [*about.notes, *about.describe_rejected()]
    notes += [f"test: {is_test:,} photos, not opened"] if is_test else []
    notes += [
        f"{split}: {format_count_of(len(members), 'face')} of "
        f"{format_count_of(len({face.identity for face in members}), 'person')}"
        for split, members in faces.items()
    ]
    notes += [*copy_notes, *crops.notes, *(f"left out {path}: {reason}" for path, reason in crops.rejected.items())]
    return FaceSplits(tuple(faces["train"]), tuple(faces["val"]), tuple(notes))


def read_photos(root: Path, *, remedy: str, people: str | None = None) -> tuple[list[Photo], Found]:
    """Read which real photos there are, and who is on them.

    Args:
        root: A table of files, or a folder.
        remedy: What a user can do where there is neither.
        people: What one person is, `folders` or `files`; None for folders, unless one holds too much.

    Returns:
        The photos, and what was found: its notes say what was understood.

    Raises:
        UserError: If there are no photos, or class, split or person of one can be meant in two ways.
    """
    if not root.exists():
        raise UserError.about(str(root), "does not exist", expected=LAYOUT, remedy=remedy)
    found = find_pictures(root, source="data_source photos", form=LAYOUT, remedy=remedy, people=people)
    photos = [Photo(file, clip.identities[0], clip.split) for clip, file in found.list_in_order() if not clip.label]
    if not photos:
        what = "holds fakes only, and data_source photos reads real faces"
        raise UserError.about(str(root), what, expected=LAYOUT, remedy=remedy)
    fakes = len(found.clips) - len(photos)
    notes = [f"{fakes:,} fakes are not read: photos blends its own"] if fakes else []
    return photos, found.with_notes(*notes)


def split_photos(photos: list[Photo], share: float, seed: int) -> list[Photo]:
    """Keep the source's own split where it has a part for validation, else hold out people of those to train on.

    People who have a picture in common, to the last byte, stay together.

    Args:
        photos: All with a split, or all without one.
        share: The share of the people that is held out for validation, 0..1.
        seed: Draws these people.

    Returns:
        The photos, each with a split.

    Raises:
        UserError: If there are fewer than two people to draw from.
    """
    if any(photo.split == "val" for photo in photos):
        return photos
    free = [photo for photo in photos if photo.split != "test"]
    if not free:
        got = f"{len(photos):,} photos of test"
        remedy = "give photos of other splits, too"
        raise UserError.about("training", "has no photo to train on, and none to validate with", got=got, remedy=remedy)
    drawn = choose_validation_identities([photo.person for photo in free], share=share, seed=seed)
    held_out = keep_copies_together(drawn, [(photo.path, photo.person) for photo in free])
    return [
        photo if photo.split == "test" else replace(photo, split="val" if photo.person in held_out else "train")
        for photo in photos
    ]


def _explain_no_face(root: Path, split: str, rejected: dict[Path, str]) -> Problem:
    return Problem(
        where=f"{root} ({'training' if split == 'train' else 'validation'})",
        what="has no usable face",
        got="; ".join(f"{path}: {reason}" for path, reason in list(rejected.items())[:5]) or "no photos",
        remedy="give photos in which a face is at least 40 px wide",
    )
