"""The checklist of a release: what it finds in versions that disagree, and that this checkout's agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "pyproject.toml": '[project]\nname = "sharpstudent"\nversion = "0.2.0"\n',
    "CITATION.cff": "title: x\nversion: 0.2.0\n",
    "CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-11-30\n\n### Added\n- all of it\n",
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The checklist, on a repository of three files."""
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_what_agrees_passes(script: ModuleType) -> None:
    assert script.check_versions() is None
    assert script.check_changelog() is None


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("CITATION.cff", "0.2.0", "0.1.0", "CITATION.cff has 0.1.0"),
        ("pyproject.toml", "0.2.0", "0.3.0", "pyproject.toml has 0.3.0"),
        ("CHANGELOG.md", "2026-11-30", "2999-01-01", "in the future"),
        ("CHANGELOG.md", "## 0.2.0 - 2026-11-30", "", "no heading like"),
    ],
)
def test_versions_that_disagree_are_named(script: ModuleType, name: str, old: str, new: str, said: str) -> None:
    path = script.ROOT / name
    path.write_text(path.read_text().replace(old, new))
    assert said in script.check_versions()


def test_what_is_unreleased_has_to_move(script: ModuleType) -> None:
    path = script.ROOT / "CHANGELOG.md"
    path.write_text(path.read_text().replace("## Unreleased\n", "## Unreleased\n\n### Fixed\n- one thing\n"))
    assert script.check_changelog() == "move what is Unreleased under the version"


def test_the_versions_of_this_checkout_agree(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "ROOT", ROOT)
    assert script.check_versions() is None
