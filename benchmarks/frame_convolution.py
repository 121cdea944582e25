"""Processor time of a sequence, forward and backward, of LAST-E with each form of its convolution over frames [ms].

    OMP_NUM_THREADS=1 python benchmarks/frame_convolution.py

`conv2d` is torch's own convolution everywhere; `bands` is what trains: the product with a band matrix. `floor` is the
time of the convolutions over frames alone in torch's form: what no other form of the rest can save. The forms take
turns, and each time is the median over them, of batches of 16.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import torch
from sharpstudent.task import ModelSpec
from sharpstudent.tasks.skeleton import frame_convolution
from sharpstudent.tasks.skeleton.section import SkeletonSection
from sharpstudent.tasks.skeleton.task import SkeletonTask
from torch import Tensor, nn

BATCH, TURNS = 16, 12


def build_step(frames: int, name: str) -> tuple[Callable[[], None], list[tuple[nn.Conv2d, Tensor]]]:
    """A forward and backward pass of a batch, and each convolution over frames with what it was given."""
    task = SkeletonTask(SkeletonSection.model_validate({"frames": frames}))
    model = task.build_student(ModelSpec(name)).train()
    batch = task.example_batch(BATCH)
    inputs = {key: torch.randn_like(value) for key, value in batch.inputs.items()}
    given: list[tuple[nn.Conv2d, Tensor]] = []

    def step() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(**inputs)["logits"], batch.targets["label"]).backward()

    def note(one: Any, arguments: Any, _: Any) -> None:
        given.append((one, arguments[0].detach()))

    found = [one for one in model.modules() if isinstance(one, frame_convolution.FrameConvolution)]
    hooks = [one.register_forward_hook(note) for one in found]
    step()
    for hook in hooks:
        hook.remove()
    return step, given


def convolve_all(given: list[tuple[nn.Conv2d, Tensor]]) -> None:
    """Only the convolutions over frames, in torch's own form."""
    for convolution, features in given:
        nn.Conv2d.forward(convolution, features.requires_grad_()).sum().backward()


def time_once(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / BATCH * 1000.0


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'model':12} {'frames':>6} {'conv2d':>8} {'bands':>8} {'floor':>8}   [ms a sequence, forward and backward]")
    most = frame_convolution.MOST_FRAMES
    for name in ("last_e_nano", "last_e_base"):
        for frames in (16, 32):
            step, given = build_step(frames, name)
            times: dict[str, list[float]] = {"conv2d": [], "bands": [], "floor": []}
            for _ in range(TURNS):
                frame_convolution.MOST_FRAMES = 0
                times["conv2d"].append(time_once(step))
                frame_convolution.MOST_FRAMES = most
                times["bands"].append(time_once(step))
                times["floor"].append(time_once(lambda given=given: convolve_all(given)))
            found = "".join(f" {statistics.median(one):8.2f}" for one in times.values())
            print(f"{name:12} {frames:6}{found}", flush=True)


if __name__ == "__main__":
    main()
