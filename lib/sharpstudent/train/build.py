"""From the config to the training step: criterion, optimiser, and how a step is computed on this device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import ComputeSection, RunConfig, TermSection
from sharpstudent.config.terms import Asks
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.core.types import Outputs
from sharpstudent.criterion.build import build_criterion, find_layers
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import SOURCES, WeightedSum
from sharpstudent.models.classifier import Classifier, FrozenTeacher
from sharpstudent.models.teachers import TeacherEnsemble
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale, build_optimizer
from sharpstudent.train.step import TrainStep

PROBE_IMAGES = 2
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_step(
    config: RunConfig,
    student: Classifier,
    teacher: TeacherEnsemble | FrozenTeacher | None,
    device: torch.device,
    *,
    image_size: int,
) -> TrainStep:
    """Models on the device, in the memory format asked for, and everything that one update needs.

    image_size [px]: side of the pictures; the models are shown two empty ones to see what they answer. Raises UserError
    for what this device or this student cannot do, and for terms that do not fit the models.
    """
    compute = config.compute
    _check_precision(compute, device)
    memory_format = choose_memory_format(compute)
    move_model(student, device, memory_format)
    if teacher is not None:
        move_model(teacher, device, memory_format)
    decay = config.training.ema_decay
    average = None if decay is None else WeightAverage(student, decay=decay)  # before the taps: it needs none
    images = torch.zeros(PROBE_IMAGES, 3, image_size, image_size, device=device).contiguous(memory_format=memory_format)
    criterion = build_criterion(config.criterion, tap_layers(config.criterion, student, teacher, images))
    _check_sources(criterion, teacher, average)
    criterion.module.to(device)
    if compute.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    if compute.compile:
        student.compile()  # in place: the names of the weights stay
    return TrainStep(
        student,
        teacher,
        criterion,
        build_optimizer(config.optimizer, student, extra=criterion.module),
        config.optimizer.clip_norm,
        average=average,
        autocast=DTYPES[compute.precision],
        loss_scale=LossScale(device.type) if compute.precision == "fp16" else None,
        recomputes=compute.gradient_checkpointing,
    )


def tap_layers(
    sections: Sequence[TermSection],
    student: Classifier,
    teacher: TeacherEnsemble | FrozenTeacher | None,
    images: Tensor,
) -> Shapes:
    """Make the models give the feature maps that the terms read, and see what they answer to `images` (B, 3, S, S).

    Moves neither weights nor buffers nor random states. Raises UserError for a layer that a model does not have, and
    where the teacher's are read and there is none.
    """
    layers = find_layers(sections)
    maps: dict[str, dict[str, tuple[int, ...]]] = {"student": {}, "teacher": {}}
    if layers.student:
        _tap(student, layers.student, "student_layer")
    answer = _probe(student, images)
    maps["student"] = {name: tuple(answer.features[name].shape) for name in layers.student}
    if layers.teacher:
        if teacher is None:
            raise UserError(_explain_no_source("teacher", "teacher_layer"))
        _tap(teacher, layers.teacher, "teacher_layer")
        features = _probe(teacher, images).features
        maps["teacher"] = {name: tuple(features[name].shape) for name in layers.teacher}
    return Shapes(answer.logits.shape[1], images=len(images), **maps)


def _tap(model: Classifier | TeacherEnsemble | FrozenTeacher, layers: Sequence[str], setting: str) -> None:
    """Tap the layers; a name that the model has not is told with the setting that gives it."""
    try:
        model.tap(layers)
    except UserError as error:
        raise UserError(
            *(replace(problem, where=f"{setting}: {problem.where}") for problem in error.problems)
        ) from None


def _probe(model: nn.Module, images: Tensor) -> Outputs:
    """One forward in evaluation mode, after which the model and the random states are as before."""
    training = [(module, module.training) for module in model.modules()]
    rng = capture_rng_state(device_type=images.device.type)
    try:
        model.eval()
        with torch.no_grad():
            return model(images)
    finally:
        for module, mode in training:
            module.training = mode
        restore_rng_state(rng)


def _check_sources(criterion: WeightedSum, teacher: nn.Module | None, average: WeightAverage | None) -> None:
    """Raise UserError for a term that asks a model which this run does not have."""
    has: dict[Asks, bool] = {"teacher": teacher is not None, "ema": average is not None}
    problems = [
        _explain_no_source(term.asks, f"term {term.name!r}")
        for term in criterion.terms
        if term.asks in criterion.asked and not has[term.asks]
    ]
    if problems:
        raise UserError(*problems)


def _explain_no_source(source: Asks, where: str) -> Problem:
    remedy = {
        "teacher": "terms that ask the teacher belong to stage 2: main_distillation.py",
        "ema": "--set ema_decay=0.999, which averages the student's weights",
    }
    return Problem(where=where, what=f"asks the {SOURCES[source]}, and this run has none", remedy=remedy[source])


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
