"""Writes and checks shards, which are plain tar files of crops as WebDataset expects them, and reads single crops.

A crop lies in a shard as the bytes of its picture file, so that an offset and a size are enough to read it without the
tar around it. The same members give the same bytes of a shard: no times, no owners.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import atomic_path

SHARD_SUFFIX = ".tar"
MAX_CROP_BYTES = 128 * 2**20  # a crop for the largest network, 2048 px, is some 60 MB
MAX_HEADER_BYTES = 8192  # a path has 4096 at most; tarfile takes quadratic time over long ones
BLOCK = 512  # tar's unit [bytes]
_NAME = re.compile(
    r"(?:.*/)?[^./][^./]*\.[^./]+"
)  # WebDataset takes what follows the first dot for the kind of content


class BrokenCrop(Exception):
    """Raised where the bytes of a crop are missing or differ from what was written; its text says which."""


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> list[tuple[int, int]]:
    """Write a tar of crops, atomically.

    Args:
        path: The file.
        members: Name, such as "clip/000001_0.png", and content of each.

    Returns:
        Offset and size of each member's content [bytes].

    Raises:
        UserError: If it cannot be written.
        ValueError: If a name is one that WebDataset or a tar reader would not take.
    """
    places: list[tuple[int, int]] = []
    names: set[str] = set()
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in members:
            if not _NAME.fullmatch(name) or _is_outside(name) or name in names:
                raise ValueError(f"member {name!r}: expected FOLDER/STEM.SUFFIX, one dot in it, each name once")
            if len(content) > MAX_CROP_BYTES:
                raise ValueError(f"member {name!r}: {len(content):,} bytes, at most {MAX_CROP_BYTES:,} are read back")
            names.add(name)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644  # time, user and group are 0 unless set
            tar.addfile(member, io.BytesIO(content))
            places.append((file.tell() - _round_up(len(content)), len(content)))
    return places


def read_crop_bytes(path: Path, *, offset: int, size: int, crc32: int) -> bytes:
    """Read a crop's bytes from a shard, or from a file of its own.

    Args:
        path: The file.
        offset: Where the crop begins [bytes].
        size: How long it is [bytes].
        crc32: The checksum that it must have.

    Returns:
        The bytes.

    Raises:
        BrokenCrop: If they are missing or have another checksum.
    """
    if not 0 < size <= MAX_CROP_BYTES or offset < 0:
        raise BrokenCrop(f"the manifest claims {size:,} bytes at {offset:,}")
    try:
        # Not blocking: a named pipe under a crop's name would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise BrokenCrop(getattr(error, "strerror", None) or str(error)) from None
    try:
        with os.fdopen(handle, "rb", buffering=0) as file:
            content = _read_slice(file, path, offset, size)
    except OSError as error:
        raise BrokenCrop(error.strerror or str(error)) from None
    check_crop(content, size, crc32)
    return content


def check_crop(content: bytes, size: int, crc32: int) -> None:
    """Compare the bytes of a crop with what was prepared.

    Args:
        content: The bytes.
        size: How many there must be.
        crc32: The checksum that they must have.

    Raises:
        BrokenCrop: If they differ.
    """
    if len(content) != size:
        raise BrokenCrop(f"gave {len(content):,} of {size:,} bytes")
    if zlib.crc32(content) != crc32:
        raise BrokenCrop("holds other bytes than were prepared (checksum)")


def _read_slice(file: IO[bytes], path: Path, offset: int, size: int) -> bytes:
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        raise BrokenCrop("is no regular file")
    is_alone = path.suffix != SHARD_SUFFIX
    if about.st_size < offset + size or (is_alone and about.st_size != size):
        raise BrokenCrop(f"has {about.st_size:,} bytes, expected {offset + size:,}")
    file.seek(offset)
    return file.read(size)


def check_shard(path: Path) -> None:
    """Read the headers of any tar, and check that it holds plain crops only.

    Raises UserError that names links and devices, names that lead outside, sizes beyond the file or any crop, and a cut
    or compressed archive.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")  # opening a pipe would wait for a writer
        with open(path, "rb") as file:
            refused = _find_refused(file, os.fstat(file.fileno()).st_size)
    except (OSError, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        refused = [str(error) or type(error).__name__]  # the last three: what hostile headers lead tarfile to
    if refused:
        raise UserError.about(
            where=str(path),
            what="is not a sound shard",
            expected="a plain tar of pictures: regular files below the archive's own root",
            got="; ".join(refused[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else ""),
            remedy="make it again with prepare_faces.py --shards, or take it from where it came from once more; "
            "nothing of it was unpacked",
        )


def _find_refused(file: IO[bytes], file_size: int) -> list[str]:
    """Return the members that are not plain crops, each with the reason."""
    refused: list[str] = []
    end = 0
    with tarfile.open(fileobj=_HeadersOnly(file), mode="r:") as tar:
        while (member := tar.next()) is not None:
            reason = _explain_refusal(member, file_size)
            if reason is not None:
                refused.append(f"{member.name!r} {reason}")
            next_header = member.offset_data + _round_up(member.size if member.isreg() else 0)
            if not end < next_header <= file_size:
                return refused or [f"{member.name!r} claims {member.size:,} bytes"]  # no way to the next header
            end = next_header
            vars(tar)["members"].clear()  # tarfile keeps every header: 1 GB for a million
    file.seek(end)
    if not refused and file.read(2 * BLOCK) != bytes(2 * BLOCK):
        refused.append(f"the archive is cut or broken after {end:,} bytes")  # tarfile takes that for its end
    return refused


def _explain_refusal(member: tarfile.TarInfo, file_size: int) -> str | None:
    if not (member.isreg() or member.isdir()) or member.issparse():
        return f"is a link to {member.linkname!r}" if member.linkname else "is no regular file"
    if _is_outside(member.name):
        return "leads outside"
    if not 0 <= member.size <= file_size - member.offset_data:
        return f"claims {member.size:,} bytes, more than the archive has or less than none"
    return f"claims {member.size:,} bytes, more than any crop" if member.size > MAX_CROP_BYTES else None


def _is_outside(name: str) -> bool:
    inside = PurePosixPath(name.replace("\\", "/"))
    return inside.is_absolute() or ".." in inside.parts or ":" in name[1:2]  # C:, a drive


class _HeadersOnly(io.RawIOBase):
    """A file whose reads return at most one header: tarfile would read as much as a hostile header claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """Read a header."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to an offset, as every file does.

        Args:
            offset: The offset [bytes].
            whence: Where it counts from.

        Returns:
            The new position.
        """
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


def _round_up(size: int) -> int:
    """Round a size up to whole blocks of a tar."""
    return -(-size // BLOCK) * BLOCK
