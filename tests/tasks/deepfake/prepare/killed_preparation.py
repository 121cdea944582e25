"""A preparation that is killed again and again, and relaunched each time by the same command; a program.

    python killed_preparation.py FOLDER KILLS SEED WORKERS SHARDS

A process that has loaded everything forks each launch. Kills come in turns: the whole process group at a random
instant of the clock; the parent alone at such an instant; the parent at a random fsync, rename or removal, before it or
after. When a set is finished it is compared with the undisturbed one, removed, and begun again, until KILLS launches
have been killed. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[4]), str(Path(__file__).resolve().parent)]

WAYS = ("group", "parent", "save", "save")


def main(folder: Path, kills: int, seed: int, workers: int, shards: bool) -> None:
    import sharpstudent.core.io  # noqa: F401 loads torch, once for all launches
    import text_clips

    source, dest = text_clips.write_many(folder / "source", 24, slow=0.02), folder / "set"
    draw = random.Random(seed)
    started = time.monotonic()
    assert launch(source, dest, workers, shards, None, draw) == (True, "")
    seconds = time.monotonic() - started
    reference = text_clips.read_all(dest)
    ways, failures, sets, killed = dict.fromkeys(WAYS, 0), [], 0, 0
    shutil.rmtree(dest)
    while killed < kills or dest.exists():
        way = WAYS[killed % len(WAYS)] if killed < kills else None
        ended, text = launch(source, dest, workers, shards, way, draw, seconds)
        if text:
            failures.append(f"{way}: {text[-1500:]}")
        if not ended:
            killed += 1
            ways[str(way)] += 1
            continue
        sets += 1
        found = text_clips.read_all(dest)
        names = found.keys() ^ reference.keys() | {name for name in found if found[name] != reference.get(name)}
        failures += [f"set {sets}: {name} differs" for name in sorted(names)]
        shutil.rmtree(dest)
        if len(failures) > 5:
            break
    print(json.dumps({"killed": killed, "ways": ways, "sets": sets, "seconds": seconds, "failures": failures}))


def launch(
    source: Path, dest: Path, workers: int, shards: bool, way: str | None, draw: random.Random, seconds: float = 0.0
) -> tuple[bool, str]:
    """The preparation once, in a process of its own: whether it ended by itself, and what went wrong."""
    log = dest.parent / "log"
    log.write_text("")
    delay, point, after = draw.uniform(0.02, seconds), draw.randint(1, 60), draw.random() < 0.5
    child = os.fork()
    if child == 0:
        os.setsid()
        if way == "save":
            die_in_a_save(point, after)
        os._exit(run(source, dest, workers, shards, log))
    if way in ("group", "parent"):
        end = time.monotonic() + delay
        while time.monotonic() < end and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL) if way == "group" else os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return not os.WIFSIGNALED(status), log.read_text() + find_left(child)


def find_left(group: int) -> str:
    """Processes of the launch that are still there a minute after its end."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, 0)
            time.sleep(0.005)
            continue
        return ""
    os.killpg(group, signal.SIGKILL)
    return "a process was left"


def run(source: Path, dest: Path, workers: int, shards: bool, log: Path) -> int:
    import traceback

    import sharpstudent.tasks.deepfake.prepare.packing as packing
    import sharpstudent.tasks.deepfake.prepare.run as preparation
    import text_clips

    preparation.check_models = lambda clips: None
    packing.SHARD_MEMBERS = 10
    try:
        text_clips.prepare(source, dest, workers=workers, shards=shards)
        return 0
    except BaseException:  # noqa: BLE001 the parent reads the log
        log.write_text(traceback.format_exc())
        return 1


def die_in_a_save(point: int, after: bool) -> None:
    """Kill this process at its `point`-th fsync, rename or removal, before it or after."""
    seen = [0]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def count_and_call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == point and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if seen[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, count_and_call)

    for name in ("fsync", "replace", "unlink", "rmdir"):
        wrap(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]), sys.argv[5] == "shards")
