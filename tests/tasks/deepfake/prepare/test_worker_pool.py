"""Workers that crash, hang or lose their parent: one task is lost, nothing waits for ever, no process is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import worker_tasks
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.prepare.pool import Lost, WorkerPool

PROGRAM = Path(__file__).with_name("hanging_pool.py")


def run_tasks(tasks: list[str], *, count: int = 2, timeout_s: float = 60.0) -> dict[str, str | Lost]:
    with WorkerPool(worker_tasks.build, count, timeout_s=timeout_s) as pool:
        return dict(pool.run(tasks, lambda: None))


def wait_until(found: object) -> bool:
    assert callable(found)
    end = time.monotonic() + 60
    while not found() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(found())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_each_task_is_done_once_and_no_process_is_left() -> None:
    tasks = [f"task {index}" for index in range(40)]
    assert run_tasks(tasks, count=3) == {task: f"done {task}" for task in tasks}
    assert multiprocessing.active_children() == []


def test_a_crash_loses_only_its_own_task() -> None:
    tasks = ["a", f"signal {signal.SIGSEGV}", "b", "exit 0", f"signal {signal.SIGABRT}", "c"]
    results = run_tasks(tasks)
    assert [task for task in tasks if not isinstance(results[task], Lost)] == ["a", "b", "c"]
    assert results[f"signal {signal.SIGSEGV}"] == Lost("crashed", "the decoder crashed (signal 11)")
    assert results["exit 0"] == Lost("crashed", "the decoder ended its process (exit code 0)")


def test_a_worker_that_is_killed_from_outside_is_reported_as_killed() -> None:
    results = run_tasks([f"signal {signal.SIGKILL}"], count=1)
    (lost,) = results.values()
    assert isinstance(lost, Lost)
    assert "was killed (signal 9); perhaps the memory ran out" in lost.reason


def test_a_hung_worker_is_killed_after_the_timeout_and_the_others_go_on() -> None:
    results = run_tasks(["hang", "a", "b"], timeout_s=1.0)
    assert results == {"hang": Lost("too slow", "took longer than 1 s"), "a": "done a", "b": "done b"}
    assert multiprocessing.active_children() == []


def test_a_user_error_in_a_worker_reaches_the_parent_and_stops_the_pool() -> None:
    with pytest.raises(UserError, match="could not be written") as caught:
        run_tasks(["hang", "refuse"])
    assert caught.value.problems[0].got == "0 bytes free"
    assert multiprocessing.active_children() == []


def test_an_exception_in_a_worker_reaches_the_parent_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"worker_tasks.py(?s:.*)KeyError: 'a defect'"):
        run_tasks(["fail"])


def test_a_worker_that_cannot_start_is_reported_at_once() -> None:
    with (
        pytest.raises(UserError, match="make face-models"),
        WorkerPool(worker_tasks.build_badly, 1, timeout_s=9) as pool,
    ):
        list(pool.run(["a"], lambda: None))
    with pytest.raises(UserError, match="exit code 3"), WorkerPool(worker_tasks.build_and_die, 1, timeout_s=9) as pool:
        list(pool.run(["a"], lambda: None))


def test_what_a_worker_prints_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    run_tasks(["print"], count=1)
    assert "noise" not in capfd.readouterr().err


def test_opencv_keeps_to_one_thread_in_a_worker() -> None:
    assert run_tasks(["threads"], count=1) == {"threads": "1"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda one: str(one)
)
def test_a_parent_that_ends_leaves_no_hung_worker(number: signal.Signals, code: int, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(file)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert wait_until(lambda: file.exists() and file.read_text())
    worker = int(file.read_text())
    assert is_alive(worker)
    if number == signal.SIGINT:  # as from a terminal: to the whole group, the worker included
        os.killpg(parent.pid, number)
    else:
        os.kill(parent.pid, number)
    _, text = parent.communicate(timeout=400)
    assert parent.returncode == code
    assert wait_until(lambda: not is_alive(worker))
    assert "Traceback" not in text
    assert number == signal.SIGKILL or "go on with the same command" in text
