"""Measure what a step of each variant of SAM costs, over plain distillation (rho 0): processor time, in pairs.

    OMP_NUM_THREADS=1 python benchmarks/cheap_sam.py --images 8 --rounds 5         the demo's sizes
    OMP_NUM_THREADS=1 python benchmarks/cheap_sam.py --size real --images 4 --rounds 2

All variants take turns in one process, each on models of its own with the same weights, right after plain distillation.
A measurement is `--steps` steps, the length of LookSAM's cycle here. How often AE-SAM has a second pass depends on the
gradients; the share in these steps, on random pictures, is printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from sharpstudent.core.memory import keep_freed_memory
from sharpstudent.core.schedules import Progress
from sharpstudent.optim.build import build_optimizer
from step_setup import OPTIMIZER, SIZES, Setup, build_setup

PLAIN = "plain distillation, rho 0"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {"rho": 0.0},
    "SAM": {},
    "sam_norm_only": {"sam_norm_only": True},
    "sam_subset 0.25": {"sam_subset": 0.25},
    "sam_norm_only, sam_subset 0.25": {"sam_norm_only": True, "sam_subset": 0.25},
    "sam_every 5": {"sam_every": 5},
    "sam_adaptive": {"sam_adaptive": True},
    "sam_friendly": {"sam_friendly": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--images", type=int, default=24, help="images per batch (two per sample)")
    parser.add_argument("--steps", type=int, default=5, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each variant")
    options = parser.parse_args()
    keep_freed_memory("on", "cpu")
    setups = {name: build_variant(options.size, options.images, keys) for name, keys in VARIANTS.items()}
    for setup in setups.values():
        measure(setup, 1, options)
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    shares = dict.fromkeys(VARIANTS, 0.0)
    for number in range(options.rounds):
        names = [name for name in VARIANTS if name != PLAIN]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            plain, _ = measure(setups[PLAIN], options.steps, options)
            seconds, share = measure(setups[name], options.steps, options)
            ratios[name].append(seconds / plain)
            shares[name] += share / options.rounds
    print(
        f"{' -> '.join(SIZES[options.size][:2])}, {setups['SAM']}, {options.rounds} rounds of {options.steps} steps\n"
    )
    print("| Variant | Step over plain distillation (least to most) | Steps with a second pass |\n|---|---|---|")
    for name, found in ratios.items():
        if found:
            spread = f"({min(found):.2f} to {max(found):.2f})"
            print(f"| {name} | **{statistics.median(found):.2f}** {spread} | {shares[name]:.0%} |")


def build_variant(size: str, images: int, keys: dict[str, Any]) -> Setup:
    """Build a step with its own models."""
    setup = build_setup(size, images, base="adamw")
    section = OPTIMIZER.model_copy(update={"base": "adamw", **keys})
    return replace(setup, step=replace(setup.step, optimizer=build_optimizer(section, setup.step.student)))


def measure(setup: Setup, steps: int, options: argparse.Namespace) -> tuple[float, float]:
    """Measure CPU seconds of so many steps, and the share of them with a second pass."""
    start, ascents = time.process_time(), 0
    for number in range(steps):
        result = setup.step(setup.batch, Progress(1, number, 1, max(steps, options.steps)))
        ascents += result.perturbed_loss is not None
    return time.process_time() - start, ascents / steps


if __name__ == "__main__":
    main()
