"""Measure what it saves to keep freed memory: CPU seconds of a two-pass step, with and without, in pairs.

    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py                      the demo's sizes, 24 images
    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py --size real --images 4 --rounds 2

Each measurement is a process of its own, since what glibc is told cannot be taken back: one step to warm up, then
`--steps` steps. The order within a pair changes from pair to pair. CPU time, user and system, so that other processes
hardly matter. Says whether all losses are equal to the last bit, too.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from sharpstudent.config.run_config import ComputeSection
from sharpstudent.core.memory import keep_freed_memory
from step_setup import PROGRESS, SIZES, build_setup

WAYS = ("off", "on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--images", type=int, default=24, help="images per batch (two per sample)")
    parser.add_argument("--steps", type=int, default=3, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="pairs")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS[:: 1 if number % 2 else -1]:
            found[way].append(run_child(way))
    for way in WAYS:
        seconds, peak = (statistics.median(one[key] for one in found[way]) for key in ("cpu_s", "peak_mb"))
        print(f"keep_freed_memory={way}: {seconds:.3f} CPU s a step, peak {peak:.0f} MB")
    for key in ("cpu_s", "peak_mb"):
        ratios = [on[key] / off[key] for on, off in zip(found["on"], found["off"], strict=True)]
        print(f"on/off, {key}: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    losses = {tuple(one["losses"]) for way in WAYS for one in found[way]}
    print("losses equal to the last bit" if len(losses) == 1 else f"LOSSES DIFFER: {losses}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a step in this process, its peak of memory, and the losses."""
    keep_freed_memory(options.child, "cpu")
    compute = ComputeSection(channels_last=options.channels_last)
    setup = build_setup(options.size, options.images, compute=compute, base="adamw")
    losses = [setup.step(setup.batch, PROGRESS).loss]
    start = time.process_time()
    losses += [setup.step(setup.batch, PROGRESS).loss for _ in range(options.steps)]
    cpu_s = (time.process_time() - start) / options.steps
    return {"cpu_s": cpu_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "losses": losses}


def run_child(way: str) -> dict[str, Any]:
    """Run this script in another process."""
    command = [sys.executable, *sys.argv, "--child", way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
