"""The arguments of make_swaps.py, and the people whom it swaps: photos by person, all of one split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.tasks.deepfake.layouts.listing import Reject
from sharpstudent.tasks.deepfake.sources.photos import LAYOUT, SPLITS, Photo, read_photos, split_photos

ALL = "all"
CHOICES = (*SPLITS, ALL)
AFFINE = "affine"  # no swap: modalities/faces/blend_other.py
BLENDINGS = ("poisson", "feather", "hard", "multiband", AFFINE)  # the others: modalities/faces/swap/blend.py
LONGEST_NAME = 80  # characters
# Readable on every file system; two underscores stand between target and source in a fake's name.
_SAFE = re.compile(r"(?!.*__)[\w(][\w() ,.+-]*(?<![ .])", re.ASCII)


@dataclass(frozen=True)
class SwapRequest:
    """The arguments of make_swaps.py.

    Attributes:
        people: The folder ROOT of ROOT/PERSON/*.jpg, or a CSV file.
        dest: The folder that is written.
        per_face: How many fakes are made for each real face.
        seed: The seed of the choice of partners.
        split: The split whose people are swapped; `all` for everybody.
        image_size: The side of the pictures [px].
        picture: The format of the pictures, `png` or `jpg`.
        blending: How a face is blended in, one of BLENDINGS.
        validation_share: The share of people held out for validation where they come without a split, as for
            `data_source: photos`.
        split_seed: The seed that decides who is held out.
    """

    people: Path
    dest: Path
    per_face: int = 1
    seed: int = 0
    split: str = ALL
    image_size: int = 380
    picture: str = "png"
    blending: str = BLENDINGS[0]
    validation_share: float = 0.2
    split_seed: int = 0


def list_photos(request: SwapRequest, reject: Reject, say: Callable[[str], None]) -> list[Photo]:
    """List the photos of the wanted split, each with its split ("" where there is none).

    Args:
        request: The arguments of the command.
        reject: Takes each path that cannot be used, and why.
        say: Prints what was understood of the people's folder.

    Returns:
        The photos.

    Raises:
        UserError: For another layout, a split that is not there, a person in two splits, or fewer than two people.
    """
    remedy = f"name such a folder or file; `{advise_make('demo')}` fetches portraits to try it (data/demo/faces.csv)"
    photos, found = read_photos(request.people, remedy=remedy)
    for note in found.notes:
        say(note)
    for one in found.rejected:
        reject(one.source, one.reason)
    if request.split in ("train", "val"):
        photos = split_photos(photos, request.validation_share, request.split_seed)
    elif request.split == "test" and not any(photo.split for photo in photos):
        raise UserError.about(
            str(request.people),
            "has no split, so nobody is known to be test",
            got="--split test",
            remedy="give a CSV file with the column split, or choose val, train or all",
        )
    else:
        photos = [replace(photo, split=photo.split or "") for photo in photos]
    _check_one_split(request.people, photos)
    chosen = [photo for photo in photos if request.split in (ALL, photo.split)]
    people = sorted({photo.person for photo in chosen})
    if len(people) < 2:
        of_split = "" if request.split == ALL else f" of split {request.split}"
        raise UserError.about(
            str(request.people),
            f"has photos{of_split} of {format_count_of(len(people), 'person')}: a swap takes two",
            expected=LAYOUT,
            got=", ".join(people) or ", ".join(f"{n} of {s}" for s, n in Counter(p.split for p in photos).items()),
            remedy="add photos of other people, or choose another --split",
        )
    return chosen


def name_safely(names: Sequence[str]) -> dict[str, str]:
    """Choose a file name, without suffix, for each distinct name.

    It is the name itself where that is safe on every file system, else it is made readable and gets a part of its
    sha256.
    """
    distinct = sorted(set(names))
    clashes = Counter(name.casefold() for name in distinct)
    return {
        name: name
        if _SAFE.fullmatch(name) and len(name) <= LONGEST_NAME and clashes[name.casefold()] == 1
        else _rename(name)
        for name in distinct
    }


def _rename(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name)[: LONGEST_NAME - 9].strip("-")
    return f"{readable}-{digest}" if readable else digest


def _check_one_split(where: Path, photos: Sequence[Photo]) -> None:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        splits_of[photo.person].add(str(photo.split))
    shared = sorted(person for person, splits in splits_of.items() if len(splits) > 1)
    if shared:
        raise UserError.about(
            str(where),
            f"has {len(shared)} people in two splits: swaps of one would show faces of the other",
            got=", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""),
            remedy="give each person one split",
        )
