"""Shards: plain tar files that WebDataset reads, crops by offset, and archives that are refused."""

from __future__ import annotations

import gzip
import io
import os
import re
import resource
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset import shards
from sharpstudent.tasks.deepfake.dataset.shards import BrokenCrop, check_shard, read_crop_bytes, write_shard

MEMBERS = [
    ("clip 1/000000_0.png", b"first"),
    ("clip 1/000010_0.png", bytes(512)),
    ("vidéos/ü é/000000_0.jpg", bytes(range(256)) * 5),
    (f"{'long/' * 60}000000_1.png", b"x"),  # more than the old tar format holds
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shards" / "000000.tar"


# --- What is written ------------------------------------------------------------------------------------------------


def test_webdataset_reads_a_shard_back(path: Path) -> None:
    from webdataset.compat import WebDataset

    write_shard(path, MEMBERS)
    found = list(WebDataset(str(path), shardshuffle=False))
    assert [
        (f"{sample['__key__']}.{name[-3:]}", sample[name[-3:]])
        for sample, (name, _) in zip(found, MEMBERS, strict=True)
    ] == MEMBERS


def test_tarfile_reads_it_back_without_times_and_owners(path: Path) -> None:
    write_shard(path, MEMBERS)
    with tarfile.open(path, "r:") as tar:
        members = tar.getmembers()
        assert [(m.name, tar.extractfile(m).read()) for m in members] == MEMBERS  # type: ignore[union-attr]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_each_crop_is_read_by_its_place_alone(path: Path) -> None:
    places = write_shard(path, MEMBERS)
    for (_, content), (offset, size) in zip(MEMBERS, places, strict=True):
        assert path.read_bytes()[offset : offset + size] == content
        assert read_crop_bytes(path, offset=offset, size=size, crc32=zlib.crc32(content)) == content


def test_the_same_members_give_the_same_bytes_whenever_they_are_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(path, MEMBERS)
    first, later = path.read_bytes(), time.time() + 1000.0
    monkeypatch.setattr(time, "time", lambda: later)
    write_shard(path, iter(MEMBERS))
    assert path.read_bytes() == first


def test_a_shard_of_nothing_is_an_empty_archive(path: Path) -> None:
    assert write_shard(path, []) == []
    check_shard(path)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../b.png", "C:/a.png", "a.b.png", "plain", ".png", "a/"])
def test_a_name_that_no_reader_takes_is_refused_and_nothing_is_written(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="member"):
        write_shard(path, [("good.png", b"1"), (name, b"2")])
    assert not list(path.parent.iterdir())


def test_a_name_twice_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="once"):
        write_shard(path, [("a.png", b"1"), ("a.png", b"2")])


def test_a_full_disk_leaves_the_old_shard(path: Path) -> None:
    write_shard(path, MEMBERS)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            write_shard(path, [("big.png", bytes(10**6))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_bytes_that_changed_in_a_shard_are_not_a_crop(path: Path) -> None:
    ((offset, size), *_) = write_shard(path, MEMBERS)
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrokenCrop, match="checksum"):
        read_crop_bytes(path, offset=offset, size=size, crc32=zlib.crc32(b"first"))
    path.write_bytes(content[: offset + 2])
    with pytest.raises(BrokenCrop, match="expected"):
        read_crop_bytes(path, offset=offset, size=size, crc32=zlib.crc32(b"first"))


# --- Archives from elsewhere ----------------------------------------------------------------------------------------


def test_sound_archives_of_others_pass(path: Path) -> None:
    write_shard(path, MEMBERS)
    check_shard(path)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path, "w", format=form) as tar:
            folder = tarfile.TarInfo("clip")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            add(tar, "clip/1.png", b"1" * 700)
            add(tar, f"clip/{'x' * 90}.png", b"2")
        check_shard(path)


def add(tar: tarfile.TarFile, name: str, content: bytes = b"1", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def claim(path: Path, size: int) -> None:
    """A member that says it has `size` bytes, with one block behind it."""
    member = tarfile.TarInfo("bomb.png")
    member.size = size
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(512 * 3))


def save(path: Path, *names: str, **fields: object) -> None:
    with tarfile.open(path, "w") as tar:
        for name in names:
            add(tar, name, b"", **fields)


def save_sparse(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        add(tar, "a.png", b"", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b"})


def save_huge_header(path: Path) -> None:
    """A header of headers that claims 8 GB."""
    member = tarfile.TarInfo("././@PaxHeader")
    member.type, member.size = tarfile.XHDTYPE, 8 * 2**30
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(512 * 20))


def save_negative(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.png", b"", pax_headers={"size": "-512"})


def save_nested_headers(path: Path) -> None:
    member = tarfile.TarInfo("././@PaxHeader")
    member.type = tarfile.XHDTYPE
    path.write_bytes(member.tobuf(tarfile.USTAR_FORMAT) * 3000 + bytes(1024))


def save_cut(path: Path) -> None:
    write_shard(path, MEMBERS)
    path.write_bytes(path.read_bytes()[:1024])


def save_broken_in_the_middle(path: Path) -> None:
    write_shard(path, MEMBERS)
    content = bytearray(path.read_bytes())
    content[1024:1030] = b"\xff" * 6  # the second header
    path.write_bytes(content)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a symbolic link": (
        lambda p: save(p, "a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "link to '/etc/passwd'",
    ),
    "a hard link": (lambda p: save(p, "a.png", type=tarfile.LNKTYPE, linkname="../b"), "link to"),
    "a device": (lambda p: save(p, "a.png", type=tarfile.CHRTYPE), "no regular file"),
    "a pipe": (lambda p: save(p, "a.png", type=tarfile.FIFOTYPE), "no regular file"),
    "an absolute name": (lambda p: save(p, "/etc/cron.d/a.png"), "leads outside"),
    "dots": (lambda p: save(p, "a/../../b.png"), "leads outside"),
    "dots for Windows": (lambda p: save(p, "..\\b.png"), "leads outside"),
    "a folder outside": (lambda p: save(p, "../b", type=tarfile.DIRTYPE), "leads outside"),
    "more than the archive has": (lambda p: claim(p, 10**6), "more than the archive"),
    "terabytes": (lambda p: claim(p, 2**42), "more than the archive"),
    "a negative size": (lambda p: claim(p, -1024), "claims|header"),
    "a negative size in words": (save_negative, "claims|header"),
    "a sparse file": (save_sparse, "."),
    "a header of 8 GB": (save_huge_header, "header claims"),
    "headers of headers": (save_nested_headers, "."),
    "cut off": (save_cut, "cut or broken"),
    "broken in the middle": (save_broken_in_the_middle, "cut or broken"),
    "compressed": (lambda p: p.write_bytes(gzip.compress(bytes(10**6))), "."),
    "random": (lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)), "."),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "a pipe for an archive": (lambda p: os.mkfifo(p), "no regular file"),
    "absent": (lambda p: None, "No such file"),
}


@pytest.mark.parametrize("form", HOSTILE)
def test_an_archive_that_is_no_sound_shard_is_one_error(path: Path, form: str) -> None:
    path.parent.mkdir()
    make, reason = HOSTILE[form]
    make(path)
    with pytest.raises(UserError, match=r"(?s)not a sound shard") as caught:
        check_shard(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert re.search(reason, str(problem.got)), problem.got


def test_all_that_is_wrong_is_in_one_message(path: Path) -> None:
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        add(tar, "good.png")
        add(tar, "../one.png")
        add(tar, "two.png", b"", type=tarfile.SYMTYPE, linkname="x")
        for i in range(6):
            add(tar, f"/{i}.png")
    with pytest.raises(UserError) as caught:
        check_shard(path)
    got = str(caught.value.problems[0].got)
    assert "'../one.png' leads outside; 'two.png' is a link to 'x'" in got
    assert "and 3 more" in got
    assert "good" not in got


def test_a_member_larger_than_any_crop_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(path, [("a.png", bytes(5000))])
    monkeypatch.setattr(shards, "MAX_CROP_BYTES", 4000)
    with pytest.raises(UserError, match="more than any crop"):
        check_shard(path)
    with pytest.raises(ValueError, match="at most"):
        write_shard(path, [("a.png", bytes(5000))])


def test_mutated_archives_pass_or_are_refused_in_time(path: Path) -> None:
    write_shard(path, MEMBERS)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    start, refused = time.process_time(), 0
    for _ in range(500):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 6)):
            content[place] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(whole)) if rng.random() < 0.2 else None])
        try:
            check_shard(path)
        except UserError:
            refused += 1
    assert refused > 100
    assert time.process_time() - start < 20
