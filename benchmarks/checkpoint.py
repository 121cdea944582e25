"""What it costs to save the state a run resumes from (`last.pth` and its JSON, fsynced), and its share of the time.

    python benchmarks/checkpoint.py --size real

The share is that of one save in ten minutes, the default inside an epoch; every epoch's end adds one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch
from sharpstudent.checkpoint.store import save_run_state
from sharpstudent.train.state import TrainState, capture_step
from step_setup import SIZES, build_setup, measure_seconds, take_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--base", choices=("sgd", "adamw"), default="adamw")
    parser.add_argument("--ema", action="store_true", help="with averaged weights")
    parser.add_argument("--saves", type=int, default=11)
    parser.add_argument("--folder", help="where to write; default: the system's temporary folder")
    options = parser.parse_args()
    setup = build_setup(options.size, 4, base=options.base, ema_decay=0.999 if options.ema else None)
    step_seconds = [measure_seconds(take_step, setup) for _ in range(3)]  # the optimiser has its state now
    times: list[float] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.saves):
            start = time.perf_counter()
            tensors = capture_step(setup.step, torch.device("cpu"))
            save_run_state(Path(folder), tensors=tensors, progress={"position": TrainState().to_json()})
            times.append(time.perf_counter() - start)
        megabytes = (Path(folder) / "last.pth").stat().st_size / 2**20
    save = statistics.median(times)
    print(f"{SIZES[options.size][1]}, {options.base}{', averaged weights' if options.ema else ''}: {megabytes:.1f} MB")
    print(f"save: median {save:.3f} s ({min(times):.3f} to {max(times):.3f}, {len(times)} saves)")
    print(f"one in ten minutes: {save / 600:.2%} of the time; a step of 4 images takes {min(step_seconds):.3f} s")


if __name__ == "__main__":
    main()
