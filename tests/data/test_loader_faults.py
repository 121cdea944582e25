"""Workers that hang, die or fail: one clear end within seconds, no process left, and nothing that grows."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import faulty_samples
import pytest
from faulty_samples import Faulty
from made_samples import MadeSamples
from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.data import workers as loader_workers
from sharpstudent.data.loader import LoadedBatch, load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.data.workers import _tell_all_but_lost_connections

PROGRAM = Path(__file__).with_name("faulty_loading.py")
TIMEOUT_S = 30.0  # what is noticed at once is noticed before it, however busy the machine
FOLDERS = [str(PROGRAM.parents[2]), str(PROGRAM.parents[1] / "helpers"), str(PROGRAM.parent)]


def open_batches(source: MadeSamples, *, workers: int = 2, timeout_s: float = TIMEOUT_S) -> Iterator[LoadedBatch]:
    """Batches of 4 samples."""
    keys = evaluation_batches(len(source), 4)
    return load_batches(source, keys, seed=0, num_workers=workers, timeout_s=timeout_s)


def list_workers() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


def list_group(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue  # ended meanwhile
        if int(owner) == group and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def wait_until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def at_first_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something as soon as a batch is waited for."""
    look, looks = loader_workers.wait, []

    def act_and_look(futures: Sequence[Future[Any]], seconds: float) -> object:
        looks.append(1)
        if len(looks) == 1:
            act()
        return look(futures, seconds)

    monkeypatch.setattr(loader_workers, "wait", act_and_look)


def wait_longer_for_first(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Processes that start on a busy machine may need longer than the timeout of a test for their first batches."""
    look, known = loader_workers.wait, set[Future[Any]]()

    def look_longer_at_first(futures: Sequence[Future[Any]], seconds: float) -> object:
        known.update(futures)
        return look(futures, seconds if len(known) > count else TIMEOUT_S)

    monkeypatch.setattr(loader_workers, "wait", look_longer_at_first)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    assert list_workers() == []
    yield
    assert list_workers() == []


# --- Hanging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["sleep", "block_in_a_system_call", "halt"])
def test_a_worker_that_hangs_is_reported_after_the_timeout_with_the_batch_and_the_remedy(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault != "halt":
        wait_longer_for_first(monkeypatch, 2)
    batches = open_batches(Faulty(40, getattr(faulty_samples, fault), at=8), timeout_s=0.8)
    start = time.monotonic()
    with pytest.raises(TrainingStopped) as caught:
        list(batches)
    assert 0.8 < time.monotonic() - start < TIMEOUT_S
    assert list_workers() == []  # now, not when the exception is forgotten
    text = str(caught.value)
    # A worker that halts takes along the batches that it has not handed over.
    name = r"photos/[048]\.jpg" if fault == "halt" else r"photos/8\.jpg"
    assert re.match(rf"no batch came from the loader processes for 0\.8 s; .* begins with {name}\. ", text)
    for word in ("saved is intact", "--resume", "--set loader_timeout=1.6", "--set num_workers=0"):
        assert word in text


def test_batches_that_come_within_the_timeout_are_waited_for_however_long_all_of_them_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timeout is five looks; each batch comes at the fourth."""
    look, looks = loader_workers.wait, Counter[Future[Any]]()

    def look_in_vain_at_first(futures: Sequence[Future[Any]], _: float) -> Any:
        looks.update(futures)
        return look([Future()], 0) if looks[futures[0]] < 4 else look(futures, TIMEOUT_S)

    monkeypatch.setattr(loader_workers, "wait", look_in_vain_at_first)
    assert len(list(open_batches(MadeSamples(24), workers=1, timeout_s=2.0))) == 6
    assert sum(looks.values()) > 2 * 5


def test_time_that_the_training_process_spends_elsewhere_is_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_longer_for_first(monkeypatch, 1)
    batches = open_batches(MadeSamples(8), timeout_s=0.8)
    next(batches)
    time.sleep(1.2)
    next(batches)
    batches.close()


@pytest.mark.parametrize("words", [["block_in_a_system_call"], ["block_in_a_system_call", "fail"]])
def test_a_program_whose_workers_hang_deaf_to_signals_ends_after_its_error(words: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, err = process.communicate(timeout=400)
        left = list_group(process.pid)
    finally:
        _kill_group(process)
    assert left == []
    if "fail" in words:
        assert "ZeroDivisionError" in err
    else:
        assert process.returncode == 3
        assert err.startswith("training stopped: no batch came"), err
        assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks for its parent only between batches")
def test_no_worker_outlives_a_training_process_that_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "block_in_a_system_call", "fail"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list_group(process.pid)) == 3
        process.kill()
        process.wait()
        wait_until(lambda: list_group(process.pid) == [])
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_program_that_was_suspended_has_not_waited() -> None:
    """Ctrl-Z for longer than the timeout."""
    program = (
        f"import sys; sys.path[:0] = {FOLDERS}\n"
        "from faulty_samples import Faulty, do_nothing\n"
        "from sharpstudent.data.loader import load_batches\n"
        "from sharpstudent.data.sampler import evaluation_batches\n"
        "source = Faulty(40, do_nothing, seconds=0.4)\n"
        "for _ in load_batches(source, evaluation_batches(40, 4), seed=0, num_workers=1, timeout_s=4):\n"
        "    print('a batch', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(6)
        os.killpg(process.pid, signal.SIGCONT)
        out, err = process.communicate(timeout=400)
    finally:
        _kill_group(process)
    assert process.returncode == 0, err
    assert out.count("a batch") == 9


# --- Dying ----------------------------------------------------------------------------------------------------------


def test_a_worker_killed_while_a_batch_is_waited_for_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = open_batches(Faulty(40, faulty_samples.sleep, at=4))
    next(batches)
    victim = list_workers()[0]
    at_first_look(monkeypatch, threading.Timer(0.2, os.kill, [victim, signal.SIGKILL]).start)
    start = time.monotonic()
    with pytest.raises(TrainingStopped, match=r"a loader process died \(killed by SIGKILL\).*num_workers=1$"):
        next(batches)
    assert time.monotonic() - start < TIMEOUT_S
    assert list_workers() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_killed_while_the_training_process_computes_is_reported_at_the_next_batch_not_in_the_step(
    number: signal.Signals,
) -> None:
    batches = open_batches(Faulty(40, faulty_samples.sleep, at=4))
    next(batches)
    os.kill(list_workers()[0], number)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:  # torch's own handler would raise in here, and a step would fail with a traceback
        sum(range(1000))
    start = time.monotonic()
    with pytest.raises(TrainingStopped, match=rf"a loader process died \(killed by {number.name}\)"):
        next(batches)
    assert time.monotonic() - start < TIMEOUT_S


def test_a_worker_that_dies_as_soon_as_it_starts_is_reported() -> None:
    start = time.monotonic()
    with pytest.raises(TrainingStopped, match="a loader process died"):
        next(open_batches(Faulty(8, faulty_samples.be_killed), workers=1))
    assert time.monotonic() - start < TIMEOUT_S


def test_a_worker_that_dies_is_reported_in_another_than_the_main_thread_too() -> None:
    reported: list[str] = []

    def load() -> None:
        try:
            list(open_batches(Faulty(40, faulty_samples.be_killed, at=8)))
        except TrainingStopped as error:
            reported.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join(60)
    assert reported
    assert "killed by SIGKILL" in reported[0]


def test_a_death_changes_nothing_for_the_next_loading() -> None:
    with pytest.raises(TrainingStopped):
        list(open_batches(Faulty(40, faulty_samples.be_killed, at=8)))
    assert len(list(open_batches(MadeSamples(40)))) == 10


def test_the_handler_of_child_signals_is_put_back() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = open_batches(MadeSamples(40))
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    batches.close()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_workers_leave_ctrl_c_and_sigterm_to_the_training_process() -> None:
    """A job scheduler sends SIGTERM to all processes: the training process needs its workers until it has saved."""
    batches = open_batches(MadeSamples(40))
    next(batches)
    for pid in list_workers():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert len(list(batches)) == 9


# --- Failing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "kind"), [("raise_a_runtime_error", RuntimeError), ("raise_an_os_error", OSError)])
def test_an_exception_of_make_in_a_worker_is_reported_with_its_type_and_its_place(
    fault: str, kind: type[Exception]
) -> None:
    with pytest.raises(UserError, match=f"make raised {kind.__name__}") as caught:
        list(open_batches(Faulty(8, getattr(faulty_samples, fault))))
    assert "a defect, not" in str(caught.value)
    assert f"in {fault}" in str(caught.value)


def test_shared_memory_that_is_full_is_the_users_error_with_the_remedy() -> None:
    """torch would print a traceback in the worker, lose the batch, and wait for it for ever."""
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        list(open_batches(Faulty(40, faulty_samples.run_out_of_shared_memory)))
    assert time.monotonic() - start < TIMEOUT_S
    for word in ("/dev/shm", "--shm-size", "--set num_workers=0", "MB"):
        assert word in caught.value.as_text()


def test_a_bus_error_of_a_worker_points_to_shared_memory() -> None:
    with pytest.raises(TrainingStopped, match=r"killed by SIGBUS.*--shm-size"):
        list(open_batches(Faulty(40, faulty_samples.have_a_bus_error, at=8)))


def test_a_worker_that_cannot_be_started_is_reported_and_those_that_started_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fork, forked = os.fork, []

    def fork_once() -> int:
        if forked:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        forked.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", fork_once)
    with pytest.raises(TrainingStopped, match=r"could not be started \(Resource temp.*--set num_workers=1$") as caught:
        next(open_batches(MadeSamples(8)))
    assert list_workers() == []
    del caught  # until here torch's own objects live, too, which would end them in their own time


def test_a_keyboard_interrupt_while_a_batch_is_waited_for_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started to ignore it
    try:
        batches = open_batches(Faulty(40, faulty_samples.block_in_a_system_call, at=4))
        next(batches)
        at_first_look(monkeypatch, threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start)
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list_workers() == []


@pytest.mark.parametrize("fault", ["sleep", "block_in_a_system_call"])
def test_an_iterator_that_is_closed_early_ends_its_workers_at_once_even_if_they_hang(fault: str) -> None:
    batches = open_batches(Faulty(40, getattr(faulty_samples, fault), at=4))
    next(batches)
    workers = list_workers()
    assert len(workers) == 2
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < TIMEOUT_S
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


# --- Long runs ------------------------------------------------------------------------------------------------------


def measure_use(workers: set[int]) -> dict[str, int]:
    """What a long run could use up: open files, files that its workers left in shared memory, threads."""
    gc.collect()
    shared = Path("/dev/shm")
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "shared": sum(len(list(shared.glob(f"torch_{pid}_*"))) for pid in workers),
        "threads": len(os.listdir("/proc/self/task")),
    }


def list_files() -> list[str]:
    """What the open files of this process are."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if link.is_symlink()]


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize("stops", [False, True], ids=["whole epochs", "epochs that are left early"])
def test_twenty_epochs_use_no_more_files_shared_memory_or_threads_than_two(stops: bool) -> None:
    workers: set[int] = set()

    def take(epochs: int) -> None:
        for _ in range(epochs):
            batches = open_batches(MadeSamples(16))
            next(batches)
            workers.update(list_workers())
            batches.close() if stops else list(batches)
        wait_until(lambda: not any("Executor" in type(thread).__name__ for thread in threading.enumerate()))

    take(2)
    before = measure_use(workers)
    take(20)
    after = measure_use(workers)
    assert len(workers) == 44
    # A leak would be of one an epoch; a pair of files may be somebody else's in this process, opened meanwhile.
    assert after["files"] - before["files"] < 5, list_files()
    assert after["shared"] == 0
    assert after["threads"] <= before["threads"]


def test_a_program_that_has_loaded_several_epochs_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {FOLDERS}\n"
        "import tempfile\n"
        "from pathlib import Path\n"
        "from faulty_samples import Faulty, do_nothing\n"
        "from sharpstudent.data.loader import load_batches\n"
        "from sharpstudent.data.sampler import evaluation_batches\n"
        "for _ in range(3):\n"
        "    batches = load_batches(Faulty(40, do_nothing), evaluation_batches(40, 4), seed=0, num_workers=2)\n"
        "    next(batches)\n"
        "    batches.close()\n"
        "print(len(list(Path(tempfile.gettempdir()).iterdir())))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=120,
        check=True,
    )
    assert int(ended.stdout) <= 1  # one folder of the program's own while it runs, whatever the epochs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reported"), [(EOFError(), ""), (ConnectionResetError(), ""), (KeyError("a"), "KeyError")]
)
def test_a_worker_says_nothing_of_a_connection_that_the_training_process_gave_up(
    error: BaseException, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_all_but_lost_connections(type(error), error, None)
    said = capsys.readouterr().err
    assert reported in said
    assert bool(said) == bool(reported)
