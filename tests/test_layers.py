"""Packages import lower packages only, and a planted wrong import is reported."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed: pip install -e .[check]"
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = {**os.environ, "PYTHONPATH": str(folder / "lib"), "COLUMNS": "200"}
    command = [sys.executable, "-P", "-c", code, "--no-cache", "--config", str(folder / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_every_package_imports_lower_packages_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        (
            "train/step.py",
            "import sharpstudent.modalities.faces.crop",
            "sharpstudent.train.step -> sharpstudent.modalities.faces.crop",
        ),
        ("config/load.py", "import sharpstudent.tasks", "sharpstudent.config.load -> sharpstudent.tasks"),
        (
            "optim/sam.py",
            "from sharpstudent.models.teachers import FrozenTeacher",
            "sharpstudent.optim.sam -> sharpstudent.models.teachers",
        ),
        (
            "core/types.py",
            "import sharpstudent.config.run_config",
            "sharpstudent.core.types -> sharpstudent.config.run_config",
        ),
        (
            "report/curves.py",
            "import sharpstudent.checkpoint.store",
            "sharpstudent.report.curves -> sharpstudent.checkpoint.store",
        ),
    ],
)
def test_a_planted_wrong_import_is_caught_and_named(checkout: Path, file: str, line: str, words: str) -> None:
    path = checkout / "lib" / "sharpstudent" / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint(checkout)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout
    assert words in done.stdout


def test_a_new_package_that_no_layer_names_is_caught(checkout: Path) -> None:
    (checkout / "lib" / "sharpstudent" / "utils.py").write_text('"""Misc."""\n')
    done = lint(checkout)
    assert done.returncode != 0
    assert "utils" in done.stdout + done.stderr
