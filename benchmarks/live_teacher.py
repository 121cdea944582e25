"""What a live teacher adds to a step of the skeleton task's student: milliseconds a sequence, and the overhead.

    OMP_NUM_THREADS=1 python benchmarks/live_teacher.py

A step of SAM is two forward and backward passes; the teacher answers once a step, in evaluation mode, for both of them.
Models take turns, and each time is the median over them, of batches of 16 with 16 frames. Processor time, so that other
processes change it little.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import torch
from sharpstudent.task import ModelSpec
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.task import SkeletonTask
from torch import nn

BATCH, FRAMES, TURNS = 16, 16, 7
STUDENTS, TEACHERS = ("last_e_nano", "last_e_base"), ("last_e_base", "last_v2_base")


def build_pass(name: str, *, learns: bool) -> Callable[[], object]:
    """A forward and backward pass of a student, or the answer of a teacher."""
    task = SkeletonTask(SkeletonSection.model_validate({"frames": FRAMES}))
    model, batch = task.build_student(ModelSpec(name)).train(learns), task.example_batch(BATCH)
    inputs = {key: torch.randn_like(value) for key, value in batch.inputs.items()}

    def learn() -> None:
        nn.functional.cross_entropy(model(**inputs)["logits"], batch.targets["label"]).backward()

    @torch.no_grad()
    def answer() -> object:
        return model(**inputs)

    return learn if learns else answer


def main() -> None:
    torch.set_num_threads(1)
    passes = {(name, True): build_pass(name, learns=True) for name in STUDENTS}
    passes |= {(name, False): build_pass(name, learns=False) for name in TEACHERS}
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in passes}
    for turn in range(TURNS + 1):
        for key, work in passes.items():
            begun = time.process_time()
            work()
            if turn:  # the first one warms up
                times[key].append((time.process_time() - begun) / BATCH * 1000.0)
    found = {key: statistics.median(one) for key, one in times.items()}
    print(f"{'student':12} {'teacher':13} {'SAM step':>9} {'answer':>7} {'overhead':>9}   [ms a sequence]")
    for student in STUDENTS:
        for teacher in TEACHERS:
            step, extra = 2.0 * found[student, True], found[teacher, False]
            print(f"{student:12} {teacher:13} {step:9.1f} {extra:7.1f} {extra / step:9.0%}")


if __name__ == "__main__":
    main()
