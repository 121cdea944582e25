"""Measure SAM distillation steps on a GPU, as JSON: time over the floor, memory, the loader's share, the largest batch.

    python benchmarks/gpu_step.py --images 32 --seconds 25
    python benchmarks/gpu_step.py --device cpu --sizes demo --images 4 --seconds 5      tries the script itself

The floor is one forward pass of the teacher, and two of the student with backward passes. Both are timed in turns until
the seconds of a setting are over. The floor computes without autocast, so that it is compared in fp32 only.
`benchmarks/gpu.sh` runs the tests that need a GPU first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch
from sharpstudent.config.run_config import ComputeSection
from step_setup import SIZES, build_setup, measure_seconds, take_floor, take_step

LARGEST = 1024  # pictures; no larger batch is tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["real", "narrow"])
    parser.add_argument("--images", type=int, default=32, help="images per batch (two per sample)")
    parser.add_argument("--seconds", type=float, default=25.0, help="seconds of each setting")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="loader processes")
    options = parser.parse_args()
    is_cuda = options.device.startswith("cuda")
    if is_cuda and not torch.cuda.is_available():
        print(json.dumps({"run": False, "reason": "there is no GPU here"}))
        return
    found: list[dict[str, Any]] = []
    for size in options.sizes:
        for precision in ("fp32", "bf16"):
            found.append(measure(size, precision, options, is_cuda=is_cuda))
    for one in found:
        one["loader"] = measure_loader(one, options)
    device = torch.cuda.get_device_name() if is_cuda else platform.processor() or "cpu"
    print(json.dumps({"run": True, "device": device, "torch": torch.__version__, "settings": found}, indent=2))


def measure(size: str, precision: Any, options: argparse.Namespace, *, is_cuda: bool) -> dict[str, Any]:
    """Measure one pair of models in one precision."""
    compute = ComputeSection(precision=precision, channels_last=True)
    setup = build_setup(size, options.images, device=options.device, compute=compute, base="adamw")
    ways = {"step": take_step, **({"floor": take_floor} if precision == "fp32" else {})}
    for way in ways.values():
        measure_seconds(way, setup)
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    begun = time.monotonic()
    while time.monotonic() - begun < options.seconds or not seconds["step"]:
        for name, way in ways.items():
            seconds[name].append(measure_seconds(way, setup))
    step = statistics.median(seconds["step"])
    ratios = [a / b for a, b in zip(seconds["step"], seconds["floor"], strict=True)] if "floor" in ways else []
    peak = torch.cuda.max_memory_allocated() / 2**20 if is_cuda else None
    del setup
    return {
        "teacher": SIZES[size][0],
        "student": SIZES[size][1],
        "side_px": SIZES[size][2],
        "precision": precision,
        "images": options.images,
        "step_s": step,
        "step_over_floor": statistics.median(ratios) if ratios else None,
        "images_per_s": options.images / step,
        "peak_mib": peak,
        "largest_batch": find_largest(size, compute, options) if is_cuda else None,
    }


def measure_loader(setting: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """Measure the loader's share: how much of the time of a step the making of its pictures takes, without overlap.

    Above 1 the GPU waits for the loader. Samples are drawn faces with their blends, two pictures each.
    """
    from loader import measure as measure_rate
    from loader import write_sets

    settings = argparse.Namespace(size=setting["side_px"], items=64, crops=24, faces=Path("none"))
    with tempfile.TemporaryDirectory() as name:
        write_sets(Path(name), settings)
        rate = 2.0 * measure_rate(Path(name) / "shards", settings, options.workers)
    return {"workers": options.workers, "images_per_s": rate, "share": setting["images_per_s"] / rate}


def find_largest(size: str, compute: ComputeSection, options: argparse.Namespace) -> int:
    """Find the largest power of two of pictures whose step fits into memory."""
    images = options.images
    while images * 2 <= LARGEST:
        torch.cuda.empty_cache()
        try:
            take_step(build_setup(size, images * 2, device=options.device, compute=compute, base="adamw"))
        except torch.OutOfMemoryError:
            break
        images *= 2
    torch.cuda.empty_cache()
    return images


if __name__ == "__main__":
    main()
