"""Finds real photos by person: `ROOT/PERSON/*.jpg`, or a CSV file with the columns path and person.

The fakes come by self-blending. A CSV may have a column `split` with train, val or test; rows of test are never opened.
Otherwise `validation_share` of the people are held out. Faces are found once (YuNet, 468-point mesh) and kept as loose
crops under data/face_crops/.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sharpstudent.core.arguments import expand_path
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import read_plain
from sharpstudent.data.splits import choose_validation_identities
from sharpstudent.tasks.deepfake.layouts import listing
from sharpstudent.tasks.deepfake.sources.face import MOST_BYTES, PICTURE_SUFFIXES, Face, FaceSplits
from sharpstudent.tasks.deepfake.sources.face_crops import FaceCrops

SPLITS = ("train", "val", "test")
LAYOUT = "ROOT/PERSON/*.jpg, or a CSV file with the columns path and person (and split, if you like)"


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
    root: Path, *, image_size: int, validation_share: float, split_seed: int, allow_shared: bool
) -> FaceSplits:
    """Find the largest face of every photo.

    Args:
        root: A folder with one folder a person, or a CSV file.
        image_size: Side of the network's input that the crops are for [px].
        validation_share: The share of people held out for validation, where the CSV has no split.
        split_seed: Draws these people.
        allow_shared: Permit people and identical files that are in two splits.

    Returns:
        The faces, all real.

    Raises:
        UserError: If the layout is another one, people are in two splits, or a split has no usable face.
    """
    remedy = "set data_root to such a folder or file; `make demo` fetches portraits to try it with"
    left_out: dict[str, str] = {}
    photos = split_photos(read_photos(root, left_out.setdefault, remedy=remedy), validation_share, split_seed)
    if not allow_shared:
        _check_no_leak(root, photos)
    photos = [photo for photo in photos if photo.split != "test"]
    crops = FaceCrops(image_size=image_size)
    found = crops.prepare([photo.path for photo in photos])
    faces: dict[str, list[Face]] = {"train": [], "val": []}
    for photo in photos:
        if photo.path in found:
            face = Face(
                name=str(photo.path),
                clip_id=str(photo.path),
                identity=photo.person,
                label=0,
                load=found[photo.path].load,
            )
            faces[str(photo.split)].append(face)
    for split, members in faces.items():
        if not members:
            raise UserError(_explain_no_face(root, split, crops.rejected))
    notes = [
        f"{split}: {len(members)} faces of {len({face.identity for face in members})} people"
        for split, members in faces.items()
    ]
    left_out |= {str(path): reason for path, reason in crops.rejected.items()}
    notes += [*crops.notes, *(f"left out {path}: {reason}" for path, reason in left_out.items())]
    return FaceSplits(tuple(faces["train"]), tuple(faces["val"]), tuple(notes))


def read_photos(root: Path, reject: listing.Reject, *, remedy: str) -> list[Photo]:
    """Read which photos there are, and who is on them.

    Args:
        root: A CSV file, or a folder with one folder a person.
        reject: Takes each path in the folder that cannot be used, and why.
        remedy: What a user can do where there is neither.

    Returns:
        The photos.

    Raises:
        UserError: If there are no photos, or the CSV has another form.
    """
    if root.suffix.lower() == ".csv" and root.is_file():
        photos = _read_csv(root)
    else:
        people = listing.read_folder(root, any_name=True)
        for name, reason in people.odd:
            reject(str(root / name), reason)
        photos = [
            Photo(path, name)
            for name in people.folders
            for path in listing.walk_media(root / name, PICTURE_SUFFIXES, reject, any_name=True)
        ]
    if not photos:
        raise UserError.about(
            where=str(root).encode("utf-8", "backslashreplace").decode(),
            what="holds no photos by person" if root.exists() else "does not exist, or is neither a folder nor a CSV",
            expected=LAYOUT,
            remedy=remedy,
        )
    return photos


def _read_csv(path: Path) -> list[Photo]:
    """The photos of a CSV file. Raises UserError for a file of another form."""
    rows = listing.read_csv(path, columns=("path", "person"), optional=("split",), remedy="save it so, as UTF-8 CSV")
    return [_to_photo(path, line, row) for line, row in rows]


def _to_photo(csv_path: Path, line: int, row: dict[str, str]) -> Photo:
    if not row["path"] or not row["person"] or row["split"] not in ("", *SPLITS):
        raise UserError.about(
            where=f"{csv_path}, line {line}",
            what="is not a photo's row",
            expected=f"path, person and a split out of {', '.join(SPLITS)} (or none)",
            got=", ".join(f"{key}={value!r}" for key, value in row.items()),
            remedy="mend the line",
        )
    return Photo(csv_path.parent / expand_path(row["path"]), row["person"], row["split"] or None)


def split_photos(photos: list[Photo], share: float, seed: int) -> list[Photo]:
    """Keep a CSV's own split if every row has one, else hold out people.

    Args:
        photos: All with a split, or all without one.
        share: The share of the people that is held out for validation, 0..1.
        seed: Draws these people.

    Returns:
        The photos, each with a split.

    Raises:
        UserError: If some rows have a split and some have none.
    """
    if all(photo.split for photo in photos):
        return photos
    if any(photo.split for photo in photos):
        raise UserError.about(
            where="split",
            what="some rows have a split and some have none",
            expected="a split in every row, or in none",
            remedy="fill the column or empty it",
        )
    held_out = choose_validation_identities([photo.person for photo in photos], share=share, seed=seed)
    return [Photo(p.path, p.person, "val" if p.person in held_out else "train") for p in photos]


def _check_no_leak(root: Path, photos: Sequence[Photo]) -> None:
    """Check that no person and no file's bytes are in two splits; test files are not opened."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    files_of: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        splits_of[f"person {photo.person}"].add(str(photo.split))
        if photo.split == "test":
            continue
        with contextlib.suppress(OSError):  # what cannot be read is named when its face is looked for
            content = read_plain(photo.path, most_bytes=MOST_BYTES)
            key = f"file content {hashlib.sha256(content).hexdigest()[:12]}"
            splits_of[key].add(str(photo.split))
            files_of[key].add(str(photo.path))
    leaks = sorted(key for key, splits in splits_of.items() if len(splits) > 1)
    if leaks:
        shown = [f"{key} ({', '.join(sorted(files_of[key]))})" if key in files_of else key for key in leaks[:5]]
        raise UserError.about(
            where=str(root),
            what=f"{len(leaks)} people or identical files stand in two splits (training, validation, test)",
            got="; ".join(shown),
            remedy="give them one split (or one person folder); --allow shared-people trains all the same",
        )


def _explain_no_face(root: Path, split: str, rejected: dict[Path, str]) -> Problem:
    return Problem(
        where=f"{root} ({'training' if split == 'train' else 'validation'})",
        what="has no usable face",
        got="; ".join(f"{path}: {reason}" for path, reason in list(rejected.items())[:5]) or "no photos",
        remedy="give photos in which a face is at least 40 px wide",
    )
