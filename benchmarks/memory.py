"""Peak memory of one step above the models at rest, for each way to save some; every row in a process of its own.

    python benchmarks/memory.py --size demo --images 24

On a CPU: growth of the process's largest resident size; on CUDA: torch.cuda.max_memory_allocated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

ROWS: dict[str, dict[str, Any]] = {
    "naive step, teacher twice": {"naive": True},
    "step": {},
    "step, channels last": {"compute": {"channels_last": True}},
    "step, bf16": {"compute": {"precision": "bf16"}},
    "step, gradient checkpointing": {"compute": {"gradient_checkpointing": True}},
    "step, 4 micro-batches": {"parts": 4},
    "step, 4 micro-batches, gradient checkpointing": {"parts": 4, "compute": {"gradient_checkpointing": True}},
    "step, averaged weights": {"ema_decay": 0.999},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("demo", "real"), default="demo")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", choices=ROWS, help="measure this row alone, in this process")
    options = parser.parse_args()
    if options.row is not None:
        print(*measure_row(options))
        return
    print(f"{options.size}, {options.images} images, {options.device}")
    for row in ROWS:
        words = ["--size", options.size, "--images", str(options.images), "--device", options.device, "--row", row]
        ended = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
        if ended.returncode != 0:
            print(f"{row:<48} failed: {ended.stderr.strip().splitlines()[-1]}")
            continue
        megabytes, seconds = ended.stdout.split()
        print(f"{row:<48} {float(megabytes):8.0f} MB   {float(seconds):7.2f} s a step")


def measure_row(options: argparse.Namespace) -> tuple[float, float]:
    """Megabytes above the models at rest, and seconds of the second step."""
    import torch
    from sharpstudent.config.run_config import ComputeSection
    from step_setup import build_setup, measure_seconds, take_naive_step, take_step

    row = ROWS[options.row]
    way = take_naive_step if row.get("naive") else take_step
    setup = build_setup(
        options.size,
        options.images,
        device=options.device,
        compute=ComputeSection(**row.get("compute", {})),
        parts=row.get("parts", 1),
        ema_decay=row.get("ema_decay"),
    )
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _peak_resident_bytes()
    measure_seconds(way, setup)
    seconds = measure_seconds(way, setup)
    after = torch.cuda.max_memory_allocated() if options.device == "cuda" else _peak_resident_bytes()
    return (after - before) / 2**20, seconds


def _peak_resident_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux


if __name__ == "__main__":
    main()
