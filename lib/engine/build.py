"""From the config to the training step: criterion, optimiser, and how a step is computed on this device."""

from __future__ import annotations

import torch
from torch import nn

from lib.config.sections import ComputeSection, RunConfig
from lib.criterion.build import build_criterion
from lib.engine.step import TrainStep
from lib.errors import Problem, UserError
from lib.models.classifier import Classifier, FrozenTeacher
from lib.optim.average import WeightAverage
from lib.optim.build import build_optimizer
from lib.optim.loss_scale import LossScale

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_step(
    config: RunConfig, student: Classifier, teacher: FrozenTeacher | None, device: torch.device
) -> TrainStep:
    """Models on the device, in the memory format asked for, and everything that one update needs.

    Raises UserError for what this device or this student cannot do.
    """
    compute = config.compute
    _check_precision(compute, device)
    memory_format = choose_memory_format(compute)
    move_model(student, device, memory_format)
    if teacher is not None:
        move_model(teacher, device, memory_format)
    decay = config.training.ema_decay
    average = None if decay is None else WeightAverage(student, decay=decay)
    if compute.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    if compute.compile:
        student.compile()  # in place: the names of the weights stay
    return TrainStep(
        student,
        teacher,
        build_criterion(config.criterion),
        build_optimizer(config.optimizer, student),
        config.optimizer.clip_norm,
        average=average,
        autocast=DTYPES[compute.precision],
        loss_scale=LossScale(device.type) if compute.precision == "fp16" else None,
        recomputes=compute.gradient_checkpointing,
    )


def choose_memory_format(compute: ComputeSection) -> torch.memory_format:
    """How images and weights lie in memory."""
    return torch.channels_last if compute.channels_last else torch.contiguous_format


def move_model(model: nn.Module, device: torch.device, memory_format: torch.memory_format) -> None:
    """To the device, in that memory format, in place."""
    model.to(device)
    if memory_format != torch.contiguous_format:
        model.to(memory_format=memory_format)  # type: ignore[call-overload]


def _check_precision(compute: ComputeSection, device: torch.device) -> None:
    if compute.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            Problem(
                where="precision",
                what="this device does not compute in bf16",
                got=torch.cuda.get_device_name(device),
                remedy="--set precision=fp16, or fp32",
            )
        )
