"""Make a folder of face swaps: real and fake pictures that differ in the swap alone, and swaps.csv.

It is deterministic: the same photos, settings and versions give the same bytes. What is finished is kept, so that a run
that was stopped resumes.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import compute_sha256, lock_folder, make_folder, write_bytes_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.blend_other import blend_other
from sharpstudent.modalities.faces.swap.swap import PointedFace, finish_swap, resize_crop
from sharpstudent.tasks.deepfake.sources.face_crops import DETECTOR_FILE, MESH_FILE, check_model_files, locate
from sharpstudent.tasks.deepfake.sources.photos import Photo
from sharpstudent.tasks.deepfake.swaps.faces import FaceFinder, FoundFace, PartnerChoice
from sharpstudent.tasks.deepfake.swaps.folder import (
    LABELS,
    LEFT_OUT,
    SwapRow,
    add_rows,
    check_places,
    open_folder,
    read_finished,
    write_left_out,
    write_table,
)
from sharpstudent.tasks.deepfake.swaps.people import AFFINE, BLENDINGS, SwapRequest, list_photos, name_safely

VERSION = "1"  # raise when the code would make other pictures of the same photos
JPEG_QUALITY = 95
REPORT_EVERY = 100  # faces between two lines of progress


@dataclass(frozen=True)
class SwapCounts:
    """Counts of what the folder holds.

    Attributes:
        real: The number of real pictures in the folder.
        fake: The number of fakes in the folder.
        people: The number of people whose photos they are.
        left_out: The number of photos without a swap.
    """

    real: int
    fake: int
    people: int
    left_out: int


def run_swaps(request: SwapRequest, say: Callable[[str], None]) -> SwapCounts:
    """Make what is missing in the folder.

    Args:
        request: The arguments of the command.
        say: Prints a line for the user.

    Returns:
        The counts.

    Raises:
        UserError: For what the user must correct.
    """
    rejected: dict[str, str] = {}
    photos = list_photos(request, rejected.setdefault, say)
    check_places(request.people, request.dest, [photo.path for photo in photos])
    check_model_files()
    finder = FaceFinder()
    faces = finder.find(photos, say)
    say(f"found a face to swap in {len(faces)} of {len(photos)} photos")
    make_folder(request.dest)
    lock = lock_folder(request.dest, say, doing="written")
    open_folder(request.dest, _describe(request, photos, finder.digests))
    left_out = {_name_file(request, Path(path)): reason for path, reason in rejected.items()}
    left_out |= {_name_file(request, path): reason for path, reason in finder.left_out.items()}
    rows = _make_all(request, _Names(request, photos), faces, left_out, say)
    write_table(request.dest, rows)
    write_left_out(request.dest, left_out)
    if lock is not None:
        lock.release()
    if not rows:
        raise UserError(_explain_nothing(request, left_out))
    real = sum(row.label == LABELS[0] for row in rows)
    return SwapCounts(real, len(rows) - real, len({row.target_person for row in rows}), len(left_out))


def _make_all(
    request: SwapRequest,
    names: _Names,
    faces: Sequence[FoundFace],
    left_out: dict[str, str],
    say: Callable[[str], None],
) -> list[SwapRow]:
    """Make the swaps of all faces; the rows come in the order of the photos, and left_out grows."""
    finished = read_finished(request.dest)
    write_table(request.dest, [row for own in finished.values() for row in own])
    by_split: dict[str, list[FoundFace]] = defaultdict(list)
    for face in faces:
        by_split[str(face.photo.split)].append(face)
    rows: list[SwapRow] = []
    done = 0
    for members in by_split.values():
        choice = PartnerChoice(members, request.image_size, request.seed)
        for index, face in enumerate(members):
            name = _name_file(request, face.photo.path)
            try:
                rows += finished.get(name) or _make_one(request, names, choice, index, face)
            except UnreadableSample as error:
                left_out[name] = error.reason
            done += 1
            if done % REPORT_EVERY == 0:
                say(f"{done} of {len(faces)} faces")
    return rows


def _make_one(
    request: SwapRequest, names: _Names, choice: PartnerChoice, index: int, target: FoundFace
) -> list[SwapRow]:
    """Write the fakes of one face, its real picture, and then their rows.

    Raises UnreadableSample where no face fits.
    """
    rows: list[SwapRow] = []
    crop = choice.crop(index)
    rng = build_generator(request.seed, 1, index)  # epoch 0 draws the partners
    for source, draft in choice.choose(index, request.per_face):
        if request.blending == AFFINE:
            image, method = _blend_two(target, crop.face, choice.crop_source(source).face, rng), AFFINE
        else:
            swap = finish_swap(draft, request.blending)
            image, method = swap.image, swap.method
        row = names.build_row(target.photo, source.photo, method)
        _write(request, row, resize_crop(image, crop.final_xyxy, request.image_size))
        rows.append(row)
    row = names.build_row(target.photo, None, "")
    _write(request, row, resize_crop(crop.face.image, crop.final_xyxy, request.image_size))
    rows.append(row)
    add_rows(request.dest, rows)
    return rows


def _blend_two(target: FoundFace, face: PointedFace, other: PointedFace, rng: np.random.Generator) -> NDArray[np.uint8]:
    try:
        return blend_other(face.image, face.landmarks, other.image, other.landmarks, rng)[1]
    except ValueError as error:
        raise UnreadableSample(str(target.photo.path), str(error)) from None


def _write(request: SwapRequest, row: SwapRow, picture: NDArray[np.uint8]) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if request.picture == "jpg" else []
    _, encoded = cv2.imencode(f".{request.picture}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    write_bytes_atomically(request.dest / row.file, encoded.tobytes())


class _Names:
    """The names of files and people in the folder."""

    def __init__(self, request: SwapRequest, photos: Sequence[Photo]) -> None:
        self._request = request
        self._people = name_safely([photo.person for photo in photos])
        self._stems: dict[Path, str] = {}
        by_person: dict[str, list[Path]] = defaultdict(list)
        for photo in photos:
            by_person[photo.person].append(photo.path)
        for paths in by_person.values():
            self._stems |= _name_stems(request, paths)

    def build_row(self, target: Photo, source: Photo | None, method: str) -> SwapRow:
        """Build a line of swaps.csv.

        Args:
            target: The photo that the picture is made of.
            source: The photo whose face is put in; None for the real picture.
            method: The blend, one of BLENDINGS; "" for the real picture.

        Returns:
            The row.
        """
        label = LABELS[source is not None]
        stem = self._stems[target.path] + (f"__{self._people[source.person]}" if source else "")
        return SwapRow(
            file=f"{label}/{self._people[target.person]}/{stem}.{self._request.picture}",
            label=label,
            split=str(target.split),
            source_person=source.person if source else "",
            target_person=target.person,
            source_file=_name_file(self._request, source.path) if source else "",
            target_file=_name_file(self._request, target.path),
            method=method,
            seed=self._request.seed,
        )


def _name_stems(request: SwapRequest, paths: Sequence[Path]) -> dict[Path, str]:
    """Name the file of each photo of one person.

    It is the photo's own name where no other photo has it, else a name made of its whole path.
    """
    stems = [path.stem.casefold() for path in paths]
    wanted = {
        path: path.stem if stems.count(stem) == 1 else _name_file(request, path)
        for path, stem in zip(paths, stems, strict=True)
    }
    safe = name_safely(list(wanted.values()))
    return {path: safe[name] for path, name in wanted.items()}


def _name_file(request: SwapRequest, path: Path) -> str:
    """Name a photo by its path below PEOPLE, with '/', as printable text: the same on every machine."""
    root = request.people if request.people.is_dir() else request.people.parent
    return printable(os.path.relpath(path, root)).replace(os.sep, "/")


def _describe(request: SwapRequest, photos: Sequence[Photo], digests: Mapping[Path, str]) -> dict[str, Any]:
    """Describe what decides the pictures, as plain JSON."""
    people = hashlib.sha256()
    for photo in photos:
        line = (_name_file(request, photo.path), printable(photo.person), photo.split, digests.get(photo.path))
        people.update(repr(line).encode())
    # A folder that was begun before there was a choice goes on.
    chosen = {} if request.blending == BLENDINGS[0] else {"blending": request.blending}
    return {
        **chosen,
        "version": VERSION,
        "opencv": cv2.__version__,
        "people_sha256": people.hexdigest(),
        "models_sha256": [compute_sha256(locate(one)) for one in (DETECTOR_FILE, MESH_FILE)],
        "per_face": request.per_face,
        "seed": request.seed,
        "split": request.split,
        "image_size": request.image_size,
        "picture": request.picture,
    }


def _explain_nothing(request: SwapRequest, left_out: Mapping[str, str]) -> Problem:
    return Problem(
        str(request.people),
        "gave no swap",
        got="\n".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]),
        remedy=f"give photos of at least two people, bare faces turned alike; all reasons: {request.dest / LEFT_OUT}",
    )
