"""Models that come with the package: a name becomes a file that was checked, and what is wrong is said."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from sharpstudent.core import shipped
from sharpstudent.core.archive import find_file
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.command_line import split_model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one model, in place of the real one."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    (folder / "gate-small.safetensors").write_bytes(b"weights")
    (folder / "gate-small.md").write_text("front matter\n# gate-small: says who is at the gate\n")
    digest = hashlib.sha256(b"weights").hexdigest()
    (folder / "gate-small.safetensors.sha256").write_text(f"{digest}  gate-small.safetensors\n")
    return folder


def test_a_name_becomes_the_file_and_keeps_the_name_that_the_user_gives(folder: Path) -> None:
    assert split_model("gate-small") == (None, folder / "gate-small.safetensors")
    assert split_model("mine=gate-small") == ("mine", folder / "gate-small.safetensors")


def test_a_path_that_exists_is_never_taken_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "gate-small").mkdir()
    assert split_model("gate-small") == (None, Path("gate-small"))


@pytest.mark.parametrize("content", [b"other", None])
def test_a_file_that_is_not_the_package_s_is_refused(folder: Path, content: bytes | None) -> None:
    path = folder / "gate-small.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="is not the model gate-small of this package"):
        split_model("gate-small")


def test_a_damaged_list_is_refused_too(folder: Path) -> None:
    (folder / "gate-small.safetensors.sha256").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not the model gate-small of this package"):
        split_model("gate-small")


def test_a_misspelt_name_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(UserError, match=r"did you mean gate-small\? models that come with the package: gate-small"):
        find_file(Path("gate-smal"))
    with pytest.raises(UserError) as caught:
        find_file(Path("output/missing"))
    assert "did you mean" not in str(caught.value)


def test_the_summary_is_the_title_of_the_card(folder: Path) -> None:
    assert [(one.name, one.summary) for one in shipped.list_shipped()] == [("gate-small", "says who is at the gate")]
    os.unlink(folder / "gate-small.md")
    assert shipped.list_shipped()[0].summary == "it has no card"
