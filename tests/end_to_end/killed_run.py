"""A run that is killed with SIGKILL again and again, and relaunched each time by the same command; a program.

    python killed_run.py FOLDER KILLS SEED WORKERS

FOLDER holds data/ and configs/killed.json. A process that has loaded everything and trains nothing forks each launch,
so that a launch costs no seconds of imports. Kills come in turns: at a random instant of the clock; inside a save (at
a random write, fsync, rename or link); between SAM's two passes. When a run has ended, it is compared and the next one
is begun, until KILLS processes have been killed. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers"), str(Path(__file__).resolve().parent)]

WAYS = ("clock", "save", "save", "passes")  # half of the kills fall inside a save


def main(folder: Path, kills: int, seed: int, workers: int) -> None:
    from workplace import prepare_forks

    prepare_forks()
    os.chdir(folder)
    draw = random.Random(seed)
    started = time.monotonic()
    ended, text = launch(workers, None, draw)
    assert ended, text
    seconds = time.monotonic() - started
    reference = read_run(set_aside("reference"))
    counts = dict.fromkeys(WAYS, 0)
    failures: list[str] = []
    runs = launches = killed = 0
    while killed < kills:
        way = WAYS[killed % len(WAYS)]
        launches += 1
        ended, text = launch(workers, way, draw, seconds)
        if "Traceback" in text or "error:" in text:
            failures.append(f"launch {launches} ({way}): {text[-2000:]}")
            break
        if ended:
            runs += 1
            failures += compare(set_aside(f"run_{runs}"), reference)
            continue
        killed += 1
        counts[way] += 1
    else:
        while not launch(workers, None, draw)[0]:  # the last run, to its end
            pass
        runs += 1
        failures += compare(set_aside(f"run_{runs}"), reference)
    print(json.dumps({"killed": killed, "ways": counts, "runs": runs, "launches": launches, "failures": failures}))


def launch(workers: int, way: str | None, draw: random.Random, seconds: float = 0.0) -> tuple[bool, str]:
    """The command once, in a process of its own; whether it ended by itself, and what it printed."""
    log = Path("launch.log")
    log.write_text("")
    delay, point, after = draw.uniform(0.05, 0.9 * seconds + 0.1), draw.randint(1, 40), draw.random() < 0.5
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if way == "save":
            die_in_a_save(point, after)
        elif way == "passes":
            die_between_passes(draw.randint(1, 12))
        os._exit(run_script(workers, log))
    with contextlib.suppress(OSError):  # whoever is first: the child may not have come so far when it is killed
        os.setpgid(child, child)
    status: int | None = None
    if way == "clock":
        end = time.monotonic() + delay
        while status is None and time.monotonic() < end:
            pid, found = os.waitpid(child, os.WNOHANG)
            status = found if pid else None
            time.sleep(0.002)
        if status is None:
            os.killpg(child, signal.SIGKILL)
    if status is None:
        status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # loader processes of a launch that killed itself
    code = os.waitstatus_to_exitcode(status)
    text = log.read_text()
    if code not in (0, -signal.SIGKILL):
        return True, f"error: exit code {code}\n{text}"
    return code == 0, text


def run_script(workers: int, log: Path) -> int:
    from workplace import STAGE_1, Workplace

    place = Workplace.__new__(Workplace)
    place.folder = Path.cwd()
    words = ("configs/killed.json", "-n", "run", "--resume", "auto", "--set", f"num_workers={workers}")
    ended = place.call(STAGE_1, *words)
    log.write_text(ended.out + ended.err)
    return ended.code


def die_in_a_save(point: int, after: bool) -> None:
    """Kill this process at the `point`-th write, fsync, rename or link of an atomic file, before it or after."""
    seen = [0]

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def count_and_call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == point and not after:
                die(args)
            result = real(*args, **kwargs)
            if seen[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, count_and_call)

    def die(args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Path) and len(args) > 1 and isinstance(args[1], bytes | memoryview):
            io.FileIO(args[0], "w").write(args[1][: len(args[1]) // 2])  # half of the file has been written
        os.kill(os.getpid(), signal.SIGKILL)

    wrap(Path, "write_bytes")
    for name in ("fsync", "replace", "link"):
        wrap(os, name)


def die_between_passes(number: int) -> None:
    """Kill this process in its `number`-th step, when the weights are those of w + e."""
    from sharpstudent.train.step import TrainStep

    real, seen = TrainStep._forward_backward, [0]

    def forward_backward(self: TrainStep, parts: Any, progress: Any, which: str) -> Any:
        seen[0] += which == "pass 2"
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, parts, progress, which)

    TrainStep._forward_backward = forward_backward  # type: ignore[method-assign]


def set_aside(name: str) -> Path:
    """The one run that is complete, moved to where `--resume auto` does not find it; the others are removed."""
    done = [path.parent.parent for path in Path("output").glob("run_*/weights/last.pth.json") if is_complete(path)]
    (run,) = done
    target = Path("done") / name
    target.parent.mkdir(exist_ok=True)
    run.rename(target)
    shutil.rmtree("output")  # folders of launches that were killed before their first save
    return target


def is_complete(record: Path) -> bool:
    return json.loads(record.read_text())["about"]["position"]["epoch"] > 3


def read_run(run: Path) -> dict[str, bytes]:
    """Checkpoints and metrics; the spare copy may stem from another save."""
    files = [*run.glob("weights/*.pth"), *run.glob("weights/*.safetensors"), run / "logs/metrics.csv"]
    return {path.name: path.read_bytes() for path in files if path.name != "last_previous.pth"}


def compare(run: Path, reference: dict[str, bytes]) -> list[str]:
    """What differs from the uninterrupted run, and what a killed writer left behind."""
    ours = read_run(run)
    trouble = [f"{run}: {name} differs" for name in reference if ours.get(name) != reference[name]]
    trouble += [f"{run}: {name} is too many" for name in ours if name not in reference]
    lines = (run / "logs/losses.logs").read_text().splitlines()
    epochs = [line.split(" | ")[0] for line in lines if line.startswith("Epoch ")]
    if epochs != [f"Epoch {epoch}/3" for epoch in (1, 2, 3)]:
        trouble.append(f"{run}: lines of losses.logs: {epochs}")
    trouble += [f"{run}: left behind: {path}" for path in run.rglob("*.partial")]
    if not trouble:
        shutil.rmtree(run)
    return trouble


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]))
