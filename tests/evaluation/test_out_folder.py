"""`--out FOLDER` takes the same command again, however the first one ended, and never touches what is not its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import LOCK_NAME, lock_folder
from sharpstudent.evaluation import run
from sharpstudent.evaluation.run import MARK, RESULTS, _check_folder, reserve_folder


def be_killed(*_: object, **others: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_until_killed(folder: Path, moment: str) -> None:
    """Write a report in a forked process, which is killed before the lock, at the mark, within the report or after."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        return
    if moment == "made":
        run.lock_folder = be_killed
    if moment == "mark":
        os.replace = be_killed
    with reserve_folder(folder, print):
        (folder / "models.md").write_text("half of a report")
        if moment == "whole":
            (folder / RESULTS).write_text("{}")
        be_killed()


def write_half(folder: Path) -> None:
    (folder / "models.md").write_text("half of a report")
    raise UserError.about("results.json", "could not be written (No space left on device)")


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK_NAME}


@pytest.mark.parametrize("moment", ["made", "mark", "written", "whole"])
def test_a_command_that_was_killed_at_any_moment_can_be_repeated(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "out"
    write_until_killed(folder, moment)
    _check_folder(folder)
    with reserve_folder(folder, pytest.fail):
        (folder / RESULTS).write_text("whole")
    assert {RESULTS} <= list_names(folder) <= {RESULTS, "models.md"}


def test_after_a_full_disk_in_the_middle_of_the_report_the_command_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(UserError), reserve_folder(folder, pytest.fail):
        write_half(folder)
    assert list_names(folder) == {"models.md", MARK}
    _check_folder(folder)


def test_an_error_before_the_first_file_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError), reserve_folder(tmp_path / "out", pytest.fail):
        raise UserError.about("--data", "has no faces")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_user_had_made_stays(tmp_path: Path) -> None:
    with pytest.raises(UserError), reserve_folder(tmp_path, pytest.fail):
        raise UserError.about("--data", "has no faces")
    _check_folder(tmp_path)


def test_a_folder_with_a_users_files_is_refused_and_not_marked(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other things"):
        _check_folder(tmp_path)
    assert list_names(tmp_path) == {"thesis.tex"}


def test_a_second_command_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        held = lock_folder(tmp_path, print, doing="written")
        os.write(ready[1], b"x")
        time.sleep(60)
        del held
    os.read(ready[0], 1)
    try:
        with pytest.raises(UserError, match="is being written by another process"), reserve_folder(tmp_path, print):
            pytest.fail("two commands write to one folder")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
