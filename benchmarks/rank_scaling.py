"""Measure what ranks cost and what they bring: steps of plain SAM on one process, on one rank and on two ranks.

    python benchmarks/rank_scaling.py                 a table; two ranks need two free processors

One process, one rank under DDP and two ranks take turns, each a process of its own with one thread. The batch is the
same in all, so two ranks have half of it each. The first steps are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lib"), str(Path(__file__).resolve().parent)]

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="images of a batch")
    parser.add_argument("--steps", type=int, default=6, help="counted steps of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--take", action="store_true", help=argparse.SUPPRESS)  # what a started process does
    options = parser.parse_args()
    if options.take:
        print(json.dumps(take_steps(options.images, options.steps)))
        return
    found: dict[str, list[float]] = {"one process": [], "one rank": [], "two ranks": []}
    for number in range(options.rounds):
        ways = list(found)
        for way in ways if number % 2 else ways[::-1]:
            found[way].append(run_ranks(way, options))
    alone = found["one process"]
    print(f"{options.images} images a batch, {options.steps} steps a turn, {options.rounds} turns, wall-clock a step\n")
    print("| Way | Seconds a step, median | Over one process, median | Least to most |")
    print("|---|---|---|---|")
    for way, seconds in found.items():
        ratios = [one / other for one, other in zip(seconds, alone, strict=True)]
        spread = f"**{statistics.median(ratios):.3f}** | {min(ratios):.3f} to {max(ratios):.3f}"
        print(f"| {way} | {statistics.median(seconds):.3f} | {spread} |")


def run_ranks(way: str, options: argparse.Namespace) -> float:
    """Run one way once; returns seconds a step, of the slowest rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = 2 if way == "two ranks" else 1
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    if way == "one process":
        shared = {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--take", "--images", str(options.images), "--steps", str(options.steps)]
    started = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(number)}, stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    seconds = [json.loads(process.communicate()[0]) for process in started]
    if any(process.returncode for process in started):
        sys.exit("a process failed")
    return max(seconds)


def take_steps(images: int, steps: int) -> float:
    """Take steps of the demo's sizes in this process, which is one rank or the only process; returns seconds a step."""
    import torch
    from sharpstudent.core.memory import keep_freed_memory
    from sharpstudent.core.ranks import join_ranks
    from sharpstudent.train.rank_step import RankStep
    from step_setup import build_setup, take_step

    keep_freed_memory("on", "cpu")
    ranks = join_ranks(torch.device("cpu"), 600.0)[0] if "RANK" in os.environ and "WORLD_SIZE" in os.environ else None
    setup = build_setup("demo", images // (1 if ranks is None else ranks.count), base="adamw")
    step = setup.step
    if ranks is not None:
        step.others = RankStep(ranks, step.student, step.criterion, step.compute_loss, is_local=False)
    seconds = []
    for _ in range(WARM_UP + steps):
        begun = time.perf_counter()
        take_step(setup)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[WARM_UP:])


if __name__ == "__main__":
    main()
