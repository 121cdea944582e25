"""Writes and reads finished clips: the crops of each, and its part, a file with its rows, which is written last.

A clip without a part is not finished.

    DEST/crops/KEY/FFFFFF_N.png       frame number and face number
    DEST/parts/SHA256-OF-KEY.arrow    the rows of the clip, what was rejected, and the fingerprint of all that made them
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import (
    TEMPORARY_SUFFIX,
    disk_errors_as_user_errors,
    make_folder,
    sync_to_disk,
    write_bytes_atomically,
)
from sharpstudent.core.naming import printable
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import FaceRow, Manifest, write_manifest
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings

CROPS, PARTS = "crops", "parts"
FORMAT = 1  # raise when a part of the same crops would now differ: all are then made anew
SYNC_THREADS = 8  # the disk commits what is waiting together: 32 crops of 1 MB in 40 ms, one after the other in 160 ms
_CROP_NAME = re.compile(rf"\d{{6,}}_\d+\.(png|jpg)|\..*{re.escape(TEMPORARY_SUFFIX)}")


@dataclass(frozen=True, kw_only=True)
class FaceCrop(FaceRow):
    """One crop: its row, as far as it is known, and the picture file's bytes."""

    content: bytes


@dataclass(frozen=True)
class ClipCrops:
    """The crops of one clip.

    Attributes:
        faces: Its crops, by frame and person.
        rejected: The file, or frames of it, without a usable face.
        frames_read: How many frames were read.
        frames_with_face: In how many of them a face was found.
        bystanders: How many more faces than one a frame shows at most, where nothing tells which of them would be the
            manipulated one; 0 where a mask does.
    """

    faces: tuple[FaceCrop, ...]
    rejected: tuple[Rejected, ...]
    frames_read: int
    frames_with_face: int
    bystanders: int = 0


@dataclass(frozen=True)
class Part:
    """The facts about a finished clip that its rows do not hold.

    label and the fields after it are as in `FaceRow`, for a clip without any face has no row. Parts that an older
    version wrote have None and "" there.

    Attributes:
        key: The key of the clip.
        fingerprint: Identifies all that decided its crops.
        frames_read: How many frames were read.
        frames_with_face: In how many of them a face was found.
        rejected: The file, or frames of it, without a usable face.
        broken: How its worker was lost ("crashed", "too slow", "failed"), else None.
        clip_timeout: The time limit that the clip exceeded [s]; None where it exceeded none.
        label: Real 0, fake 1.
        identity: The person whose face is seen.
        source_set: The data set's name.
        manipulation: The method that made the fake.
        bystanders: As in `ClipCrops`; None in parts that an older version wrote.
    """

    key: str
    fingerprint: str
    frames_read: int
    frames_with_face: int
    rejected: tuple[Rejected, ...]
    broken: str | None = None
    clip_timeout: float | None = None
    label: int | None = None
    identity: str = ""
    source_set: str = ""
    manipulation: str = ""
    bystanders: int | None = None

    def with_clip(self, clip: RawClip) -> Part:
        """Return the same part with what the source says of the clip now."""
        return replace(
            self,
            label=clip.label,
            identity=clip.identities[0],
            source_set=clip.source_set,
            manipulation=clip.manipulation,
        )


def find_part_file(dest: Path, key: str) -> Path:
    """Return the path of a clip's part.

    Args:
        dest: The folder of the prepared set.
        key: The key of the clip.

    Returns:
        The path.
    """
    return dest / PARTS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"


def name_crop(key: str, frame_index: int, face_index: int, picture: str) -> str:
    """Return a crop's path below DEST.

    Args:
        key: The key of the clip.
        frame_index: The frame's number.
        face_index: The person's number.
        picture: "png" or "jpg".

    Returns:
        The path, with '/' between its parts.
    """
    return f"{CROPS}/{key}/{frame_index:06d}_{face_index}.{picture}"


def compute_fingerprint(clip: RawClip, settings: CropSettings, root: Path, *, version: str) -> str:
    """Compute a digest of all that decides a clip's crops.

    These are the settings, the cropper's version, and the clip's files by name, size and time of change.

    Args:
        clip: The clip.
        settings: How faces are cropped.
        root: SOURCE, whose path must not matter.
        version: The version of the cropper.

    Returns:
        Hexadecimal sha256.
    """
    files = [path for path in (clip.file, clip.mask) if path is not None]
    for frame in clip.frames:
        files += [path for path in (frame.picture, frame.landmarks, frame.boxes, frame.mask) if path is not None]
    frames = [(f.index, f.landmarks is None, f.boxes is None, f.mask is None) for f in clip.frames]
    plain = [FORMAT, version, asdict(settings), clip.kind, frames, [_describe_file(path, root) for path in files]]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _describe_file(path: Path, root: Path) -> list[Any]:
    name = hide_root(str(path), root)
    try:
        about = path.stat()
    except OSError:
        return [name]
    return [name, about.st_size, about.st_mtime_ns]


def hide_root(text: str, root: Path) -> str:
    """Remove the folder that the source lies in from a path, or from a reason with paths in it.

    Args:
        text: The path or reason.
        root: SOURCE.

    Returns:
        The text, printable on one line.
    """
    return printable(text.replace(f"{root}{os.sep}", ""))


def write_clip(dest: Path, clip: RawClip, part: Part, crops: ClipCrops, settings: CropSettings, root: Path) -> None:
    """Write a clip's crops, then its part.

    Args:
        dest: The folder of the prepared set.
        clip: The clip.
        part: The facts about the clip that its rows do not hold.
        crops: The crops of the clip.
        settings: The settings that the crops were made with.
        root: SOURCE, whose path no output may contain.

    Raises:
        UserError: If the disk refuses; the clip then stays unfinished.
    """
    clear_crops(dest, clip.key)
    faces = sorted(crops.faces, key=lambda face: (face.frame_index, face.face_index))
    rows = [_build_row(clip, face, settings, root) for face in faces]
    write_crops(dest, {row.path: row.content for row in rows})
    write_manifest(find_part_file(dest, clip.key), rows, _describe_part(part), is_part=True)


def write_broken_part(dest: Path, part: Part) -> None:
    """Record a clip whose worker was lost: it gives nothing, and is tried again on request only.

    Args:
        dest: The folder of the prepared set.
        part: The part to write.
    """
    clear_crops(dest, part.key)
    write_manifest(find_part_file(dest, part.key), (), _describe_part(part), is_part=True)


def write_carried(dest: Path, key: str, files: Mapping[str, bytes]) -> None:
    """Write a clip that another machine has cropped: its crops, then its part.

    Args:
        dest: The folder of the prepared set.
        key: The key of the clip.
        files: Bytes by path below `dest`.

    Raises:
        UserError: If the disk refuses; the clip then stays unfinished.
    """
    part = find_part_file(dest, key)
    name = part.relative_to(dest).as_posix()
    clear_crops(dest, key)
    write_crops(dest, {path: content for path, content in files.items() if path != name})
    write_bytes_atomically(part, files[name])


def _describe_part(part: Part) -> dict[str, Any]:
    return asdict(part) | {"rejected": [[one.source, one.reason, one.frame] for one in part.rejected]}


def _build_row(clip: RawClip, face: FaceCrop, settings: CropSettings, root: Path) -> FaceCrop:
    """Build the row of a crop; its split and group follow when the whole set is known."""
    return replace(
        face,
        path=name_crop(clip.key, face.frame_index, face.face_index, settings.picture),
        size=len(face.content),
        crc32=zlib.crc32(face.content),
        label=clip.label,
        clip_id=clip.key,
        # A bystander has no name.
        identity=f"{clip.key}#{face.face_index}" if face.face_index else clip.identities[0],
        source_set=clip.source_set,
        manipulation=clip.manipulation,
        compression=clip.compression,
        source=hide_root(face.source, root),
    )


def write_crops(dest: Path, contents: Mapping[str, bytes]) -> None:
    """Write all crops whole and to the disk.

    Args:
        dest: The folder of the prepared set.
        contents: Path below DEST and bytes of each.

    Raises:
        UserError: If the disk refuses.
    """
    paths = [dest / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        make_folder(path.parent)
        with disk_errors_as_user_errors(path):
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
    if paths:
        with disk_errors_as_user_errors(paths[0].parent), ThreadPoolExecutor(min(SYNC_THREADS, len(paths))) as threads:
            list(threads.map(sync_to_disk, [*paths, paths[0].parent]))


def list_crops(dest: Path, key: str) -> dict[str, int]:
    """List the crops of one clip that are there, and temporary files of killed writers.

    Args:
        dest: The folder of the prepared set.
        key: The key of the clip.

    Returns:
        Path below DEST and size of each [bytes].
    """
    folder = dest / CROPS / key
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return {
            f"{CROPS}/{key}/{entry.name}": entry.stat(follow_symlinks=False).st_size
            for entry in entries
            if _CROP_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        }
    return {}


def clear_crops(dest: Path, key: str, keep: Mapping[str, int] | None = None) -> None:
    """Remove a clip's crops, then the folders that are empty.

    Args:
        dest: The folder of the prepared set.
        key: The key of the clip.
        keep: Paths below DEST that stay.
    """
    folder = dest / CROPS / key
    with disk_errors_as_user_errors(folder):
        for name in list_crops(dest, key).keys() - (keep or {}).keys():
            (dest / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        while folder != dest:
            folder.rmdir()
            folder = folder.parent


def clear_other_crops(dest: Path, keys: frozenset[str]) -> None:
    """Remove the crops of all clips but these.

    Args:
        dest: The folder of the prepared set.
        keys: The clips that stay.
    """
    for folder, _, files in os.walk(dest / CROPS, topdown=False):
        key = Path(folder).relative_to(dest / CROPS).as_posix()
        if key not in keys and (not files or any(map(_CROP_NAME.fullmatch, files))):
            clear_crops(dest, key)


def read_part(path: Path) -> tuple[Manifest, Part]:
    """Read the rows of a part, and what it says beside them. Raises UnreadableSample where it cannot."""
    if not path.is_file():
        raise UnreadableSample(str(path), "is not there")
    try:
        rows = Manifest.open(path)
        about = dict(rows.about)
        rejected = tuple(Rejected(*fields) for fields in about.pop("rejected"))
        return rows, Part(**about, rejected=rejected)
    except (UserError, KeyError, TypeError) as error:
        raise UnreadableSample(str(path), f"is not a part ({error})") from None


class StoredPart:
    """A part as it is on disk.

    Attributes:
        rows: The clip's rows.
        about: The facts about the clip that the rows do not hold.
    """

    def __init__(self, dest: Path, key: str) -> None:
        """Read a part.

        Args:
            dest: The folder of the prepared set.
            key: The key of the clip.

        Raises:
            UnreadableSample: If there is none, or none that can be read.
        """
        path = find_part_file(dest, key)
        self.rows, self.about = read_part(path)
        if self.about.key != key:
            raise UnreadableSample(str(path), f"is of the clip {self.about.key}")

    def has_its_crops(self, dest: Path) -> bool:
        """Return whether all crops of the part are there in their sizes.

        Other crops of the clip are removed.
        """
        wanted = {row.path: row.size for row in self.rows}
        found = list_crops(dest, self.about.key)
        if found.keys() - wanted.keys():
            clear_crops(dest, self.about.key, keep=wanted)
        return all(found.get(name) == size for name, size in wanted.items())

    def update_clip(self, dest: Path, clip: RawClip) -> None:
        """Write the part anew where the source describes the clip differently now; no crop is made again.

        Args:
            dest: The folder of the prepared set.
            clip: The clip as the source has it.
        """
        updated = self.about.with_clip(clip)
        if updated != self.about:
            write_manifest(find_part_file(dest, clip.key), list(self.rows), _describe_part(updated), is_part=True)
