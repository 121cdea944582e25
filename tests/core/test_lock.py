"""One process a run folder, whatever ends the one that holds it."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sharpstudent.core import io
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import LOCK_NAME, lock_folder

ROOT = Path(__file__).resolve().parents[2]

# Takes the folder, leaves a forked child behind as a loader process is left, says both numbers, and waits.
HOLDER = """
import os, sys, time
from pathlib import Path
from sharpstudent.core.io import lock_folder
lock = lock_folder(Path(sys.argv[1]), print)
child = os.fork()
if child == 0:
    del lock  # what a forked child drops is not its own
    time.sleep(60)
    os._exit(0)
print(os.getpid(), child, flush=True)
time.sleep(60)
"""
TAKER = """
import sys
from pathlib import Path
from sharpstudent.core.io import lock_folder
from sharpstudent.core.errors import exit_codes
with exit_codes():
    lock = lock_folder(Path(sys.argv[1]), print)
"""


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def refuse_lock(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        lock_folder(folder, pytest.fail)
    return str(caught.value)


def take_once(folder: Path) -> None:
    lock = lock_folder(folder, pytest.fail)
    assert lock is not None
    lock.release()


@pytest.mark.skipif(io.fcntl is None, reason="this system has no POSIX locks")
def test_a_second_process_is_refused_until_the_first_is_killed_though_a_child_of_it_lives_on(tmp_path: Path) -> None:
    holder = start(HOLDER, tmp_path)
    assert holder.stdout is not None
    pid, child = map(int, holder.stdout.readline().split())
    try:
        text = refuse_lock(tmp_path)
        assert f"{tmp_path}: is being trained by another process" in text
        assert f"process {pid} on this machine, since " in text
        assert "wait until it has ended, or stop it" in text
        holder.kill()
        holder.wait()
        take_once(tmp_path)
        os.kill(child, 0)  # it lives: a lock that forks inherit would still be held
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.communicate()


@pytest.mark.skipif(io.fcntl is None, reason="this system has no POSIX locks")
def test_a_process_that_is_refused_says_so_and_exits_2_and_takes_it_when_it_is_given_up(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, pytest.fail)
    assert lock is not None
    taker = start(TAKER, tmp_path)
    out, err = taker.communicate(timeout=400)
    assert taker.returncode == 2, out + err
    assert f"process {os.getpid()} on " in err
    lock.release()
    taker = start(TAKER, tmp_path)
    out, err = taker.communicate(timeout=400)
    assert (taker.returncode, out, err) == (0, "", "")


def test_a_process_gets_its_own_lock_again_and_keeps_it_when_one_user_of_it_is_gone(tmp_path: Path) -> None:
    first = lock_folder(tmp_path, pytest.fail)
    second = lock_folder(tmp_path / ".", pytest.fail)
    assert first is second is not None
    del first
    gc.collect()
    taker = start(TAKER, tmp_path)
    assert taker.wait(timeout=60) == 2
    taker.communicate()
    second.release()


def test_the_lock_file_names_its_holder_only_while_it_is_held(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, pytest.fail)
    assert lock is not None
    record = json.loads((tmp_path / LOCK_NAME).read_text())
    assert record["pid"] == os.getpid()
    assert socket.gethostname() not in (tmp_path / LOCK_NAME).read_text()
    del lock
    gc.collect()
    assert (tmp_path / LOCK_NAME).read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}', b"[1]", b"\xff\xfe" * 5000])
def test_a_holder_that_left_no_readable_name_is_still_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    monkeypatch.setattr(io.fcntl, "lockf", fail_with(errno.EAGAIN))
    assert "an unknown process" in refuse_lock(tmp_path)


def fail_with(number: int):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_reported_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    said: list[str] = []
    monkeypatch.setattr(io.fcntl, "lockf", fail_with(number))
    assert lock_folder(tmp_path, said.append) is None
    (line,) = said
    assert f"{tmp_path} is not locked" in line
    assert os.strerror(number) in line


def test_a_system_without_locks_is_reported_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(io, "fcntl", None)
    assert lock_folder(tmp_path, said.append) is None
    assert "this system has no POSIX locks" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_no_lock_file_can_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    assert f"{tmp_path / LOCK_NAME}: could not be written" in refuse_lock(tmp_path)
