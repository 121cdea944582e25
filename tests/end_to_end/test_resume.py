"""A run that is interrupted, terminated or killed resumes and ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace, wait_for

CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8
LONG_EPOCHS = ("--set", "repeats=8")  # 64 steps an epoch: time to be interrupted from outside


def read_weights(run: Path) -> dict[str, bytes]:
    """Every checkpoint of a finished run except the spare copy, which may stem from another save."""
    files = [path for path in (run / "weights").glob("*.pth") if path.name != "last_previous.pth"]
    return {path.name: path.read_bytes() for path in files}


def assert_same_run(run: Path, reference: Path) -> None:
    """Weights, optimiser, random states and selection byte by byte; metrics to the last digit."""
    ours, theirs = read_weights(run), read_weights(reference)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    assert (run / "logs/metrics.csv").read_text() == (reference / "logs/metrics.csv").read_text()


def start_tiny(place: Workplace, *words: str) -> Ended:
    return place.call(STAGE_1, CONFIG, "-n", "first", *words)


def read_train_state(run: Path) -> tuple[int, int]:
    position = json.loads((run / "weights/last.pth.json").read_text())["about"]["position"]
    return position["epoch"], position["step"]


def make_signal(monkeypatch: pytest.MonkeyPatch, number: int, *, at_step: int) -> None:
    """This process gets a signal while it takes its step `at_step` (from 1)."""
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_and_signal(self: TrainStep, *args: object) -> object:
        taken.append(1)
        if len(taken) == at_step:
            os.kill(os.getpid(), number)
        return take(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", take_and_signal)


def make_place(folder: Path, labelled_root: Path) -> Workplace:
    folder.mkdir()
    place = Workplace(folder)
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    return place


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """An uninterrupted run of two epochs."""
    place = make_place(tmp_path_factory.mktemp("reference") / "place", labelled_root)
    assert start_tiny(place).code == 0
    return place.find_run("first")


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """As `reference`, with long epochs."""
    place = make_place(tmp_path_factory.mktemp("long") / "place", labelled_root)
    assert start_tiny(place, *LONG_EPOCHS).code == 0
    return place.find_run("first")


@pytest.mark.parametrize(
    ("at_step", "position"),
    [(1, (1, 1)), (5, (1, 5)), (STEPS_PER_EPOCH, (1, 8)), (STEPS_PER_EPOCH + 1, (2, 1)), (15, (2, 7))],
)
def test_a_run_interrupted_at_any_step_ends_like_an_uninterrupted_one(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch, at_step: int, position: tuple[int, int]
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=at_step)
        stopped = start_tiny(tiny)
    run = tiny.find_run("first")
    assert stopped.code == 130
    assert read_train_state(run) == position
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert f"at epoch {position[0]}, step {position[1]}" in resumed.out
    assert_same_run(run, reference)


VARIANT = ("--set", "sam_every=3", "--set", "sam_friendly=true", "--set", "epoch=1")


@pytest.mark.slow  # tests/train/test_step_cheap_sam.py resumes every variant, without files
def test_a_variant_of_sam_with_a_state_of_its_own_is_resumed_bit_for_bit_between_its_ascents(
    tiny: Workplace, tmp_path: Path, labelled_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path / "whole", labelled_root)
    assert start_tiny(place, *VARIANT).code == 0
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=5)
        assert start_tiny(tiny, *VARIANT).code == 130
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_run(tiny.find_run("first"), place.find_run("first"))
    header, *rows = (tiny.find_run("first") / "logs/metrics.csv").read_text().splitlines()
    share = rows[0].split(",")[header.split(",").index("train_ascents")]
    assert float(share) == pytest.approx(3 / 8)  # steps 0, 3 and 6 of 8


def test_loader_processes_do_not_change_what_a_resumed_run_ends_with(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGTERM, at_step=5)
        assert start_tiny(tiny).code == 143
    assert tiny.call(STAGE_1, "--resume", "first", "--set", "num_workers=2").code == 0
    assert_same_run(tiny.find_run("first"), reference)


def test_a_run_interrupted_while_it_validates_validates_again(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import validate

    compute = validate.compute_tables

    def interrupt_and_compute(*args: object, **kwargs: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return compute(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(validate, "compute_tables", interrupt_and_compute)
        assert start_tiny(tiny).code == 130
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_run(tiny.find_run("first"), reference)


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_save(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train.step import TrainStep

    collect = TrainStep._run_sources
    calls: list[int] = []

    def interrupt_twice(self: TrainStep, batch: object) -> object:
        calls.append(1)
        if len(calls) == STEPS_PER_EPOCH + 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return collect(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "_run_sources", interrupt_twice)
        stopped = start_tiny(tiny)
    run = tiny.find_run("first")
    assert stopped.code == 130
    assert "stopped at once" in stopped.err
    assert "--resume" in stopped.err
    assert read_train_state(run) == (2, 0)
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_run(run, reference)


def test_ctrl_c_in_a_terminal_saves_says_how_to_resume_and_exits_130(tiny: Workplace, long_reference: Path) -> None:
    process = tiny.start(STAGE_1, CONFIG, "-n", "first", *LONG_EPOCHS, "--set", "num_workers=2")
    wait_for(lambda: any(tiny.folder.glob("output/first_*/logs/first_batch.png")), process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the loader's processes, too
    out, err = process.communicate(timeout=400)
    run = tiny.find_run("first")
    assert process.returncode == 130, out + err
    assert "stopping after this step" in err
    assert "Traceback" not in out + err
    match = re.search(r"interrupted at epoch 1, step \d+ of 64; saved\. Go on with: python (.+)$", err.strip())
    assert match is not None, err
    assert match[1] == f"{STAGE_1} --resume output/{run.name}"
    resumed = tiny.call(*match[1].split())
    assert resumed.code == 0, resumed.err
    assert_same_run(run, long_reference)
    assert run == tiny.find_run("first")


def test_sigterm_saves_and_exits_143(tiny: Workplace, long_reference: Path) -> None:
    process = tiny.start(STAGE_1, CONFIG, "-n", "first", *LONG_EPOCHS)
    wait_for(lambda: any(tiny.folder.glob("output/first_*/weights/best_model.pth")), process)
    process.terminate()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 143, out + err
    assert "saved" in err
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    assert_same_run(tiny.find_run("first"), long_reference)


@pytest.mark.parametrize(
    "seen", [pytest.param("logs/first_batch.png", marks=pytest.mark.slow), "weights/best_model.pth.json"]
)
def test_a_killed_run_resumes_from_its_last_save(tiny: Workplace, long_reference: Path, seen: str) -> None:
    process = tiny.start(STAGE_1, CONFIG, "-n", "first", *LONG_EPOCHS)
    wait_for(lambda: any(tiny.folder.glob(f"output/first_*/{seen}")), process)
    kill(process)
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert_same_run(tiny.find_run("first"), long_reference)


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=400)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_again_and_again_loses_nothing(tiny: Workplace, long_reference: Path, workers: int) -> None:
    import random
    import time

    instants = random.Random(workers)
    words = [STAGE_1, CONFIG, "-n", "first", *LONG_EPOCHS, "--set", f"num_workers={workers}"]
    for attempt in range(1, 6):
        process = tiny.start(*words)
        # Each process opens a TensorBoard file of its own when it begins to train.
        wait_for(lambda n=attempt: len(list(tiny.folder.glob("output/first_*/logs/tensorboard/*"))) == n, process)
        time.sleep(instants.uniform(0, 1.2))
        kill(process)
        words = [STAGE_1, "--resume", "first"]
    assert tiny.run(*words).code == 0
    assert_same_run(tiny.find_run("first"), long_reference)


def test_stage_2_is_resumed_with_the_auc_that_it_started_from(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_teacher(tiny)
    assert start_tiny(tiny).code == 0
    whole = tiny.call(STAGE_2, CONFIG, "-n", "whole")
    assert whole.code == 0, whole.err
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=STEPS_PER_EPOCH + 3)
        stopped = tiny.call(STAGE_2, CONFIG, "-n", "parts")
    assert stopped.code == 130
    resumed = tiny.call(STAGE_2, "--resume", "parts")
    assert resumed.code == 0, resumed.err
    assert "before stage 2" not in resumed.out
    against = re.search(r"Against stage 1 \(.*", whole.out)
    assert against is not None
    assert against[0] in resumed.out
    parts, reference = tiny.find_run("parts"), tiny.find_run("whole")
    assert (parts / "logs/metrics.csv").read_text() == (reference / "logs/metrics.csv").read_text()
    assert load_tensors(parts).keys() == load_tensors(reference).keys()
    assert all(value.equal(load_tensors(reference)[name]) for name, value in load_tensors(parts).items())


def save_tiny_teacher(place: Workplace) -> None:
    import torch
    from sharpstudent.models.vision import build_classifier

    (place / "weights").mkdir()
    teacher = build_classifier("test_resnet", classes=2, dropout=None)
    torch.save(teacher.state_dict(), place / "weights/tiny_teacher.pth")


def load_tensors(run: Path) -> dict:
    import torch

    return torch.load(run / "weights/last.pth", weights_only=True)["model"]


def test_tensorboard_shows_every_step_of_an_interrupted_run_once(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=STEPS_PER_EPOCH + 3)
        assert start_tiny(tiny).code == 130
    assert tiny.call(STAGE_1, "--resume", "first").code == 0
    events = EventAccumulator(str(tiny.find_run("first") / "logs/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/lr")] == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert [event.step for event in events.Scalars("val/auc")] == [1, 2]


def test_resuming_a_finished_run_says_that_nothing_is_left_to_do(tiny: Workplace) -> None:
    assert start_tiny(tiny).code == 0
    before = read_weights(tiny.find_run("first"))
    again = tiny.call(STAGE_1, "--resume", "first")
    assert again.code == 0
    assert "nothing left to do" in again.out
    assert f"python {STAGE_2} {CONFIG} -n run" in again.out  # not the run's own config.json, which is of another form
    assert read_weights(tiny.find_run("first")) == before


def test_a_changed_config_is_refused_with_the_difference_unless_it_is_allowed(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=3)
        assert start_tiny(tiny).code == 130
    resume = (STAGE_1, CONFIG, "--resume", "first", "--set", "lr=0.02", "--set", "momentum=0.5")
    stored = (tiny.find_run("first") / "config.json").read_text()
    refused = tiny.call(*resume)
    assert refused.code == 2
    assert "optimizer.lr: 0.02 -> 0.04" in refused.err
    assert "optimizer.momentum: 0.9 -> 0.5" in refused.err
    assert "--allow changed-config" in refused.err
    assert (tiny.find_run("first") / "config.json").read_text() == stored
    allowed = tiny.call(*resume, "--allow", "changed-config")
    assert allowed.code == 0, allowed.err
    assert "changed since the run began: optimizer.lr: 0.02 -> 0.04" in allowed.out
    assert load_momentum(tiny.find_run("first")) == 0.5


def load_momentum(run: Path) -> float:
    import torch

    state = torch.load(run / "weights/last.pth", weights_only=True)
    return state["optimizer"]["base"]["param_groups"][0]["momentum"]


@pytest.mark.parametrize("change", ["student=test_resnet", "optimizer=adamw"])
def test_no_permission_resumes_with_another_model_or_optimiser(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=3)
        assert start_tiny(tiny).code == 130
    stored = (tiny.find_run("first") / "config.json").read_text()
    refused = tiny.call(STAGE_1, CONFIG, "--resume", "first", "--set", change, "--allow", "changed-config")
    assert refused.code == 2
    assert change.split("=")[0].replace("student", "architecture") in refused.err
    assert (tiny.find_run("first") / "config.json").read_text() == stored


def test_a_damaged_last_save_is_replaced_by_the_one_before(
    tiny: Workplace, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=STEPS_PER_EPOCH + 4)
        assert start_tiny(tiny).code == 130
    run = tiny.find_run("first")
    last = run / "weights/last.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert "last_previous.pth" in resumed.out
    assert_same_run(run, reference)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """As in the subprocesses: sums over several threads round differently."""
    import torch

    torch.set_num_threads(1)
