"""Paths with `~` and variables mean the same in a config, in `--set` and on a command line; torchrun is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_samples import resolve_keys
from sharpstudent.config.cli import parse_command_line
from sharpstudent.core.arguments import read_path
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.command_line import split_name
from sharpstudent.registry import find_task


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FACES", str(tmp_path / "faces"))
    monkeypatch.delenv("ABSENT", raising=False)
    return str(tmp_path)


@pytest.mark.parametrize("written", ["~/faces", "$HOME/faces", "${FACES}"])
def test_every_path_of_a_config_is_expanded(written: str, home: str) -> None:
    config = resolve_keys(
        2,
        data_root=written,
        output_root=written,
        student_init=written,
        pretrained_student_weights=f"{written}/*.pth",
        teachers=[{"model": "test_resnet", "weights": written}],
        teacher_weights=None,
    )
    faces = f"{home}/faces"
    assert config.task_section.data_root == config.output_root == config.student.init == faces
    assert config.student.weights == f"{faces}/*.pth"
    assert config.teachers[0].weights == faces


def test_a_path_on_a_command_line_is_expanded_behind_its_name_too(home: str) -> None:
    assert read_path("~/faces") == Path(home, "faces")
    assert split_name("mine=$HOME/faces") == ("mine", Path(home, "faces"))


def test_a_variable_that_is_not_set_and_a_plain_path_stay_as_they_are() -> None:
    assert read_path("$ABSENT/a~b") == Path("$ABSENT/a~b")


def test_a_folder_whose_name_has_a_dollar_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "$HOME").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_path("$HOME") == Path("$HOME")


def test_a_script_under_torchrun_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="started 2 processes") as caught:
        parse_command_line(["absent.json", "-n", "run"], stage=1, find_task=find_task)
    assert "python train_student_only.py CONFIG -n NAME" in str(caught.value)
