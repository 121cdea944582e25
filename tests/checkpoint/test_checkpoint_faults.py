"""Kills, full disks and unwritable folders while checkpoints are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sharpstudent.checkpoint import store
from sharpstudent.checkpoint.store import load_checkpoint, load_run_state, save_checkpoint, save_run_state
from sharpstudent.core.errors import UserError
from small_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["checkpoint", "run_state", "best"]


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=600, env=environment, check=False
    )


def kill_savers(kind: str, folder: Path, trials: int) -> dict[str, object]:
    program = str(Path(__file__).with_name("killed_saver.py"))
    done = run_python(program, kind, str(folder), str(trials), "7")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_saver_leaves_can_be_read(kind: str, tmp_path: Path) -> None:
    result = kill_savers(kind, tmp_path, 20)
    assert result["failures"] == []
    assert result["saves"] != 0  # the kills fell among real saves


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_saver_leaves_can_be_read_two_hundred_times(kind: str, tmp_path: Path) -> None:
    result = kill_savers(kind, tmp_path, 200)
    assert result["failures"] == []


def test_a_kill_between_the_file_and_its_json_is_recognised_and_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": {"w": torch.zeros(3)}}, about={"epoch": 1})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_text_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {"model": {"w": torch.ones(3)}}, about={"epoch": 2})
    loaded = load_checkpoint(path)
    assert loaded.about == {"epoch": 2}
    assert loaded.tensors["model"]["w"].tolist() == [1, 1, 1]
    assert len(loaded.notes) == 1
    assert "another save" in loaded.notes[0]
    save_checkpoint(path, {"model": {"w": torch.ones(3)}}, about={"epoch": 3})
    assert load_checkpoint(path).notes == ()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from sharpstudent.checkpoint.store import save_run_state
from sharpstudent.core.errors import UserError
folder = Path(sys.argv[1])
if sys.argv[2] != "0":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    save_run_state(folder, tensors={"model": {"w": torch.ones(1_000_000)}}, progress={"epoch": 2})
except UserError as error:
    print(error)
    sys.exit(2)
"""


def check_old_state_survives(folder: Path, limit: int) -> None:
    done = run_python("-c", FULL_DISK, str(folder), str(limit))
    assert done.returncode == 2, done.stderr
    assert "last.pth: could not be written" in done.stdout
    assert "expected: 4,00" in done.stdout  # a million floats and the table
    assert "bytes free" in done.stdout
    state, notes = load_run_state(folder, lambda state: state)
    assert state.about == {"epoch": 1}
    assert notes == ()
    assert [path.name for path in folder.glob(".*")] == []


def test_a_file_that_cannot_grow_leaves_the_old_state_and_names_the_bytes_needed(tmp_path: Path) -> None:
    save_run_state(tmp_path, tensors={"model": {"w": torch.zeros(10)}}, progress={"epoch": 1})
    check_old_state_survives(tmp_path, 100_000)


def test_a_full_disk_leaves_the_old_state_and_names_the_bytes_needed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        save_run_state(disk, tensors={"model": {"w": torch.zeros(10)}}, progress={"epoch": 1})
        check_old_state_survives(disk, 0)


@pytest.mark.parametrize("folder", ["a_file", "/proc"])
def test_a_folder_that_cannot_be_written_is_the_users_error(folder: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("not a folder")
    path = tmp_path / folder / "weights" / "a.pth"
    with pytest.raises(UserError, match="could not be written") as caught:
        save_checkpoint(path, {"model": {}}, about={})
    assert "make the folder writable" in str(caught.value)
