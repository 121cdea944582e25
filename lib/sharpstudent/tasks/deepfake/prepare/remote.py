"""SOURCE and DEST of a preparation in object storage, by folders of this machine that stand for them.

    WORK/source/NAME/...   for SOURCE: its lists, and for each other file an empty one of the same size and time
    WORK/clips/...         the files of the clips at hand, fetched for their turn and removed
    WORK/set/NAME/...      for DEST: the set, until all of it is in the storage
    WORK/uploaded.json     what of it is there already

Layouts, parts and shards know nothing of storages, so the shards and the manifest have the bytes that they have
without one. A finished set is uploaded file by file, with the manifest last: an upload that was interrupted is no set,
and the same command goes on with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rich.console import Console

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.files import explain, read_json, read_plain
from sharpstudent.core.io import (
    compute_sha256,
    disk_errors_as_user_errors,
    lock_folder,
    make_folder,
    write_bytes_atomically,
    write_text_atomically,
)
from sharpstudent.core.storage import Storage, StoredFile, find_user_cache, verify_fetched
from sharpstudent.core.storage_cache import Kept
from sharpstudent.report.console import WorkProgress, print_line
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.dataset.shards import MAX_CROP_BYTES, check_shard, write_shard
from sharpstudent.tasks.deepfake.dataset.stored_set import CONTENTS, NoStoredSet, read_contents, render_contents
from sharpstudent.tasks.deepfake.layouts.listing import TABLE_SUFFIXES
from sharpstudent.tasks.deepfake.prepare.destination import COLUMNS, PREPARATION, QUARANTINE, SHARDS, read_preparation
from sharpstudent.tasks.deepfake.prepare.parts import PARTS
from sharpstudent.tasks.deepfake.prepare.settings import Request
from sharpstudent.tasks.deepfake.prepare.stored_source import ClipFolder, StoredSource, naming

PARTS_FILE = f"{PARTS}.tar"
_OURS = re.compile(rf"{SHARDS}/\d{{6}}\.tar|{re.escape(COLUMNS)}")  # what an older set may have more of
_PART = re.compile(rf"{PARTS}/([0-9a-f]{{32}}\.arrow|finished\.json)")


def _sum(files: Iterable[StoredFile | Kept]) -> int:
    return sum(one.size for one in files)


class StoredSet:
    """DEST in a storage, and the folder of this machine that stands for it.

    Attributes:
        storage: Its folder there.
        clips: For the files of clips at hand on a node that does not see the folder of this machine.
    """

    def __init__(self, storage: Storage, dest: Path, clips: ClipFolder, console: Console) -> None:
        """Prepare to work with the set; nothing is read yet.

        Args:
            storage: Its folder in the storage.
            dest: The folder of this machine that stands for it.
            clips: For the files of clips at hand on a node that does not see that folder.
            console: Where the progress of an upload is shown.
        """
        self.storage, self.clips = storage, clips
        self._dest, self._console = dest, console
        self._journal = dest.parent.parent / "uploaded.json"
        self._restored = dest.parent.parent / "restored"  # it exists while the folder lacks crops that the storage has
        self._left_there: dict[str, Kept] = {}  # files of the set in the storage that have not been fetched

    def restore(self) -> None:
        """Fetch what the storage knows of a set that was finished before, without its crops, unless work is under way.

        Raises UserError where the address holds something else, and where the storage refuses.
        """
        there = self.storage.list_files()
        if (self._dest / PREPARATION).is_file() and not self._restored.exists():
            return
        shutil.rmtree(self._dest, ignore_errors=True)
        make_folder(self._dest)
        if not there:
            return
        if PREPARATION in there:
            self.storage.fetch(PREPARATION, self._dest.parent / PREPARATION)
        if read_preparation(self._dest.parent) is None:
            raise UserError.about(
                self.storage.address,
                "holds something else",
                expected=f"an address without files, or one that prepare_faces.py has written (with its {PREPARATION})",
                got=", ".join([*there][:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else ""),
                remedy="name another address as DEST",
            )
        files = self._read_before(there)
        if not {MANIFEST, PARTS_FILE, QUARANTINE} <= files.keys():
            return  # an upload that has not ended, or a damaged one: nothing of it can be gone on with
        self._left_there = {name: kept for name, kept in files.items() if name == MANIFEST or name.startswith(SHARDS)}
        for name in files.keys() - self._left_there.keys() - {PREPARATION}:
            self._fetch(name, files[name])
        self._unpack_parts()
        write_text_atomically(self._restored, "")
        with disk_errors_as_user_errors(self._dest / PREPARATION):
            os.replace(self._dest.parent / PREPARATION, self._dest / PREPARATION)

    @property
    def is_complete(self) -> bool:
        """Whether the storage has a whole set, of which only a part was fetched."""
        return bool(self._left_there)

    def fetch_rest(self) -> None:
        """Fetch manifest and shards of the set as it was, because it is about to change."""
        if self._left_there:
            size = _sum(self._left_there.values()) / 1e6
            print_line(
                self._console, f"fetching {size:,.1f} MB from {self.storage.address}: the set is about to change"
            )
        for name in [*self._left_there]:
            self._fetch(name, self._left_there[name])
        self._left_there = {}
        with disk_errors_as_user_errors(self._restored):
            self._restored.unlink(missing_ok=True)

    def publish(self) -> None:
        """Write what is new to the storage, the manifest last, and remove what the set no longer has."""
        with tempfile.TemporaryDirectory(dir=self._dest.parent) as folder:
            packed = Path(folder) / PARTS_FILE
            write_shard(packed, _read_parts(self._dest))
            paths = {PARTS_FILE: packed, **{name: self._dest / name for name in _list_set(self._dest)}}
            files = {name: Kept(path.stat().st_size, compute_sha256(path)) for name, path in paths.items()}
            files |= self._left_there
            there = self.storage.list_files()
            before = self._read_before(there)
            if before == files and MANIFEST in there:
                return
            self._begin(before, files, there)
            done = self._read_journal()
            new = [
                name
                for name in sorted(paths)
                if name != MANIFEST and not _has(there, name, files[name], done.get(name, before.get(name)))
            ]
            self._upload(new, paths, files, done)
            content = Path(folder) / CONTENTS
            write_bytes_atomically(content, render_contents(files))
            self.storage.put(content, CONTENTS)
            if MANIFEST in paths:
                self.storage.put(paths[MANIFEST], MANIFEST)
        for name in there:
            if _OURS.fullmatch(name) and name not in files:
                self.storage.remove(name)

    def _read_before(self, there: dict[str, StoredFile]) -> dict[str, Kept]:
        """Read what the storage has of the set that was there before; one that is not whole counts as none."""
        if CONTENTS not in there:
            return {}
        try:
            known = read_contents(self.storage)
        except NoStoredSet:
            return {}
        is_whole = all(name in there and there[name].size == kept.size for name, kept in known.items())
        return known if is_whole else {}

    def _begin(self, before: dict[str, Kept], files: dict[str, Kept], there: dict[str, StoredFile]) -> None:
        """Mark the address as a set's, and take back a set whose crops or rows are about to change."""
        self.storage.put(self._dest / PREPARATION, PREPARATION)
        crops = {name for name in {*before, *files} if name == MANIFEST or name.startswith(f"{SHARDS}/")}
        if any(before.get(name) != files.get(name) for name in crops):
            for name in (MANIFEST, CONTENTS):
                if name in there:
                    self.storage.remove(name)

    def _upload(self, names: list[str], paths: dict[str, Path], files: dict[str, Kept], done: dict[str, Kept]) -> None:
        size = _sum(files[name] for name in names) / 1e6
        print_line(self._console, f"uploading {format_count_of(len(names), 'file')}, {size:,.1f} MB, and the manifest")
        with WorkProgress(self._console, f"upload to {self.storage.address}", len(names), "file") as progress:
            for name in names:
                self.storage.put(paths[name], name)
                done[name] = files[name]
                known = {one: [kept.size, kept.sha256] for one, kept in done.items()}
                write_text_atomically(self._journal, json.dumps(known))
                progress.add()

    def _read_journal(self) -> dict[str, Kept]:
        try:
            return {name: Kept(*about) for name, about in read_json(self._journal).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _fetch(self, name: str, kept: Kept) -> None:
        self.storage.fetch(name, self._dest / name)
        verify_fetched(self._dest / name, kept.sha256, f"{self.storage.address}/{name}")

    def _unpack_parts(self) -> None:
        packed = self._dest / PARTS_FILE
        check_shard(packed)
        make_folder(self._dest / PARTS)
        with tarfile.open(packed, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and _PART.fullmatch(member.name):
                    with disk_errors_as_user_errors(self._dest / member.name):
                        (self._dest / member.name).write_bytes(file.read())
        packed.unlink()


def _has(there: dict[str, StoredFile], name: str, wanted: Kept, known: Kept | None) -> bool:
    """Return whether a storage has a file, by its size there and by what is known to have been put there."""
    return known == wanted and name in there and there[name].size == wanted.size


def _list_set(dest: Path) -> list[str]:
    """List the files of a finished set that are uploaded as they are, by their names below DEST."""
    shards = sorted(f"{SHARDS}/{path.name}" for path in (dest / SHARDS).glob("[0-9]*.tar"))
    return [*shards, *(name for name in (QUARANTINE, COLUMNS, PREPARATION, MANIFEST) if (dest / name).is_file())]


def _read_parts(dest: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((dest / PARTS).iterdir()):
        if _PART.fullmatch(f"{PARTS}/{path.name}"):
            try:
                yield f"{PARTS}/{path.name}", read_plain(path, most_bytes=MAX_CROP_BYTES)
            except OSError as error:
                remedy = "make it readable, and repeat the command"
                raise UserError.about(str(path), f"cannot be read ({explain(error)})", remedy=remedy) from None


def open_work(request: Request) -> tuple[Request, Path | None]:
    """Choose the folders of this machine that stand for SOURCE and DEST in a storage.

    Args:
        request: The request, with the addresses as the user wrote them.

    Returns:
        The request with these folders, and the folder that holds them; None where nothing lies in a storage.
    """
    if not (request.stored_source or request.stored_dest):
        return request, None
    source, dest = request.source, request.dest
    places = (request.stored_source or str(source.absolute()), request.stored_dest or str(dest.absolute()))
    digest = hashlib.sha256("\n".join(places).encode("utf-8", "surrogateescape")).hexdigest()
    work = (request.scratch or find_user_cache() / "prepare").absolute() / digest[:16]
    if request.stored_source:
        place = PurePosixPath(request.stored_source.partition("://")[2])
        is_table = place.name.lower().endswith(TABLE_SUFFIXES)
        source = work / "source" / (Path(place.parent.name) / place.name if is_table else place.name)
    if request.stored_dest:
        dest = work / "set" / PurePosixPath(request.stored_dest).name
    return replace(request, source=source, dest=dest), work


@contextlib.contextmanager
def stand_ins(
    request: Request, work: Path | None, console: Console
) -> Generator[tuple[StoredSource | None, StoredSet | None]]:
    """Have folders of this machine stand for SOURCE and DEST in a storage; after the body, DEST is uploaded.

    Args:
        request: The request, as `open_work` gives it.
        work: The folder that holds them; None where nothing lies in a storage.
        console: Where progress is shown.

    Yields:
        SOURCE and DEST in a storage; None for one that does not lie there.

    Raises:
        UserError: Where a storage refuses; what is finished stays in the folder.
    """
    if work is None:
        yield None, None
        return

    def say(line: str) -> None:
        print_line(console, line)

    make_folder(work)
    lock = lock_folder(work, say, doing="prepared")
    try:
        clips = ClipFolder(work / "clips")
        source = _open_source(request, clips)
        if source is not None:
            source.mirror(say)
        dest = StoredSet(Storage(request.stored_dest), request.dest, clips, console) if request.stored_dest else None
        if dest is not None:
            dest.restore()
        with contextlib.nullcontext() if source is None else naming(source):
            yield source, dest
        if dest is not None:
            dest.publish()
        shutil.rmtree(work, ignore_errors=True)
    finally:
        if lock is not None:
            lock.release()


def _open_source(request: Request, clips: ClipFolder) -> StoredSource | None:
    if not request.stored_source:
        return None
    is_table = request.source.name.lower().endswith(TABLE_SUFFIXES)
    address = request.stored_source.rpartition("/")[0] if is_table else request.stored_source
    return StoredSource(Storage(address), request.source.parent if is_table else request.source, clips)
