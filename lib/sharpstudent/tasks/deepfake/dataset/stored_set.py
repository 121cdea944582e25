"""A prepared set in object storage: the list of its files with their digests, and how its crops are read.

ADDRESS/shards/000000.tar ...                     the crops
ADDRESS/quarantine.csv, preparation.json, ...     as in a folder
ADDRESS/parts.tar                                 the parts of all clips, for a preparation that goes on
ADDRESS/contents.json                             size and sha256 of each of them, and of the manifest
ADDRESS/manifest.arrow                            is written last: without it there is no set
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import parse_json
from sharpstudent.core.storage import Storage
from sharpstudent.core.storage_cache import Kept, StorageCache
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST, Manifest
from sharpstudent.tasks.deepfake.dataset.shards import SHARD_SUFFIX, BrokenCrop, check_crop, read_crop_bytes

CONTENTS = "contents.json"
FORMAT = "sharpstudent stored set 1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class NoStoredSet(UserError):
    """Raised where an address holds no whole set, or a damaged list of its files."""


def render_contents(files: Mapping[str, Kept]) -> bytes:
    """Write the list of a set's files as JSON; the same files give the same bytes."""
    listed = {name: asdict(kept) for name, kept in sorted(files.items())}
    return (json.dumps({"format": FORMAT, "files": listed}, indent=1) + "\n").encode()


def read_contents(storage: Storage) -> dict[str, Kept]:
    """Read the list of a set's files.

    Args:
        storage: The folder of the set.

    Returns:
        Size and digest of each file, by its name.

    Raises:
        NoStoredSet: If there is none, or if it is damaged.
        UserError: Where the storage refuses.
    """
    try:
        content = storage.read(CONTENTS)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _explain_no_set(storage.address, f"no {CONTENTS}") from None
        raise
    try:
        stored = parse_json(content)
        if stored["format"] != FORMAT:
            raise ValueError(f"its format is {stored['format']!r}")
        files = {str(name): Kept(int(about["size"]), str(about["sha256"])) for name, about in stored["files"].items()}
        odd = [name for name, kept in files.items() if not _SHA256.fullmatch(kept.sha256) or kept.size < 0]
        if odd:
            raise ValueError(f"{odd[0]} has no size and digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _explain_no_set(storage.address, f"{CONTENTS}: {error}") from None
    return files


def _explain_no_set(address: str, got: str) -> UserError:
    return NoStoredSet.about(
        address,
        "is no prepared set in a storage",
        expected=f"what prepare_faces.py writes there: shards, {CONTENTS}, and manifest.arrow at the end",
        got=got,
        remedy="repeat the command that prepared it: python prepare_faces.py SOURCE DEST --shards",
    )


@dataclass(frozen=True)
class StoredCrops:
    """Reads the crops of a set in a storage. It is forked and pickled together with its manifest.

    Attributes:
        storage: The folder of the set.
        cache: Where its files are kept on this machine.
        files: Size and digest of each.
    """

    storage: Storage
    cache: StorageCache
    files: Mapping[str, Kept]

    @classmethod
    def open(cls, address: str, folder: Path, most_gb: float) -> StoredCrops:
        """Read the list of a set's files.

        Args:
            address: The address of the set.
            folder: The folder of the cache.
            most_gb: How much it may hold [GB].

        Returns:
            What reads the crops.

        Raises:
            UserError: If there is no set at the address, and where the storage refuses.
        """
        storage = Storage(address)
        files = read_contents(storage)
        if MANIFEST not in storage.list_files():
            raise _explain_no_set(address, f"no {MANIFEST}: its upload has not ended")
        if MANIFEST not in files:
            raise _explain_no_set(address, f"{CONTENTS}: it does not list {MANIFEST}")
        return cls(storage, StorageCache(folder, int(most_gb * 1e9)), files)

    def open_manifest(self) -> Manifest:
        """Open the set's manifest, whose notes say how much of the set is kept on this machine."""
        manifest = Manifest(self.find_manifest(), stored=self)
        manifest.notes += (self.describe(),)
        return manifest

    def find_manifest(self) -> Path:
        """Find the manifest in the cache, or fetch it. Raises UserError where it has no room."""
        kept = self.files[MANIFEST]
        path = self.cache.find(self.storage, MANIFEST, kept)
        if path is None:
            raise UserError.about(
                str(self.cache.folder),
                "has no room for the manifest of the set",
                expected=f"{kept.size / 1e9:.2f} GB free, on the disk and within cache_gb",
                got=f"cache_gb {self.cache.most_bytes / 1e9:g}",
                remedy="--set cache_gb=200 or more, or --set cache_folder=FOLDER on a larger disk",
            )
        return path

    def read(self, place: str, *, offset: int, size: int, crc32: int) -> bytes:
        """Read the bytes of a crop.

        Args:
            place: The shard.
            offset: Where the crop begins in it [bytes].
            size: How long it is [bytes].
            crc32: The checksum that it must have.

        Returns:
            The bytes.

        Raises:
            BrokenCrop: If they are not what was prepared.
            UserError: Where the storage refuses.
        """
        kept = self.files.get(place)
        if kept is None:
            raise BrokenCrop(f"is not in the set's {CONTENTS}")
        self.cache.use(MANIFEST, self.files[MANIFEST])
        for is_last in (False, True):  # the shard may have been removed in between, or have changed on this disk
            path = self.cache.find(self.storage, place, kept)
            if path is None:
                content = self.storage.read(place, offset, offset + size)
                check_crop(content, size, crc32)
                return content
            try:
                return read_crop_bytes(path, offset=offset, size=size, crc32=crc32)
            except BrokenCrop:
                if is_last:
                    raise
                self.cache.forget(place, kept)
        raise AssertionError("unreachable")

    def describe(self) -> str:
        """Say how much of the set is kept on this machine, and how much has room there."""
        used, free = self.cache.measure()
        whole = sum(kept.size for name, kept in self.files.items() if name.endswith(SHARD_SUFFIX))
        room = max(0, min(self.cache.most_bytes, used + free) - self.files[MANIFEST].size)
        rest = "" if whole <= room else "; the rest is read crop by crop, which is slow (cache_gb, cache_folder)"
        return f"{whole / 1e6:,.1f} MB of shards, of which this machine keeps up to {room / 1e6:,.1f} MB{rest}"
