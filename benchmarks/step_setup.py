"""What the benchmarks of the step share: models, batch, and three ways to write a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sharpstudent.config.run_config import ComputeSection, OptimizerSection
from sharpstudent.config.terms import TargetSource, build_constant_term
from sharpstudent.core.schedules import Constant, Progress
from sharpstudent.core.types import Batch, ModelSpec, Outputs
from sharpstudent.criterion.build import build_criterion
from sharpstudent.criterion.section import Shapes
from sharpstudent.models.forward import run_model
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.models.vision import build_classifier
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale, build_optimizer
from sharpstudent.tasks.wakeword.task import WakewordTask
from sharpstudent.train.build import DTYPES, choose_memory_format, move_model
from sharpstudent.train.step import TrainStep
from torch import Tensor, nn

PROGRESS = Progress(1, 0, 1, 1)
OPTIMIZER = OptimizerSection(
    base="sgd", lr=1e-5, momentum=0.9, weight_decay=0.0, rho=0.05, clip_norm=1.0, flat=0.75, warmup=0.0
)
HALF = Constant(0.5)
SHAPES = Shapes(student={"logits": (2, 2)}, teacher={"logits": (2, 2)})
TERMS = (build_constant_term("hard", HALF), build_constant_term("kd", HALF))
SIZES = {  # teacher, student, pixels
    "demo": ("tf_efficientnet_lite2", "tf_efficientnet_lite0", 112),
    "real": ("efficientnet-b4", "mobilevitv2_200", 380),
    "narrow": ("efficientnet-b4", "mobilevitv2_050", 380),
    "wakeword": ("speech_embedding", "tiny_conv", 0),  # 1.5 s of sound
}


@dataclass(frozen=True)
class Setup:
    """A step, and the batch that it takes."""

    step: TrainStep
    batch: Batch

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.batch.inputs.items())
        threads = torch.get_num_threads()
        return f"{shapes}, {self.batch.device}, {threads} thread{'s' if threads > 1 else ''}"


def build_setup(
    size: str,
    images: int,
    *,
    device: str = "cpu",
    compute: ComputeSection | None = None,
    parts: int = 1,
    ema_decay: float | None = None,
    base: Literal["sgd", "adamw"] = "sgd",
) -> Setup:
    """Random weights, random images: speed and memory do not depend on them."""
    compute = compute or ComputeSection()
    teacher_name, student_name, pixels = SIZES[size]
    torch.manual_seed(0)
    layout = choose_memory_format(compute)
    build = WakewordTask().build_student if size == "wakeword" else build_vision
    student: Any = build(ModelSpec(student_name, dropout=0.3)).train()
    teacher = FrozenTeacher(build(ModelSpec(teacher_name)))
    for model in (student, teacher):
        move_model(model, torch.device(device), layout)
    if compute.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    batch = draw_batch(images, pixels) if pixels else draw_sound(images)
    step = TrainStep(
        student,
        teacher,
        build_criterion(TERMS, SHAPES),
        build_optimizer(OPTIMIZER.model_copy(update={"base": base}), student),
        OPTIMIZER.clip_norm,
        average=None if ema_decay is None else WeightAverage(student, decay=ema_decay),
        autocast=DTYPES[compute.precision],
        loss_scale=LossScale(device) if compute.precision == "fp16" else None,
        parts=parts,
        recomputes=compute.gradient_checkpointing,
    )
    return Setup(step, batch.to(torch.device(device), memory_format=layout))


def draw_batch(images: int, side: int) -> Batch:
    """Random pictures of `side` px, a real and a fake one of each sample."""
    names = tuple(map(str, range(images)))
    rows = {"id": names, "group": names, "clip": names, "sample": tuple(row // 2 for row in range(images))}
    return Batch({"image": torch.rand(images, 3, side, side)}, {"label": torch.arange(images) % 2}, rows=rows)


def build_vision(spec: ModelSpec) -> nn.Module:
    """Build a classifier of pictures."""
    return build_classifier(spec.name, classes=2, dropout=spec.dropout)


def draw_sound(windows: int) -> Batch:
    """Random windows of sound and random mel spectrograms."""
    batch = WakewordTask().example_batch(windows)
    inputs = {name: torch.rand_like(value) for name, value in batch.inputs.items()}
    return Batch(inputs, batch.targets, rows={**batch.rows, "sample": tuple(range(windows))})


def take_step(setup: Setup) -> None:
    """The step as the engine takes it."""
    result = setup.step(setup.batch, PROGRESS)
    if not result.ok:
        raise RuntimeError(result.reason)


def run_teacher(setup: Setup) -> dict[TargetSource, Outputs]:
    """One teacher forward."""
    assert setup.step.teacher is not None
    with torch.no_grad():
        return {"teacher": run_model(setup.step.teacher, setup.batch.inputs)}


def compute_loss(step: TrainStep, batch: Batch, target_outputs: dict[TargetSource, Outputs]) -> Tensor:
    """One student forward, and the loss of its outputs."""
    return step.criterion(run_model(step.student, batch.inputs), batch, target_outputs, PROGRESS).total


def take_floor(setup: Setup) -> None:
    """What no distillation step with SAM can do without: one teacher forward, two student forward+backward."""
    step, batch = setup.step, setup.batch
    target_outputs = run_teacher(setup)
    for _ in range(2):
        step.student.zero_grad(set_to_none=True)
        compute_loss(step, batch, target_outputs).backward()


def take_bare_step(setup: Setup) -> None:
    """SAM's arithmetic alone: no finite checks, no copies but SAM's own, nothing frozen, no rollback."""
    step, batch, optimizer = setup.step, setup.batch, setup.step.optimizer
    target_outputs = run_teacher(setup)

    def forward_backward() -> Tensor:
        loss = compute_loss(step, batch, target_outputs)
        loss.backward()
        return loss.detach()

    optimizer.zero_grad()
    loss = forward_backward()
    with optimizer.perturbed(optimizer.compute_grad_norm()):
        forward_backward()
    optimizer.clip(optimizer.compute_grad_norm(), step.clip_norm)
    optimizer.step()
    loss.item()


def take_naive_step(setup: Setup) -> None:
    """The step as research scripts write it: the teacher runs in both passes, w is kept beside w + e."""
    step, batch, optimizer = setup.step, setup.batch, setup.step.optimizer
    optimizer.zero_grad()
    compute_loss(step, batch, run_teacher(setup)).backward()
    with optimizer.perturbed(optimizer.compute_grad_norm()):
        compute_loss(step, batch, run_teacher(setup)).backward()
    optimizer.step()


def measure_seconds(run: Callable[[Setup], None], setup: Setup) -> float:
    """Wall time of one call; waits for the device."""
    start = time.perf_counter()
    run(setup)
    if setup.batch.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
