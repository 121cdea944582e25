"""Paths with `~` and variables mean the same in a config, in `--set` and on a command line; torchrun is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_samples import resolve_keys
from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import read_config_file
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


def test_processes_of_another_launcher_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes share the run") as caught:
        parse_command_line(["absent.json", "-n", "run"], stage=1, find_task=find_task)
    assert "torchrun --nproc-per-node 2 train_student_only.py CONFIG -n NAME" in str(caught.value)


def test_backslashes_between_folders_are_slashes_unless_such_a_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    assert read_path("data\\faces") == Path("data/faces")
    assert read_path("~\\faces") == Path(home, "faces")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a\\b").touch()
    assert read_path("a\\b") == Path("a\\b")
    assert resolve_keys(1, data_root="data\\faces").task_section.data_root == "data/faces"


@pytest.mark.parametrize("written", [r"data\demo", r"C:\Users\me", r"ok/\p"])
def test_a_backslash_that_json_drops_is_named_with_its_line(written: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(f'{{\n// a \\comment "\\q"\n"data_root": "{written}"}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 3: has a single backslash(.|\n)*each backslash twice"):
        read_config_file(path)
    double = written.replace("\\", "\\\\")
    path.write_text(f'{{"data_root": "{double}"}}', encoding="utf-8")
    assert read_config_file(path)["data_root"] == written


def test_a_backslash_that_json_reads_as_a_control_character_is_refused_in_a_path() -> None:
    with pytest.raises(UserError, match=r"data_root(.|\n)*control character(.|\n)*backslash twice"):
        resolve_keys(1, data_root="data\faces")
