"""Full and unwritable disks, two runs at once, and the change between files and shards: nothing is half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process_pool import InProcessPool
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.dataset.shards import check_shard
from small_disk import small_disk
from text_clips import prepare, read_all, write_clips, write_many


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpstudent.tasks.deepfake.sources.face_crops.check_model_files", lambda: None)
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.run.WorkerPool", InProcessPool)
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.packing.SHARD_MEMBERS", 4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_many(tmp_path / "source", 8)


def read_faces(dest: Path) -> dict[str, bytes]:
    manifest = Manifest.open(dest / "manifest.arrow")
    return {f"{row.clip_id} {row.frame_index}": manifest.read_crop_of(row) for row in manifest}


def test_a_full_disk_stops_with_path_and_bytes_and_the_same_command_goes_on(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "100k") as disk:
        dest = disk / "set"
        with pytest.raises(UserError, match=r"(No space left|full)(?s:.*)bytes free"):
            prepare(source, dest)
        finished = sorted(path.name for path in (dest / "parts").glob("*.arrow"))
        assert 0 < len(finished) < 8
        assert not (dest / "manifest.arrow").exists()
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        _, text = prepare(source, dest)
        assert f"{len(finished)} clips finished already" in text
        prepare(source, source.parent / "fresh")
        assert read_all(dest) == read_all(source.parent / "fresh")


@pytest.mark.parametrize("at", range(1, 30, 4))
def test_a_write_that_fails_anywhere_loses_nothing(
    at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, tmp_path / "fresh", shards=True)
    calls = [0]
    real = os.replace

    def replace(*words: object) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(errno.ENOSPC, "No space left on device", str(words[1]))
        real(*words)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(UserError, match="No space left"):
            prepare(source, tmp_path / "set", shards=True)
    assert not list((tmp_path / "set").rglob("*.partial"))
    prepare(source, tmp_path / "set", shards=True)
    assert read_all(tmp_path / "set") == read_all(tmp_path / "fresh")


def test_a_folder_that_cannot_be_written_is_a_user_error(source: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        parent = Path("/proc")
    else:
        parent = tmp_path / "closed"
        parent.mkdir(mode=0o500)
    with pytest.raises(UserError, match="could not be written"):
        prepare(source, parent / "set")


def test_a_second_run_into_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    before = read_all(dest)
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[4])!r})
from pathlib import Path
from sharpstudent.core.io import lock_folder
lock = lock_folder(Path({str(dest)!r}), print)
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match="is being prepared by another process"):
            prepare(source, dest)
    finally:
        holder.communicate()
    assert read_all(dest) == before
    prepare(source, dest)


def test_shards_hold_the_same_crops_as_files_and_the_files_are_gone(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "files")
    prepare(source, tmp_path / "packed", shards=True)
    assert read_faces(tmp_path / "packed") == read_faces(tmp_path / "files")
    shards = sorted((tmp_path / "packed/shards").glob("*.tar"))
    assert [shard.name for shard in shards] == ["000000.tar", "000001.tar", "000002.tar", "000003.tar"]
    for shard in shards:
        check_shard(shard)
    assert not (tmp_path / "packed/crops").exists()


def test_a_set_changes_from_files_to_shards_and_back(source: Path, tmp_path: Path) -> None:
    for shards in (False, True, True, False):
        prepare(source, tmp_path / "set", shards=shards)
        prepare(source, tmp_path / f"fresh {shards}", shards=shards)
        assert read_all(tmp_path / "set") == read_all(tmp_path / f"fresh {shards}")


def test_new_clips_join_a_packed_set_without_cropping_the_old_ones_again(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "set", shards=True)
    write_clips(source, {"new": "face face"})
    _, text = prepare(source, tmp_path / "set", shards=True)
    assert "unpacking" in text
    assert "8 clips finished already, 1 left" in text
    prepare(source, tmp_path / "fresh", shards=True)
    assert read_all(tmp_path / "set") == read_all(tmp_path / "fresh")


def test_clips_of_a_broken_shard_are_cropped_again(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "set", shards=True)
    before = read_all(tmp_path / "set")
    shard = tmp_path / "set/shards/000001.tar"
    shard.write_bytes(shard.read_bytes()[:1500])
    prepare(source, tmp_path / "set", shards=True)
    assert read_all(tmp_path / "set") == before


@pytest.mark.parametrize("at", range(1, 14))
def test_a_killed_change_between_files_and_shards_can_be_resumed(
    at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uncaught exception replaces the kill: the test is of what is on disk, not of any clean-up."""
    prepare(source, tmp_path / "set", shards=True)
    write_clips(source, {"new": "face"})
    calls = [0]

    class KilledError(BaseException):
        pass

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*words: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] == 3 * at:
                raise KilledError
            return real(*words, **named)

        patched.setattr(os, name, call)

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink", "rmdir"):
            wrap(name)
        with pytest.raises(KilledError):
            prepare(source, tmp_path / "set", shards=True)
    prepare(source, tmp_path / "set", shards=True)
    prepare(source, tmp_path / "fresh", shards=True)
    assert read_all(tmp_path / "set") == read_all(tmp_path / "fresh")
