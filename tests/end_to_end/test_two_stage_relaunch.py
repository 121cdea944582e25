"""Two lines of shell, stage 1 and stage 2 with --resume auto, killed repeatedly: they end like an uninterrupted run.

Run as a program, `python test_two_stage_relaunch.py QUIET INTERRUPTED`, this file is the fast form of the two lines: a
process that has loaded everything and trains nothing forks each of the two, so that a launch costs no seconds of
imports. In the folder QUIET nothing interrupts them. In INTERRUPTED each launch kills itself with SIGKILL at another of
the KILL_POINTS, and then come launches without one until the pipeline has ended. Prints one JSON object.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workplace import ENVIRONMENT, STAGE_1, STAGE_2, TINY, Workplace, prepare_forks, wait_for

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/tiny.json"
LINES = ((STAGE_1, CONFIG, "-n", "first", "--resume", "auto"), (STAGE_2, CONFIG, "-n", "second", "--resume", "auto"))
SCRIPT = "set -e\n" + "".join(f"{sys.executable} {' '.join(line)}\n" for line in LINES)
STEPS_PER_EPOCH, EPOCHS = 8, 2
MOST_LAUNCHES = 30


@dataclass(frozen=True)
class KillPoint:
    """An instant: before (or `after`) that call, from 1, of a function in the script of that stage; call 0 is the one
    that saves the state after the last epoch.
    """

    stage: int
    module: str
    name: str
    call: int
    after: bool = False


KILL_POINTS = {
    "stage 1, before its config is stored": KillPoint(1, "sharpstudent.train.run", "write_text_atomically", 1),
    "stage 1, before its first state": KillPoint(1, "sharpstudent.checkpoint.store", "save_checkpoint", 1),
    "stage 1, mid-epoch": KillPoint(1, "sharpstudent.train.step", "TrainStep.__call__", 5),
    "stage 1, between an epoch's file and best_model": KillPoint(
        1, "sharpstudent.checkpoint.selection", "copy_checkpoint", 1
    ),
    "stage 1, between best_model and its safetensors": KillPoint(
        1, "sharpstudent.checkpoint.selection", "export_model", 1
    ),
    "stage 1, second epoch": KillPoint(1, "sharpstudent.train.step", "TrainStep.__call__", STEPS_PER_EPOCH + 3),
    "stage 1, right after its last save": KillPoint(1, "sharpstudent.train.trainer", "save_run_state", 0, after=True),
    "between the stages": KillPoint(1, "sharpstudent.train.finish", "_say_totals", 1, after=True),
    "stage 2, before its first state": KillPoint(2, "sharpstudent.checkpoint.store", "save_checkpoint", 1),
    "stage 2, preflight": KillPoint(2, "sharpstudent.train.validate", "compute_tables", 1),
    "stage 2, mid-epoch": KillPoint(2, "sharpstudent.train.step", "TrainStep.__call__", 3),
    "stage 2, end of an epoch": KillPoint(2, "sharpstudent.train.logger", "MetricsFile.append", 1, after=True),
    "stage 2, second epoch": KillPoint(2, "sharpstudent.train.step", "TrainStep.__call__", STEPS_PER_EPOCH + 6),
    "stage 2, right after its last save": KillPoint(2, "sharpstudent.train.trainer", "save_run_state", 0, after=True),
}


def install(point: KillPoint) -> None:
    """Kill this process with SIGKILL at the kill point."""
    owner: Any = importlib.import_module(point.module)
    *outer, name = point.name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), []

    def count_and_call(*args: object, **kwargs: object) -> object:
        calls.append(1)
        is_it = len(calls) == point.call if point.call else kwargs["progress"]["position"]["epoch"] > EPOCHS
        if is_it and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, count_and_call)


def launch(place: Workplace, point: KillPoint | None) -> tuple[bool, list[str]]:
    """The two lines once, each in a process of its own; whether they ended, and what they printed."""
    printed: list[str] = []
    for stage, line in enumerate(LINES, start=1):
        log = place / f"stage_{stage}.log"
        log.write_text("")
        child = os.fork()
        if child == 0:
            if point is not None and point.stage == stage:
                install(point)
            ended = place.call(*line)
            log.write_text(ended.out + ended.err)
            os._exit(ended.code)
        status = os.waitpid(child, 0)[1]
        printed.append(log.read_text())
        if os.WIFSIGNALED(status):
            return False, printed
        if os.WEXITSTATUS(status) != 0:
            raise SystemExit(f"{line} exited {os.WEXITSTATUS(status)}\n{printed[-1]}")
    return True, printed


def main(quiet: Path, interrupted: Path) -> None:
    prepare_forks()
    print(
        json.dumps(
            {"quiet": run_to_the_end(quiet, []), "interrupted": run_to_the_end(interrupted, list(KILL_POINTS.values()))}
        )
    )


def run_to_the_end(folder: Path, kill_points: list[KillPoint]) -> dict[str, Any]:
    place = Workplace.__new__(Workplace)  # of a folder that is there already
    place.folder = folder
    killed: list[bool] = []
    while len(killed) < MOST_LAUNCHES:
        done, printed = launch(place, kill_points[len(killed)] if len(killed) < len(kill_points) else None)
        killed.append(not done)
        if done and len(killed) > len(kill_points):
            return {"killed": killed, "printed": printed}
    raise SystemExit(f"not done after {MOST_LAUNCHES} launches")


def make_place(folder: Path, labelled_root: Path, teacher: Path) -> Workplace:
    folder.mkdir()
    place = Workplace(folder)
    for name in ("data", "weights"):
        (place / name).mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    shutil.copyfile(teacher, place / "weights/tiny_teacher.pth")
    (place / CONFIG).write_text(TINY)
    (place / "pipeline.sh").write_text(SCRIPT)
    return place


@pytest.fixture(scope="module")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from sharpstudent.models.vision import build_classifier

    path = tmp_path_factory.mktemp("teacher") / "tiny_teacher.pth"
    torch.save(build_classifier("test_resnet", classes=2, dropout=None).state_dict(), path)
    return path


@dataclass(frozen=True)
class Pipelines:
    """An uninterrupted one, one that was killed at every kill point, and what the program printed of the second."""

    quiet: Workplace
    interrupted: Workplace
    killed: list[bool]
    printed: list[str]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path, tiny_teacher: Path) -> Pipelines:
    base = tmp_path_factory.mktemp("pipelines")
    quiet, interrupted = (make_place(base / name, labelled_root, tiny_teacher) for name in ("quiet", "interrupted"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), str(quiet.folder), str(interrupted.folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "helpers")))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["quiet"]["killed"] == [False]
    return Pipelines(quiet, interrupted, **result["interrupted"])


@pytest.fixture
def place(tmp_path: Path, labelled_root: Path, tiny_teacher: Path) -> Workplace:
    return make_place(tmp_path / "place", labelled_root, tiny_teacher)


def find_whole_run(place: Workplace, name: str) -> Path:
    """The only folder of that name that holds a trained model: a kill in the first instant leaves an empty one."""
    (file,) = place.folder.glob(f"output/{name}_*/weights/best_model.pth")
    return file.parents[1]


def assert_ended_alike(place: Workplace, quiet: Workplace) -> None:
    """Of both stages: weights, optimiser, random states and train state bit for bit, and every row of the metrics."""
    for name in ("first", "second"):
        ours, theirs = find_whole_run(place, name), find_whole_run(quiet, name)
        for file in ("last.pth", "best_model.pth", "best_model.safetensors"):
            assert (ours / "weights" / file).read_bytes() == (theirs / "weights" / file).read_bytes(), (name, file)
        rows = (ours / "logs/metrics.csv").read_text()
        assert rows == (theirs / "logs/metrics.csv").read_text()
        assert len(rows.splitlines()) == 1 + EPOCHS
        assert load_model(ours).keys() == load_model(theirs).keys()
        assert all(value.equal(load_model(theirs)[key]) for key, value in load_model(ours).items())


def load_model(run: Path) -> dict[str, Any]:
    import torch

    return torch.load(run / "weights/last.pth", weights_only=True)["model"]


def test_a_pipeline_killed_at_each_kill_point_ends_like_an_uninterrupted_one(pipelines: Pipelines) -> None:
    expected = [True] * len(KILL_POINTS) + [False]
    assert pipelines.killed == expected, dict(zip(KILL_POINTS, pipelines.killed, strict=False))
    assert_ended_alike(pipelines.interrupted, pipelines.quiet)


def test_each_relaunch_names_the_runs_it_skips_and_repeats_nothing(pipelines: Pipelines) -> None:
    # Two kills of stage 1 and one of stage 2 came before a first state.
    assert len(list(pipelines.interrupted.folder.glob("output/first_*"))) == 3
    assert len(list(pipelines.interrupted.folder.glob("output/second_*"))) == 2
    one, two = pipelines.printed
    assert one.count("--resume auto: passed over output/first_") == 2
    assert two.count("--resume auto: passed over output/second_") == 1
    assert all("nothing left to do" in printed for printed in (one, two))


def start_script(place: Workplace) -> subprocess.Popen[str]:
    """The two lines as a scheduler starts them, in a process group of their own."""
    return subprocess.Popen(
        ["sh", "pipeline.sh"],
        cwd=place.folder,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=400)


def seen(place: Workplace, pattern: str) -> Callable[[], bool]:
    return lambda: any(place.folder.glob(pattern))


@pytest.mark.slow
def test_a_shell_script_killed_in_stage_2_resumes_when_it_is_started_again(
    place: Workplace, pipelines: Pipelines
) -> None:
    first = start_script(place)
    wait_for(seen(place, "output/second_*/weights/last.pth.json"), first)
    kill(first)
    again = start_script(place)
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, out + err
    assert "found this command's run output/first_" in out
    assert "found this command's run output/second_" in out
    assert_ended_alike(place, pipelines.quiet)


def draw_instants(seed: int) -> Iterator[float]:
    """Seconds until the next kill: imports take about three, each stage one or two."""
    chance = random.Random(seed)
    while True:
        yield chance.uniform(2.0, 12.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shell_script_killed_at_random_instants_ends_like_an_uninterrupted_one(
    place: Workplace, pipelines: Pipelines, seed: int
) -> None:
    kills, code, out, err = 0, None, "", ""
    for wait in draw_instants(seed):
        process = start_script(place)
        end = time.monotonic() + wait
        while kills < 15 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        if kills < 15 and process.poll() is None:
            kill(process)
            kills += 1
            continue
        out, err = process.communicate(timeout=400)
        code = process.returncode
        break
    assert code == 0, out + err
    assert kills > 0
    assert_ended_alike(place, pipelines.quiet)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
