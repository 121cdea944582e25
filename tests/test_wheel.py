"""The built wheel: what it holds, and its command in an environment without this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sharpstudent`, in an environment that has the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    bin_folder = folder / "bin"
    install = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "dependencies.pth").write_text("\n".join(paths))
    return bin_folder / "sharpstudent"


def run(command: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        [str(command), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_one_package_with_configs_models_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"sharpstudent"}
    held = {name.removeprefix("sharpstudent/") for name in names}
    for name in ("py.typed", "configs/config_SBI.json", "configs/schema.json", "shipped/MANIFEST.json"):
        assert name in held
    shipped = {path.name for path in (ROOT / "lib/sharpstudent/shipped").iterdir()}
    assert {f"shipped/{name}" for name in shipped} <= held


def test_its_command_runs_from_any_folder(command: Path, tmp_path: Path) -> None:
    assert run(command, tmp_path, "--version").stdout.startswith("sharpstudent ")
    assert "deepfake" in run(command, tmp_path, "tasks").stdout
    assert "stage 2: task deepfake" in run(command, tmp_path, "check", "configs/demo.json").stdout
    refused = run(command, tmp_path, "predict", "no_such_model", "photo.jpg")
    assert refused.returncode == 2
    assert "models that come with the package" in refused.stderr


def test_a_picture_is_judged_by_the_model_that_comes_with_it(command: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "grey").save(tmp_path / "photo.png")
    ended = run(command, tmp_path, "predict", "deepfake-small", "photo.png", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["status"] == "answered"


# What docs/python.md and docs/adding-a-task.md call public: these modules, and all that `sharpstudent` itself exports.
PUBLIC = ("api.", "task.", "core.errors.", "report.predictions.", "train.callbacks.")


def test_the_public_interface_has_a_type_everywhere(command: Path) -> None:
    """`pyright --verifytypes` finds the package by the program `python` in PATH."""
    pytest.importorskip("pyright", reason="needs pyright: make dev")
    environment = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    words = [sys.executable, "-m", "pyright", "--outputjson", "--ignoreexternal", "--verifytypes", "sharpstudent"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    symbols = json.loads(ended.stdout)["typeCompleteness"]["symbols"]
    public = [one for one in symbols if one["name"].removeprefix("sharpstudent.").startswith(PUBLIC)]
    assert len(public) > 100
    incomplete = [one["name"] for one in public if not one["isTypeKnown"] or one["isTypeAmbiguous"]]
    assert incomplete == []
