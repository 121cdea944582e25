"""Measure what makes a SAM distillation step faster on a CPU: CPU seconds over those of today's step, in pairs.

    OMP_NUM_THREADS=1 python benchmarks/faster.py --images 8 --rounds 3                  the demo's sizes
    OMP_NUM_THREADS=1 python benchmarks/faster.py --only compile --rounds 3

Each way takes turns with today's step (channels last, freed memory kept) in one process, each on models of its own with
the same weights. Compiling is done before the clock starts, and its seconds are printed. `same` says whether the loss
after three steps is the same to the last bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch
from sharpstudent.config.run_config import ComputeSection
from sharpstudent.core.memory import keep_freed_memory
from sharpstudent.models.teachers import FrozenTeacher
from step_setup import PROGRESS, SIZES, Setup, build_setup, take_floor
from torch import nn

TODAY: dict[str, Any] = {"channels_last": True}


class InferenceTeacher(FrozenTeacher):
    """A teacher that runs in inference mode; what it gives is cloned, since autograd may not save such tensors."""

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            outputs = super().forward(**inputs)
        return {name: value.clone() for name, value in outputs.items()}


class LowPrecisionTeacher(nn.Module):
    """A teacher under bf16 autocast beside a student in fp32."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            return {name: value.float() for name, value in self.teacher(image=image).items()}


def change_teacher(build: Callable[[Any], nn.Module]) -> Callable[[Setup], Setup]:
    def change(setup: Setup) -> Setup:
        return replace(setup, step=replace(setup.step, teacher=build(setup.step.teacher)))

    return change


def fuse_optimizer(setup: Setup) -> Setup:
    for group in setup.step.optimizer.base_optimizer.param_groups:
        group["fused"], group["foreach"] = True, False
    return setup


def compile_student(setup: Setup) -> Setup:
    setup.step.student.compile()
    return setup


def compile_teacher(setup: Setup) -> Setup:
    assert setup.step.teacher is not None
    setup.step.teacher.compile()
    return setup


def flush_denormals(setup: Setup) -> Setup:
    torch.set_flush_denormal(True)
    return setup


WAYS: dict[str, tuple[dict[str, Any], Callable[[Setup], Setup]]] = {
    "channels first": ({"channels_last": False}, lambda setup: setup),
    "bf16": ({**TODAY, "precision": "bf16"}, lambda setup: setup),
    "bf16 teacher": (TODAY, change_teacher(LowPrecisionTeacher)),
    "inference mode": (TODAY, change_teacher(lambda teacher: InferenceTeacher(teacher.model))),
    "fused AdamW": (TODAY, fuse_optimizer),
    "flush denormals": (TODAY, flush_denormals),
    "floor": (TODAY, lambda setup: setup),
    "compile student": (TODAY, compile_student),
    "compile teacher": (TODAY, compile_teacher),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--models", nargs=3, metavar=("TEACHER", "STUDENT", "PIXELS"), help="in place of --size")
    parser.add_argument("--images", type=int, default=8, help="images per batch (two per sample)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs")
    parser.add_argument("--only", nargs="+", default=list(WAYS), help="ways whose names begin so")
    options = parser.parse_args()
    if options.models is not None:
        options.size = "given"
        SIZES["given"] = (options.models[0], options.models[1], int(options.models[2]))
    keep_freed_memory("on", "cpu")
    teacher, student, pixels = SIZES[options.size]
    print(f"{teacher} -> {student}, {pixels} px, {options.images} images, {torch.get_num_threads()} thread(s)\n")
    print("| Way | CPU seconds over today's step | Least to most | Same to the last bit | Compiled in |")
    print("|---|---|---|---|---|")
    for name in (name for name in WAYS if any(name.startswith(one) for one in options.only)):
        print(measure_way(name, options), flush=True)


def measure_way(name: str, options: argparse.Namespace) -> str:
    compute, change = WAYS[name]
    today = build_setup(options.size, options.images, base="adamw", compute=ComputeSection(**TODAY))
    begun = time.perf_counter()
    try:
        other = change(build_setup(options.size, options.images, base="adamw", compute=ComputeSection(**compute)))
        losses = [take_three(setup) for setup in (today, other)]
    except Exception as error:  # noqa: BLE001, a way that this machine does not have is a row of the table
        return f"| {name} | not here: {type(error).__name__}: {str(error).splitlines()[0][:80]} | | | |"
    warm_s = time.perf_counter() - begun
    ratios = []
    for number in range(options.rounds):
        order = (("today", today, ""), ("other", other, name))
        found = {key: measure(setup, way) for key, setup, way in (order if number % 2 else order[::-1])}
        ratios.append(found["other"] / found["today"])
    torch.set_flush_denormal(False)
    compiled = f"{warm_s:.0f} s" if name.startswith("compile") else ""
    same = "" if name == "floor" else "yes" if losses[0] == losses[1] else "no"
    spread = f"**{statistics.median(ratios):.3f}** | {min(ratios):.3f} to {max(ratios):.3f}"
    return f"| {name} | {spread} | {same} | {compiled} |"


def take_three(setup: Setup) -> list[float]:
    """The losses of three steps with the same dropout masks."""
    torch.manual_seed(1)
    return [take(setup, "") for _ in range(3)]


def measure(setup: Setup, way: str) -> float:
    start = time.process_time()
    take(setup, way)
    return time.process_time() - start


def take(setup: Setup, way: str) -> float:
    """Take a step, or the floor of one; returns the loss of the step."""
    if way == "floor":
        take_floor(setup)
        return 0.0
    result = setup.step(setup.batch, PROGRESS)
    assert result.ok, result.reason
    return float(result.loss or 0.0)


if __name__ == "__main__":
    main()
