"""What data does to a run while it trains: workers that die or hang, a disk that goes away, files that broke."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import broken_data
import pytest
from sharpstudent.data import workers as loader_workers
from sharpstudent.data.dataset import Samples
from sharpstudent.data.sampler import SampleKey
from workplace import STAGE_1, TINY, Ended, Workplace, wait_for

CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8
TWO_WORKERS = ("--set", "num_workers=2")
ALL_KINDS = list(broken_data.KINDS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """As in the subprocesses: sums over several threads round differently."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """An uninterrupted run of two epochs."""
    place = Workplace(tmp_path_factory.mktemp("reference"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    assert place.call(STAGE_1, CONFIG, "-n", "first").code == 0
    return place.find_run("first")


def assert_same_end(run: Path, reference: Path) -> None:
    """Weights, optimiser, random states and train state to the last bit; metrics to the last digit."""
    assert (run / "weights/last.pth").read_bytes() == (reference / "weights/last.pth").read_bytes()
    assert (run / "logs/metrics.csv").read_text() == (reference / "logs/metrics.csv").read_text()


def assert_stopped(ended: Ended, code: int, *words: str) -> None:
    """That exit code, one message with all the words, no traceback."""
    assert ended.code == code, ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err
    assert ended.err.count("training stopped:" if code == 3 else "error:") == 1
    for word in words:
        assert word in ended.err, f"{word!r} is not in\n{ended.err}"


def kill_a_worker() -> None:
    """As the kernel does when memory runs out; return when the pool has noticed, which a thread of its own does.

    The run notices it if the epoch still needs a batch. Without the wait, the other worker could bring the last ones
    first.
    """
    pid = multiprocessing.active_children()[0].pid
    assert pid is not None
    (pool,) = (opened._pool for opened in loader_workers._OPEN if pid in (opened._pool._processes or {}))
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not pool._broken:
        assert time.monotonic() < deadline, "the pool did not notice that its process died"
        time.sleep(0.005)


def do_at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Before this process takes its step `step` (from 1)."""
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def act_and_take(self: TrainStep, *args: object) -> object:
        taken.append(1)
        if len(taken) == step:
            act()
        return take(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", act_and_take)


def list_children(pid: int) -> list[int]:
    """The processes that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in children.read_text().split()] if children.exists() else []


# --- Workers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, STEPS_PER_EPOCH + 1])
def test_a_worker_killed_during_a_step_stops_the_run_which_resumes_bit_for_bit(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        do_at_step(patch, step, kill_a_worker)
        stopped = tiny.call(STAGE_1, CONFIG, "-n", "first", *TWO_WORKERS)
    assert_stopped(stopped, 3, "a loader process died (killed by SIGKILL)", "--resume", "--set num_workers=1")
    assert multiprocessing.active_children() == []
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_end(tiny.find_run("first"), reference)


def test_a_worker_killed_in_validation_stops_the_run_which_resumes_bit_for_bit(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.evaluation import tables

    open_batches = tables.load_batches
    killed = []

    def open_small_ones_and_kill(samples: Samples, batches: Iterable[list[SampleKey]], **settings: Any) -> object:
        for loaded in open_batches(samples, [[key] for keys in batches for key in keys], **settings):
            if not killed:
                killed.append(1)
                kill_a_worker()
            yield loaded

    with monkeypatch.context() as patch:
        patch.setattr(tables, "load_batches", open_small_ones_and_kill)
        stopped = tiny.call(STAGE_1, CONFIG, "-n", "first", *TWO_WORKERS)
    assert killed
    assert_stopped(stopped, 3, "a loader process died (killed by SIGKILL)")
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_end(tiny.find_run("first"), reference)


def test_no_worker_exists_between_epochs(tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpstudent.train.trainer import Trainer

    finish, seen = Trainer._finish_epoch, []

    def look_and_finish(self: Trainer, *args: object) -> None:
        seen.append(multiprocessing.active_children())
        finish(self, *args)

    with monkeypatch.context() as patch:
        # Killed at the last step of an epoch, when its work is done, a worker is missed by nobody.
        do_at_step(patch, STEPS_PER_EPOCH, kill_a_worker)
        patch.setattr(Trainer, "_finish_epoch", look_and_finish)
        assert tiny.call(STAGE_1, CONFIG, "-n", "first", *TWO_WORKERS).code == 0
    assert seen == [[], []]
    assert_same_end(tiny.find_run("first"), reference)


def test_a_worker_killed_from_outside_ends_the_program_and_leaves_no_process(tiny: Workplace) -> None:
    process = tiny.start(STAGE_1, CONFIG, "-n", "first", "--set", "repeats=200", *TWO_WORKERS)
    wait_for(lambda: any(tiny.folder.glob("output/first_*/logs/first_batch.png")), process)
    workers = list_children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert_stopped(Ended(process.returncode, out, err), 3, "a loader process died (killed by SIGKILL)")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_sigterm_to_all_processes_as_job_schedulers_send_it_saves_and_exits_143(
    tiny: Workplace, reference: Path
) -> None:
    process = tiny.start(STAGE_1, CONFIG, "-n", "first", "--set", "repeats=200", *TWO_WORKERS)
    wait_for(lambda: any(tiny.folder.glob("output/first_*/logs/first_batch.png")), process)
    workers = list_children(process.pid)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 143, out + err
    assert "interrupted at epoch 1" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_an_exception_in_the_training_process_leaves_no_worker(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    do_at_step(monkeypatch, 3, fail)
    with pytest.raises(ZeroDivisionError):
        tiny.call(STAGE_1, CONFIG, "-n", "first", *TWO_WORKERS)
    assert multiprocessing.active_children() == []


def test_a_picture_whose_opening_hangs_stops_the_run_after_loader_timeout(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network folder whose server is gone."""
    from sharpstudent.tasks.deepfake.sources import face

    read, main = face.read_picture, os.getpid()

    def read_or_hang(path: Path) -> Any:
        if os.getpid() != main and path.name == "0.png":
            time.sleep(60)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(face, "read_picture", read_or_hang)
        stopped = tiny.call(STAGE_1, CONFIG, "-n", "first", "--set", "loader_timeout=1", *TWO_WORKERS)
    assert_stopped(stopped, 3, "no batch came", "for 1 s", "begins with ", "--set loader_timeout=2")
    assert multiprocessing.active_children() == []


# --- A disk that goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_folder_that_disappears_stops_the_run_which_resumes_when_it_is_back(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    shutil.copytree((tiny / "data/labelled").resolve(), tiny / "data/disk")
    (tiny / "data/labelled").unlink()
    (tiny / "data/labelled").symlink_to("disk")
    disk, away = tiny / "data/disk", tiny / "data/away"
    with monkeypatch.context() as patch:
        do_at_step(patch, STEPS_PER_EPOCH + 3, lambda: disk.rename(away))
        # An epoch long enough that batches made ahead do not reach its end.
        stopped = tiny.call(STAGE_1, CONFIG, "-n", "first", "--set", f"num_workers={workers}")
    assert_stopped(stopped, 2, ".png: and 19 samples", "could not be read", "No such file", "unmounted", "--resume")
    run = tiny.find_run("first")
    away.rename(disk)
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert "at epoch 2, step 0" in resumed.out
    assert_same_end(run, reference)


# --- Files that broke -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BrokenRun:
    """A run on a set of which some files broke: how it ended, its folder, and the broken paths as a user sees them."""

    ended: Ended
    run: Path
    broken: list[str]

    def list_named(self) -> list[str]:
        """The paths that the console names, which are those that the log names."""
        printed, logged = (
            re.findall(r"left out (\S+\.png): ", text)
            for text in (self.ended.out, (self.run / "logs/losses.logs").read_text())
        )
        assert printed == logged
        return printed

    def assert_finished_and_each_named_once(self) -> None:
        assert self.ended.code == 0, self.ended.err
        assert sorted(self.list_named()) == sorted(self.broken)

    def assert_stopped_with_counts_and_paths(self, pictures: int) -> None:
        assert_stopped(self.ended, 3, f"of {pictures} samples cannot be read (more than 5%)", "repair or remove them")
        counted = re.search(r"(\d+) of \d+ samples", self.ended.err)
        assert counted is not None
        named = self.list_named()
        assert len(named) == len(set(named)) == int(counted[1]) > pictures // 20
        assert set(named) <= set(self.broken)
        assert (self.run / "weights/last.pth").is_file()

    def read_last(self) -> bytes:
        return (self.run / "weights/last.pth").read_bytes()


def train_on_broken(
    folder: Path, *, pictures: int, broken: int, workers: int, kinds: list[str] = ALL_KINDS, seed: int = 0
) -> BrokenRun:
    """Two epochs of such a set, in a folder of its own."""
    folder.mkdir()
    place = Workplace(folder)
    (place / CONFIG).write_text(TINY)
    paths = broken_data.write_set(place / "data/labelled", pictures=pictures)
    paths = broken_data.break_some(paths, broken, kinds=kinds, seed=seed)
    sets = [word for pair in ("batch_size=16", f"num_workers={workers}", f"seed={seed}") for word in ("--set", pair)]
    ended = place.call(STAGE_1, CONFIG, "-n", "x", *sets)
    return BrokenRun(
        ended, place.find_run("x"), [path.relative_to(place / "data/labelled").as_posix() for path in paths]
    )


def test_one_picture_in_a_hundred_that_broke_is_named_once_and_replaced_alike_by_any_number_of_workers(
    tmp_path: Path,
) -> None:
    runs = [train_on_broken(tmp_path / f"{n} workers", pictures=500, broken=5, workers=n) for n in (0, 2)]
    for run in runs:
        run.assert_finished_and_each_named_once()
    assert runs[0].read_last() == runs[1].read_last()


@pytest.mark.parametrize("workers", [0, 2])
def test_one_picture_in_ten_that_broke_stops_the_run_with_counts_and_paths(tmp_path: Path, workers: int) -> None:
    run = train_on_broken(tmp_path / "x", pictures=200, broken=20, workers=workers)
    run.assert_stopped_with_counts_and_paths(200)


def test_a_header_that_claims_billions_of_pixels_costs_no_memory(tmp_path: Path) -> None:
    from sharpstudent.data.dataset import UnreadableSample
    from sharpstudent.tasks.deepfake.sources.face import read_picture

    broken_data.claim_to_be_huge(tmp_path / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableSample, match=r"a\.png: is too large"):
        read_picture(tmp_path / "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_kind_of_broken_file_at_1_and_at_10_percent_for_0_2_and_4_workers(
    tmp_path: Path, kind: str, seed: int
) -> None:
    ends = set()
    for workers in (0, 2, 4):
        few, many = (
            train_on_broken(
                tmp_path / f"{share}, {workers}", pictures=200, broken=share, workers=workers, kinds=[kind], seed=seed
            )
            for share in (2, 20)
        )
        few.assert_finished_and_each_named_once()
        many.assert_stopped_with_counts_and_paths(200)
        ends.add(few.read_last())
    assert len(ends) == 1
