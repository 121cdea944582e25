"""Files in a storage, and the folder that keeps them: verified, within its bound, whatever is killed or full."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType

import pytest
from sharpstudent.core import storage_cache
from sharpstudent.core.errors import UserError
from sharpstudent.core.storage import Storage, find_user_cache, is_address, read_place
from sharpstudent.core.storage_cache import Kept, StorageCache
from small_disk import small_disk

SIZE = 1000
LONG_AGO = (1, 1)  # seconds since 1970: when a file was used and changed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process looks for room each time."""
    monkeypatch.setattr(storage_cache, "AGAIN_SECONDS", 0.0)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    for number in range(4):
        (tmp_path / "there" / "shards").mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / "shards" / f"{number}.tar").write_bytes(bytes([number]) * SIZE)
    return Storage(f"file://{tmp_path}/there")


def keep(storage: Storage, name: str) -> Kept:
    return Kept(SIZE, hashlib.sha256(storage.read(name)).hexdigest())


def name(number: int) -> str:
    return f"shards/{number}.tar"


def find(cache: StorageCache, storage: Storage, number: int) -> Path | None:
    return cache.find(storage, name(number), keep(storage, name(number)))


def list_kept(cache: StorageCache) -> int:
    return len(list(cache.folder.glob("*.tar")))


def test_an_address_is_told_from_a_path() -> None:
    assert is_address("s3://bucket/folder")
    assert not any(map(is_address, ("data/set", "/data//set", "C:/data", "~/data", "s3:/x", "://x", "s3://")))
    assert read_place("gs://bucket/folder/") == "gs://bucket/folder"
    assert read_place("data/set") == Path("data/set")


def test_a_user_s_cache_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert find_user_cache() == Path("/somewhere/sharpstudent")


def test_files_are_listed_read_written_and_removed(tmp_path: Path) -> None:
    storage = Storage("memory://bucket/test_files_are_listed")
    assert storage.list_files() == {}
    (tmp_path / "one").write_bytes(b"0123456789")
    storage.put(tmp_path / "one", "a/b.tar")
    assert {name: about.size for name, about in storage.list_files().items()} == {"a/b.tar": 10}
    assert storage.list_files()["a/b.tar"].changed_ns > 10**18
    assert storage.read("a/b.tar", 3, 5) == b"34"
    storage.fetch_all(["a/b.tar"], tmp_path / "here")
    assert (tmp_path / "here/a/b.tar").read_bytes() == b"0123456789"
    storage.remove("a/b.tar")
    storage.remove("a/b.tar")
    assert storage.list_files() == {}


@pytest.mark.parametrize(
    ("address", "reason", "remedy"),
    [
        ("s3://b/x", "needs the package s3fs", "pip install s3fs~="),
        ("gs://b/x", "needs the package gcsfs", "pip install gcsfs~="),
        ("abfs://b/x", "needs the package adlfs", "pip install adlfs"),
        ("nothing://b/x", "Protocol not known", "check the address"),
    ],
)
def test_a_storage_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str, remedy: str
) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=reason) as caught:
        Storage(address).list_files()
    assert remedy in str(caught.value)


class NoCredentialsError(Exception):
    """As botocore calls it."""


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (NoCredentialsError("Unable to locate credentials"), "without credentials", "AWS_ACCESS_KEY_ID"),
        (FileNotFoundError("The specified bucket does not exist"), "is not there", "the bucket exists"),
        (PermissionError("Forbidden"), "is refused to this user", "permission"),
        (RuntimeError("the network is gone"), "RuntimeError: the network is gone", "goes on where it was"),
    ],
)
def test_what_a_storage_refuses_is_one_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, remedy: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(MemoryFileSystem, "find", refuse)
    with pytest.raises(UserError, match=reason) as caught:
        Storage("memory://bucket/x").list_files()
    assert str(caught.value).startswith("memory://bucket/x: ")
    assert remedy in str(caught.value)


def test_a_file_is_fetched_once_and_then_found(tmp_path: Path, storage: Storage) -> None:
    cache = StorageCache(tmp_path / "cache", 10 * SIZE)
    kept = keep(storage, name(1))
    path = cache.find(storage, name(1), kept)
    assert path is not None
    assert path.read_bytes() == bytes([1]) * SIZE
    (tmp_path / "there" / name(1)).unlink()
    assert cache.find(storage, name(1), kept) == path


def test_a_file_that_is_not_what_was_put_there_is_refused_and_not_kept(tmp_path: Path, storage: Storage) -> None:
    cache, kept = StorageCache(tmp_path / "cache", 10 * SIZE), keep(storage, name(1))
    (tmp_path / "there" / name(1)).write_bytes(bytes(SIZE))
    with pytest.raises(UserError, match="its digest differs"):
        cache.find(storage, name(1), kept)
    assert [path.name for path in cache.folder.iterdir()] == [".locks"]


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path: Path, storage: Storage) -> None:
    cache = StorageCache(tmp_path / "cache", int(2.5 * SIZE))
    paths = [find(cache, storage, number) for number in (0, 1)]
    assert find(cache, storage, 2) is None, "both are in use"
    assert paths[0] is not None
    assert paths[1] is not None
    os.utime(paths[0], (2, 2))
    os.utime(paths[1], LONG_AGO)
    assert find(cache, storage, 1) == paths[1]  # now it is used
    assert find(cache, storage, 2) is not None
    assert not paths[0].exists()
    assert paths[1].exists()
    assert list_kept(cache) == 2


def test_files_of_others_in_the_folder_are_neither_counted_nor_removed(tmp_path: Path, storage: Storage) -> None:
    cache = StorageCache(tmp_path / "cache", SIZE)
    cache.folder.mkdir()
    others = [cache.folder / one for one in ("thesis.tar", ".notes.partial", ".x.1.partial", "a" * 63 + ".tar")]
    for other in others:
        other.write_bytes(bytes(2 * SIZE))
        os.utime(other, (1.0, 1.0))
    assert find(cache, storage, 0) is not None
    assert cache.measure()[0] == SIZE
    assert [other.stat().st_size for other in others] == [2 * SIZE] * 4


def test_a_process_that_found_no_room_does_not_look_again_for_a_while(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each crop of a shard without room would take the lock that all processes share."""
    cache = StorageCache(tmp_path / "cache", SIZE)
    path = find(cache, storage, 0)
    assert path is not None
    assert find(cache, storage, 1) is None
    monkeypatch.setattr(storage_cache, "AGAIN_SECONDS", 1e9)
    monkeypatch.setattr(StorageCache, "_make_room", None)
    assert find(cache, storage, 2) is None
    assert find(cache, storage, 0) == path


def test_a_file_that_another_process_removes_stays_readable_while_it_is_open(tmp_path: Path, storage: Storage) -> None:
    cache = StorageCache(tmp_path / "cache", SIZE)
    path = find(cache, storage, 0)
    assert path is not None
    with open(path, "rb") as file:
        os.utime(path, LONG_AGO)
        assert find(cache, storage, 1) is not None
        assert not path.exists()
        assert file.read() == bytes(SIZE)


def fetch_slowly(cache: StorageCache, storage: Storage, kept: Kept, begun: Path, go_on: Path) -> None:
    fetch = Storage.fetch

    def wait_within(self: Storage, name: str, path: Path) -> None:
        path.write_bytes(b"a part")
        with open(begun, "a") as file:
            file.write("begun\n")
        while not go_on.exists():
            time.sleep(0.01)
        fetch(self, name, path)

    Storage.fetch = wait_within
    cache.find(storage, name(0), kept)


def wait_until_begun(begun: Path, process: ForkProcess) -> None:
    end = time.monotonic() + 300
    while not begun.exists():
        assert process.is_alive(), "ended before it began to fetch"
        assert time.monotonic() < end
        time.sleep(0.005)


def test_two_processes_fetch_a_file_once(tmp_path: Path, storage: Storage) -> None:
    cache, kept = StorageCache(tmp_path / "cache", 10 * SIZE), keep(storage, name(0))
    words = (cache, storage, kept, tmp_path / "begun", tmp_path / "go_on")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch_slowly, args=words, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    wait_until_begun(tmp_path / "begun", processes[0])
    (tmp_path / "go_on").touch()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "begun").read_text() == "begun\n"
    assert list_kept(cache) == 1


def test_what_a_killed_process_had_begun_is_removed_and_counts_while_it_runs(tmp_path: Path, storage: Storage) -> None:
    cache, kept = StorageCache(tmp_path / "cache", int(1.5 * SIZE)), keep(storage, name(0))
    words = (cache, storage, kept, tmp_path / "begun", tmp_path / "go_on")
    process = multiprocessing.get_context("fork").Process(target=fetch_slowly, args=words, daemon=True)
    process.start()
    wait_until_begun(tmp_path / "begun", process)
    assert find(cache, storage, 1) is None, "the file that is being fetched has the room"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(list(cache.folder.glob(".*.partial"))) == 1
    assert find(cache, storage, 1) is not None
    assert list(cache.folder.glob(".*.partial")) == []


def test_a_full_disk_makes_room_or_leaves_the_file_in_its_storage(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_cache, "SPARE_BYTES", 0)
    with small_disk(tmp_path / "small", "28k") as folder:  # pages of 4 kB: a file, its lock, and two folders
        cache = StorageCache(folder, 100 * SIZE)
        paths = [find(cache, storage, number) for number in range(2)]
        assert paths[0] is not None
        (folder / "other").write_bytes(bytes(int(cache.measure()[1])))
        assert find(cache, storage, 2) is None
        os.utime(paths[0], LONG_AGO)
        (folder / "other").unlink()
        (folder / "other").write_bytes(bytes(int(cache.measure()[1])))
        assert find(cache, storage, 3) is not None
        assert not paths[0].exists()


def test_a_disk_that_fills_up_during_a_fetch_leaves_the_file_in_its_storage(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(self: Storage, name: str, path: Path) -> None:
        path.write_bytes(b"a part")
        raise UserError.about(str(path), "could not be written") from OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "fetch", fill)
    cache = StorageCache(tmp_path / "cache", 10 * SIZE)
    assert find(cache, storage, 0) is None
    assert [path.name for path in cache.folder.iterdir()] == [".locks"]


def test_no_module_of_a_storage_is_loaded_before_an_address_is_used() -> None:
    import sharpstudent.core.storage as module

    assert not any(isinstance(value, ModuleType) and value.__name__ == "fsspec" for value in vars(module).values())
