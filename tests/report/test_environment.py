"""What a result was made with, and nothing about who made it."""

import getpass
import json
import os
import platform
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
from sharpstudent.report import environment
from sharpstudent.report.environment import PACKAGES, describe_environment, save_environment


def test_the_file_holds_machine_versions_and_command(tmp_path: Path) -> None:
    returned = save_environment(tmp_path / "environment.json", ["train_student_only.py", "configs/a.json"])
    assert json.loads((tmp_path / "environment.json").read_text(encoding="utf-8")) == returned
    assert returned["command"] == ["train_student_only.py", "configs/a.json"]
    assert returned["python"] == platform.python_version()
    assert returned["torch"]["version"] == torch.__version__
    assert returned["threads"]["torch"] == torch.get_num_threads()
    assert returned["cpu"]["count"] == os.cpu_count()
    assert set(returned["packages"]) == set(PACKAGES)
    assert returned["packages"]["rich"]


def test_every_package_that_the_program_needs_is_described() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    needed = [re.split("[<>=]", one)[0] for one in tomllib.loads(text)["project"]["dependencies"]]
    assert sorted(needed) == sorted(PACKAGES)


def test_no_home_folder_or_host_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    text = json.dumps(
        describe_environment(["/home/alice/x/train.py", "--set", "data_root=/home/bob/faces", "/Users/eve/c.json"])
    )
    for private in ("alice", "bob", "eve", platform.node() or "no host name"):
        assert private not in text
    if getpass.getuser() != "root":
        assert getpass.getuser() not in text


def test_the_commit_is_stored_with_whether_the_source_was_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    outputs = {"rev-parse": "0123abc\n", "status": " M lib/a.py\n"}

    def run_git(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=outputs[command[4]])

    monkeypatch.setattr(environment, "SOURCE_FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", run_git)
    assert describe_environment([])["source"] == {"commit": "0123abc", "changed": True}


@pytest.mark.parametrize("trouble", ["no clone", "no git", "git fails"])
def test_without_a_commit_the_rest_is_still_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    def refuse(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if trouble == "no git":
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess(command, 128, stdout="", stderr="fatal: dubious ownership")

    if trouble != "no clone":
        (tmp_path / ".git").mkdir()
    monkeypatch.setattr(environment, "SOURCE_FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", refuse)
    described = describe_environment([])
    assert described["source"] == {"commit": None, "changed": None}
    assert described["python"]
