"""Packs crops into shards when a set is finished, and unpacks them before it is changed.

At every instant the crops are whole in one form: loose files go only when a finished set names the shards, and shards
go only when all that they hold is loose again.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.io import disk_errors_as_user_errors, make_folder
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, FaceRow, Manifest
from sharpstudent.tasks.deepfake.dataset.shards import MAX_CROP_BYTES, write_shard
from sharpstudent.tasks.deepfake.prepare.destination import SHARDS
from sharpstudent.tasks.deepfake.prepare.parts import CROPS, clear_other_crops, name_crop, write_crops

SHARD_BYTES, SHARD_MEMBERS = 256 * 2**20, 10_000


def name_shard(number: int) -> str:
    """Return the path of a shard below DEST."""
    return f"{SHARDS}/{number:06d}.tar"


class Packer:
    """Writes crops to shards in the order of their rows.

    Attributes:
        shards: How many it has written.
    """

    def __init__(self, dest: Path) -> None:
        self._dest = dest
        self.shards = 0

    def pack(self, rows: Iterable[FaceRow]) -> Iterator[FaceRow]:
        """Yield the same rows in the same order with their places in the shards, each once its shard is written."""
        remove(self._dest / MANIFEST)  # an older one may name these very shards, with other offsets
        make_folder(self._dest / SHARDS)
        for some in _fill_shards(rows):
            name = name_shard(self.shards)
            members = ((row.path.removeprefix(f"{CROPS}/"), _read(self._dest, row)) for row in some)
            places = write_shard(self._dest / name, members)
            self.shards += 1
            yield from (replace(row, path=name, offset=at) for row, (at, _) in zip(some, places, strict=True))


def _fill_shards(rows: Iterable[FaceRow]) -> Iterator[list[FaceRow]]:
    """Yield the rows of one shard after the other."""
    waiting: list[FaceRow] = []
    size = 0
    for row in rows:
        if waiting and (size + row.size > SHARD_BYTES or len(waiting) == SHARD_MEMBERS):
            yield waiting
            waiting, size = [], 0
        waiting.append(row)
        size += row.size
    if waiting:
        yield waiting


def _read(dest: Path, row: FaceRow) -> bytes:
    try:
        content = read_plain(dest / row.path, most_bytes=MAX_CROP_BYTES)
    except OSError as error:
        remedy = "make the file readable, or delete it and repeat the command: its clip is cropped again"
        raise UserError.about(str(dest / row.path), f"cannot be read: {explain(error)}", remedy=remedy) from None
    if len(content) != row.size or zlib.crc32(content) != row.crc32:
        raise UserError.about(
            str(dest / row.path),
            "has other bytes than were written: the disk lost them, or somebody changed the file",
            remedy="delete this file and repeat the command: its clip is cropped again",
        )
    return content


def remove_loose(dest: Path) -> None:
    """Remove the loose files that the shards were packed from."""
    if (dest / CROPS).is_dir():
        clear_other_crops(dest, frozenset())


def remove_other_shards(dest: Path, keep: int) -> None:
    """Remove the shards of a set that was larger before, and their folder when it is empty.

    Args:
        dest: The folder of the prepared set.
        keep: How many shards the set has now.
    """
    wanted = {Path(name_shard(number)).name for number in range(keep)}
    for path in (dest / SHARDS).glob("[0-9]*.tar"):
        if path.name not in wanted:
            remove(path)
    with contextlib.suppress(OSError):
        (dest / SHARDS).rmdir()


def unpack(dest: Path, picture: str, say: Callable[[str], None]) -> None:
    """Write the crops of a finished packed set as loose files again.

    A crop that is broken in its shard is left out: its clip is then cropped again.

    Args:
        dest: The folder of the prepared set.
        picture: How crops are stored, "png" or "jpg".
        say: Prints a line.

    Raises:
        UserError: If the disk refuses; the shards are still there then.
    """
    manifest = _open_if_packed(dest)
    if manifest is None:
        return
    say(f"unpacking {len(manifest):,} crops from {dest / SHARDS}: the set is about to change")
    for _, rows in groupby(manifest, key=lambda row: row.clip_id):
        contents: dict[str, bytes] = {}
        for row in rows:
            with contextlib.suppress(UnreadableSample):
                name = name_crop(row.clip_id, row.frame_index, row.face_index, picture)
                contents[name] = manifest.read_crop_of(row)
        write_crops(dest, contents)


def _open_if_packed(dest: Path) -> Manifest | None:
    if not (dest / MANIFEST).is_file():
        return None
    try:
        manifest = Manifest.open(dest / MANIFEST)
    except UserError:
        return None  # a broken manifest names no crop: those in its shards are made again
    return manifest if len(manifest) and manifest.face(0).path.startswith(f"{SHARDS}/") else None


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises UserError where the disk refuses."""
    with disk_errors_as_user_errors(path):
        path.unlink(missing_ok=True)
