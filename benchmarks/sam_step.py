"""Measure what one SAM distillation step costs.

The floor is two student forward and backward passes and one teacher forward pass. The bare step checks nothing and can
roll back nothing; against it stands the step as a transaction.

    python benchmarks/sam_step.py                              the demo's sizes, 24 images
    python benchmarks/sam_step.py --size real --images 4       380 px, EfficientNet-B4 -> mobilevitv2_200
    python benchmarks/sam_step.py --size wakeword --images 32  1.5 s of sound, the speech embedding -> TinyConv; the
                                                               teacher's answers are kept, as where windows recur

The three are timed in turns, in one process, on the same batch; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from sharpstudent.config.run_config import ComputeSection
from step_setup import SIZES, build_setup, measure_seconds, take_bare_step, take_floor, take_step

WAYS = {"floor": take_floor, "bare": take_bare_step, "step": take_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--images", type=int, default=24, help="images (two per sample) or windows per batch")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of floor, bare step and step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    compute = ComputeSection(channels_last=options.channels_last)
    setup = build_setup(options.size, options.images, device=options.device, compute=compute)
    for way in WAYS.values():  # warm-up
        measure_seconds(way, setup)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        names = list(WAYS)
        for name in names[number % 3 :] + names[: number % 3]:
            seconds[name].append(measure_seconds(WAYS[name], setup))
    teacher, student, _ = SIZES[options.size]
    print(f"{teacher} -> {student}, {setup}, {options.rounds} rounds")
    print(", ".join(f"{name} {statistics.median(times):.3f} s" for name, times in seconds.items()))
    for one, other in (("step", "floor"), ("step", "bare")):
        ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
        print(f"{one}/{other} median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
