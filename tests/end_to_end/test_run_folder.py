"""The run folder against the world: full and read-only disks, second processes, races for a name, odd paths."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import small_disk
from workplace import STAGE_1, TINY, Ended, Workplace, wait_for

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8
START = (STAGE_1, CONFIG, "-n", "first")
LONG = ("--set", "repeats=8")  # 64 steps an epoch: time for something to happen from outside


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """As in the subprocesses: sums over several threads round differently."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A run of two epochs on a disk with room."""
    place = make_place(tmp_path_factory.mktemp("reference") / "place", labelled_root)
    assert place.call(*START).code == 0
    return place.find_run("first")


def make_place(folder: Path, labelled_root: Path) -> Workplace:
    folder.mkdir(parents=True)
    place = Workplace(folder)
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    return place


def assert_refused(ended: Ended, *words: str) -> None:
    """Exit code 2, one message with all the words, no traceback."""
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("error:") == 1, ended.err
    assert "Traceback" not in ended.out + ended.err
    for word in words:
        assert word in ended.err, f"{word!r} is not in\n{ended.err}"


def assert_same_run(run: Path, reference: Path) -> None:
    """Every weight, optimiser and random state byte by byte, and the metrics to the last digit."""
    files = [path.name for path in (reference / "weights").glob("*.pth") if path.name != "last_previous.pth"]
    files.append("best_model.safetensors")
    assert [name for name in files if not _same_bytes(run / "weights" / name, reference / "weights" / name)] == []
    assert (run / "logs/metrics.csv").read_text() == (reference / "logs/metrics.csv").read_text()


def _same_bytes(ours: Path, theirs: Path) -> bool:
    return ours.is_file() and ours.read_bytes() == theirs.read_bytes()


# Disks that are full. Each writer of a run fails for real, at the one moment when it is its turn.

# Writer -> where it is called from, at which call of the second epoch's or of the start, and the file it names.
WRITERS = {
    "last.pth": ("sharpstudent.checkpoint.store", "save_checkpoint", 2, r"weights/last\.pth"),
    "epoch checkpoint": ("sharpstudent.train.trainer", "save_checkpoint", 2, r"weights/2_0\.\d{4}_val\.pth"),
    "best_model.safetensors": (
        "sharpstudent.checkpoint.selection",
        "export_model",
        1,
        r"weights/best_model\.safetensors",
    ),
    "metrics.csv, first row": ("sharpstudent.train.logger", "MetricsFile.append", 1, r"logs/metrics\.csv"),
    "metrics.csv, second row": ("sharpstudent.train.logger", "MetricsFile.append", 2, r"logs/metrics\.csv"),
    "losses.logs": ("sharpstudent.train.logger", "LossesLog.append", -1, r"logs/losses\.logs"),
    "TensorBoard": ("sharpstudent.train.logger", "TensorBoardLog.flush", 2, r"logs/tensorboard"),
    "curves.png": ("sharpstudent.train.logger", "draw_curves", 2, r"logs/curves\.png"),
    "first_batch.png": ("sharpstudent.tasks.deepfake.report.pictures", "draw_batch", 1, r"logs/first_batch\.png"),
}
Fault = Callable[[], None]


def fail_before(patch: pytest.MonkeyPatch, writer: str, fault: Fault) -> list[str]:
    """Let `fault` happen just before the chosen call of a writer; the list is no longer empty once it has."""
    import importlib

    module_name, name, at_call, _ = WRITERS[writer]
    owner: object = importlib.import_module(module_name)
    *outer, name = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    write, calls, happened = getattr(owner, name), [], []

    def fail_and_write(*args: object, **kwargs: object) -> object:
        calls.append(args)
        is_epoch_2 = any("Epoch 2/" in str(arg) for arg in args)
        if (is_epoch_2 if at_call == -1 else len(calls) == at_call) and not happened:
            happened.append(writer)
            fault()
        return write(*args, **kwargs)

    patch.setattr(owner, name, fail_and_write)
    return happened


def fill(folder: Path) -> None:
    """To the last byte."""
    with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def assert_fails_and_resumes(
    place: Workplace, reference: Path, writer: str, patch: pytest.MonkeyPatch, fault: Fault, mend: Fault
) -> None:
    from sharpstudent.checkpoint.store import load_run_state

    with patch.context() as inner:
        happened = fail_before(inner, writer, fault)
        try:
            ended = place.call(*START)
        finally:
            mend()
    assert happened == [writer]
    assert_refused(ended, "could not be written", "bytes free", "free space")
    assert re.search(rf"output/first_\S+/{WRITERS[writer][3]}", ended.err), ended.err
    run = place.find_run("first")
    _, notes = load_run_state(run / "weights", lambda state: state)
    assert notes == ()
    assert [str(path) for path in run.rglob("*.partial")] == []
    resumed = place.call(*START, "--resume", "auto")
    assert resumed.code == 0, resumed.err
    assert f"found this command's run output/{run.name}" in resumed.out
    assert_same_run(run, reference)


@pytest.mark.parametrize("writer", list(WRITERS))
def test_a_file_that_cannot_grow_ends_the_run_with_one_message_and_nothing_is_lost(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert_fails_and_resumes(
        tiny,
        reference,
        writer,
        monkeypatch,
        fault=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1])),
        mend=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before),
    )


# An append of less than what is left of its file's last block succeeds on a full disk; so do hard links.
@pytest.mark.parametrize("writer", ["last.pth", "epoch checkpoint", "best_model.safetensors", "curves.png"])
def test_a_full_disk_ends_the_run_with_one_message_and_nothing_is_lost(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    with small_disk(tiny / "output") as disk:
        assert_fails_and_resumes(
            tiny, reference, writer, monkeypatch, fault=lambda: fill(disk), mend=(disk / "filler").unlink
        )


def test_a_full_disk_before_the_config_is_stored_leaves_a_folder_that_resume_ignores(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import run

    write = run.write_text_atomically
    with small_disk(tiny / "output") as disk, monkeypatch.context() as patch:
        patch.setattr(run, "write_text_atomically", lambda *args: (fill(disk), write(*args)))
        ended = tiny.call(*START)
        (disk / "filler").unlink()
        patch.undo()
        assert_refused(ended, "config.json: could not be written", "bytes free")
        (left,) = disk.glob("first_*")
        assert list(left.rglob("*.partial")) == []
        again = tiny.call(*START, "--resume", "auto")
        assert again.code == 0, again.err
        assert f"passed over output/{left.name}: it has no config.json" in again.out
        (new,) = [path for path in disk.glob("first_*") if path != left]
        assert_same_run(new, reference)


def test_a_disk_without_room_for_the_first_saves_is_refused_before_anything_is_written(tiny: Workplace) -> None:
    with small_disk(tiny / "output", "2m") as disk:
        assert_refused(tiny.call(*START), "output: there is no space for the first saves", "bytes free", "output_root")
        assert list(disk.iterdir()) == []


def test_a_run_says_how_much_disk_space_it_needs(tiny: Workplace) -> None:
    ended = tiny.call(*START, "--set", "epoch=1")
    assert re.search(r"the run needs up to \d+\.\d MB in output, where .+ are free", ended.out), ended.out


# Folders that are read-only: from the start, and from some moment on.


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below `folder` can be made or opened for writing. For root, whom no mode binds, by a read-only mount."""
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
        return
    done = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a folder cannot be mounted read-only here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_output_folder_is_refused_before_the_first_batch(tiny: Workplace) -> None:
    (tiny / "output").mkdir()
    with read_only(tiny / "output"):
        ended = tiny.call(*START)
    assert_refused(ended, "output_root = 'output': cannot be written", "--set output_root=FOLDER")
    assert tiny.list_output() == []
    assert "Epoch" not in ended.out


def test_a_run_whose_folder_has_become_read_only_is_refused_and_left_as_it_was(
    tiny: Workplace, reference: Path
) -> None:
    shutil.copytree(reference, tiny / "output" / reference.name)
    before = tiny.list_output()
    with read_only(tiny / "output"):
        ended = tiny.call(*START, "--resume", "auto")
    assert_refused(ended, f"output/{reference.name}/.lock: could not be written")
    assert tiny.list_output() == before


@pytest.mark.parametrize("writer", ["last.pth", "epoch checkpoint", "metrics.csv, second row", "losses.logs"])
def test_a_folder_that_becomes_read_only_ends_the_run_with_one_message_and_nothing_is_lost(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    with contextlib.ExitStack() as mounts:
        assert_fails_and_resumes(
            tiny,
            reference,
            writer,
            monkeypatch,
            fault=lambda: mounts.enter_context(read_only(tiny / "output")),
            mend=mounts.close,
        )


# Two processes, and one that is gone.


def test_a_relaunch_is_refused_while_the_run_is_alive_and_resumes_at_once_after_a_kill(tiny: Workplace) -> None:
    from sharpstudent.core.io import lock_folder

    relaunch = (*START, "--resume", "auto", *LONG, "--set", "epoch=1", "--set", "num_workers=2")
    first = tiny.start(*relaunch)
    try:
        wait_for(lambda: any(tiny.folder.glob("output/first_*/logs/first_batch.png")), first)
        run = tiny.find_run("first")
        described = (run / "environment.json").read_bytes(), (run / "environment.json").stat().st_mtime_ns
        refused = tiny.call(*relaunch)
        assert_refused(refused, f"output/{run.name}: is being trained by another process", f"process {first.pid} on ")
        assert ((run / "environment.json").read_bytes(), (run / "environment.json").stat().st_mtime_ns) == described
        first.kill()
        first.wait()
        lock = lock_folder(run, pytest.fail)
        assert lock is not None
        lock.release()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    resumed = tiny.call(*relaunch)
    assert resumed.code == 0, resumed.err
    assert run == tiny.find_run("first")
    finished = tiny.call(*relaunch)
    assert finished.code == 0, finished.err
    assert "nothing left to do" in finished.out


def test_a_dry_run_with_resume_auto_neither_locks_nor_writes(tiny: Workplace, reference: Path) -> None:
    shutil.copytree(reference, tiny / "output" / reference.name)
    before = {path: path.stat().st_mtime_ns for path in (tiny / "output").rglob("*")}
    ended = tiny.call(*START, "--resume", "auto", "--dry-run")
    assert ended.code == 0, ended.err
    assert "found this command's run" in ended.out
    assert "nothing was written" in ended.out
    assert {path: path.stat().st_mtime_ns for path in (tiny / "output").rglob("*")} == before


RACERS = """
import os, sys, time
from sharpstudent.core.io import lock_folder
from sharpstudent.config.cli import parse_command_line
from sharpstudent.train import run
from sharpstudent.registry import find_task

config = parse_command_line(["configs/tiny.json", "-n", "twin"], stage=1, find_task=find_task).config
gate, opener = os.pipe()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        os.close(opener)
        os.read(gate, 1)  # until the last holder of the other end has closed it
        for _ in range(5):
            folder = run._make_run_folder(config)
            held = lock_folder(folder, print)
            (folder / "mine").touch(exist_ok=False)
            os.write(1, f"{folder}\\n".encode())
        os._exit(0)
os.close(gate)
os.close(opener)
codes = [os.wait()[1] for _ in range(int(sys.argv[1]))]
assert not any(codes), codes
"""


@pytest.mark.parametrize("racers", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_processes_that_race_for_a_name_never_share_a_folder(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch, racers: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", RACERS, str(racers)], cwd=tiny.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = done.stdout.splitlines()
    assert len(made) == len(set(made)) == 5 * racers
    assert sorted(made) == [f"output/{name}" for name in tiny.list_output() if "/" not in name]
    stamps = {re.match(r"output/twin_tiny_((?:\d\d_){4}\d\d)", name)[1] for name in made}  # type: ignore[index]
    assert len(stamps) < racers  # they did meet within a second


# Names that a user's disk may have.

ODD = {
    "Unicode": "Läufe für 顔/🙂",
    "spaces and signs": "my runs/it's [best] & $ #1; 100%",
    "long": "/".join(letter * 200 for letter in "abcdefgh"),
}


@pytest.mark.parametrize("odd", list(ODD))
def test_output_and_data_may_lie_in_folders_of_any_name(tiny: Workplace, labelled_root: Path, odd: str) -> None:
    output, data = f"out {ODD[odd]}", f"in {ODD[odd]}"
    shutil.copytree(labelled_root, tiny / data)
    words = (*START, "--set", f"output_root={output}", "--set", f"data_root={data}", "--set", "epoch=1")
    ended = tiny.call(*words)
    assert ended.code == 0, ended.err
    (run,) = (tiny / output).iterdir()
    assert {"last.pth", "best_model.pth", "best_model.safetensors"} <= {
        path.name for path in (run / "weights").iterdir()
    }
    assert json.loads((run / "config.json").read_text())["output_root"] == output
    again = tiny.call(*words, "--resume", "auto")
    assert again.code == 0, again.err
    assert "nothing left to do" in again.out
    named = tiny.call(STAGE_1, "--resume", "first", "--set", f"output_root={output}")
    assert named.code == 0, named.err


@pytest.mark.parametrize("root", ["x" * 300, "/".join(["x" * 200] * 21)], ids=["name", "path"])
def test_an_output_root_that_is_too_long_is_the_users_error(tiny: Workplace, root: str) -> None:
    assert_refused(tiny.call(*START, "--set", f"output_root={root}"), "output_root", "File name too long")
