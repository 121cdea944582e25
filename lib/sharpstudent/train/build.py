"""Builds a training from the config: samples, criterion, optimiser, and the step on this device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from sharpstudent.config.run_config import ComputeSection, RunConfig, TermSection
from sharpstudent.config.terms import TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.build import build_criterion, find_layers
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedSum
from sharpstudent.data.dataset import Samples
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.models.hooks import hook_features
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale, build_optimizer
from sharpstudent.optim.start_weights import StartWeights
from sharpstudent.task import Task, plural
from sharpstudent.train.step import TrainStep

if TYPE_CHECKING:
    from sharpstudent.core.ranks import Ranks
    from sharpstudent.models.teacher_answers import TeacherAnswers

MOST_NAMES = 5  # of groups in a message


@dataclass(frozen=True)
class TrainingData:
    """Samples for training and for validation. The two splits share no group.

    Attributes:
        train: The training split.
        validation: The validation split.
    """

    train: Samples
    validation: Samples

    @property
    def notes(self) -> tuple[str, ...]:
        """The lines that a run prints about its data, each once."""
        return tuple(dict.fromkeys((*self.train.notes, *self.validation.notes)))

    @property
    def depends_on(self) -> tuple[Path, ...]:
        """Further files on which the samples depend, such as a manifest."""
        return tuple(dict.fromkeys((*self.train.depends_on, *self.validation.depends_on)))


def open_training_data(task: Task, selection_metric: str | None = None) -> TrainingData:
    """Open the splits `train` and `validation` of a task, and no other.

    Args:
        task: The task.
        selection_metric: The metric that selects checkpoints; None for one that the task need not check.

    Returns:
        The samples.

    Raises:
        UserError: When the task raises it, for a split without samples, and for groups that are in both splits, unless
            `--allow shared-people` permits them: validation would then reward memorised people.
    """
    train, validation = task.open_data("train", "validation")
    for name, samples in (("train", train), ("validation", validation)):
        if len(samples) == 0:
            raise UserError.about(f"data, split {name}", "holds no samples", remedy="check the data of the config")
    if "shared-people" not in task.allow:
        _check_groups(task, train, validation)
    if selection_metric is not None:
        task.check_metric(selection_metric, validation)
    return TrainingData(train, validation)


def _check_groups(task: Task, train: Samples, validation: Samples) -> None:
    shared = sorted(train.find_groups() & validation.find_groups())
    if shared:
        unit = task.group_unit if len(shared) == 1 else plural(task.group_unit)
        raise UserError.about(
            where="data",
            what=f"{len(shared)} {unit} in training and in validation at once",
            got=", ".join(shared[:MOST_NAMES]) + (", ..." if len(shared) > MOST_NAMES else ""),
            remedy="give each of them one split; --allow shared-people trains all the same",
        )


PROBE_ROWS = 2  # of the example batch, to find the shapes of the models' outputs
CHECK_ROWS = 16  # of random outputs on which the terms are tried
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_step(
    config: RunConfig,
    student: nn.Module,
    teacher: TeacherEnsemble | FrozenTeacher | None,
    device: torch.device,
    *,
    task: Task,
    ranks: Ranks | None = None,
) -> TrainStep:
    """Build everything that one update needs, on the device and in the memory format of the config.

    Args:
        config: The config of the run.
        student: The model that learns.
        teacher: Frozen; None in stage 1.
        device: The device on which the step is computed.
        task: The task, whose example batch shows the shapes of the models' outputs.
        ranks: The processes that share each batch; None for one process.

    Raises:
        UserError: For settings that this device or this student does not support, and for terms that do not fit the
            models.
    """
    compute = config.compute
    _check_precision(compute, device)
    memory_format = choose_memory_format(compute)
    move_model(student, device, memory_format)
    if teacher is not None:
        move_model(teacher, device, memory_format)
    if compute.sync_batch_norm:
        share_batch_norm(student, device, ranks)
    decay = config.training.ema_decay
    # Both before the hooks: copies of the student need none.
    average = None if decay is None else WeightAverage(student, decay=decay)
    pull, share = config.optimizer.l2_start, config.training.start_share
    start = StartWeights(student, pull=pull, share=share) if pull or share else None
    example = task.example_batch(PROBE_ROWS).to(device, memory_format=memory_format)
    shapes = hook_layers(config.criterion, student, teacher, example, task.terms)
    criterion = build_criterion(config.criterion, shapes, task.example_batch(CHECK_ROWS), task.terms)
    _check_micro_batches(config, criterion)
    _check_rows(config, criterion, task)
    criterion.module.to(device)
    if compute.gradient_checkpointing:
        _enable_checkpointing(student)
    if compute.compile:
        student.compile()  # in place: the names of the weights stay
    step = TrainStep(
        student,
        teacher,
        criterion,
        build_optimizer(config.optimizer, student, extra=criterion.module),
        config.optimizer.clip_norm,
        average=average,
        start=start,
        autocast=DTYPES[compute.precision],
        loss_scale=LossScale(device.type) if compute.precision == "fp16" else None,
        recomputes=compute.gradient_checkpointing,
        answers=None if config.teacher_answers is None or teacher is None else _open_answers(config, teacher, device),
    )
    if ranks is not None:
        _share_steps(step, config, ranks)
    return step


def _share_steps(step: TrainStep, config: RunConfig, ranks: Ranks) -> None:
    from sharpstudent.train.rank_step import RankStep, check_ranks  # what one process never loads

    check_ranks(config, step.criterion, ranks)
    local = config.optimizer.sam_ranks == "local"
    step.others = RankStep(ranks, step.student, step.criterion, step.compute_loss, is_local=local)


def share_batch_norm(student: nn.Module, device: torch.device, ranks: Ranks | None) -> None:
    """Make BatchNorm normalise by the rows of all ranks, in place; the names of the weights and their values stay."""
    if device.type == "cpu":
        raise UserError.about(
            "sync_batch_norm", "is for GPUs: torch has none for a CPU", got="cpu", remedy="--set sync_batch_norm=false"
        )
    if ranks is None:
        return  # one process has the whole batch
    from timm.layers import convert_sync_batchnorm  # torch's own forgets the activation within timm's layers

    convert_sync_batchnorm(student)


def _open_answers(config: RunConfig, teacher: nn.Module, device: torch.device) -> TeacherAnswers:
    from sharpstudent.models.teacher_answers import TeacherAnswers  # loaded only where it is asked for

    setting = f"{device.type} {config.compute.precision} {choose_memory_format(config.compute)}"
    return TeacherAnswers(Path(config.teacher_answers or ""), teacher, setting)


def hook_layers(
    sections: Sequence[TermSection],
    student: nn.Module,
    teacher: TeacherEnsemble | FrozenTeacher | None,
    example: Batch,
    more: Mapping[str, TermSpec] | None = None,
) -> Shapes:
    """Hook the layers whose feature maps the terms read, and find the shapes of all outputs.

    Changes neither weights nor buffers nor random states.

    Args:
        sections: The terms in the config.
        student: The model that learns.
        teacher: Frozen; None in stage 1.
        example: A batch that the models are run on.
        more: The task's own terms, by name.

    Raises:
        UserError: For a layer that a model does not have.
    """
    layers = find_layers(sections, more)
    try:
        setting = "student_layer"
        hook_features(student, layers.student)
        setting = "teacher_layer"
        if layers.teacher:
            assert teacher is not None, "the config refuses such a term in stage 1"
            teacher.hook_features(layers.teacher)
    except UserError as error:
        raise UserError(*(replace(one, where=f"{setting}: {one.where}") for one in error.problems)) from None
    ours, theirs = (
        {} if model is None else {name: tuple(tensor.shape) for name, tensor in _probe(model, example).items()}
        for model in (student, teacher)
    )
    return Shapes(ours, theirs, rows=len(example))


def _probe(model: nn.Module, example: Batch) -> Outputs:
    """Run the model once in evaluation mode; the model and the random states stay as they are."""
    rng = capture_rng_state(device_type=example.device.type)
    try:
        with evaluation_mode(model), torch.no_grad():
            return run_model(model, example.inputs)
    finally:
        restore_rng_state(rng)


def _enable_checkpointing(student: nn.Module) -> None:
    enable = getattr(student, "enable_gradient_checkpointing", None)
    if enable is None:
        raise UserError.about(
            where="gradient_checkpointing",
            what=f"is not possible with {type(student).__name__}: it has no enable_gradient_checkpointing",
            remedy="--set gradient_checkpointing=false, and a smaller micro_batch_size instead",
        )
    enable()


def _check_micro_batches(config: RunConfig, criterion: WeightedSum) -> None:
    """Raise UserError for a term that compares all rows of a batch if the batch is divided into micro-batches."""
    coupled = [term.name for term in criterion.terms if term.couples_rows]
    compute = config.compute
    if coupled and (compute.micro_batch_size is not None or compute.halve_on_out_of_memory):
        raise UserError.about(
            where=f"term {coupled[0]!r}",
            what="couples the rows of a batch, and cannot be computed in micro-batches",
            remedy="--set micro_batch_size=null --set halve_on_out_of_memory=false",
        )


def _check_rows(config: RunConfig, criterion: WeightedSum, task: Task) -> None:
    """Raise UserError for a term that compares more rows of a batch than one has: it would be 0 in every step."""
    least = max(term.least_rows for term in criterion.terms)
    size = math.ceil(config.training.batch_size * config.optimizer.sam_subset)  # of pass 1
    rows = len(task.example_batch(size)) if size < least else least
    for term in criterion.terms:
        if term.least_rows > rows:
            raise UserError.about(
                where=f"term {term.name!r}",
                what="compares the rows of a batch with each other, and a batch has too few: it would always be 0",
                expected=f"{term.least_rows} rows or more in a batch",
                got=f"{rows}, of {size} samples in pass 1",
                remedy=f"--set stage{config.stage}.batch_size="
                f"{math.ceil(term.least_rows / config.optimizer.sam_subset)}",
            )


def choose_memory_format(compute: ComputeSection) -> torch.memory_format:
    """Choose the memory format of images and weights."""
    return torch.channels_last if compute.channels_last is True else torch.contiguous_format


def move_model(model: nn.Module, device: torch.device, memory_format: torch.memory_format) -> None:
    """Move a model, in place.

    Args:
        model: The model.
        device: The device to move it to.
        memory_format: The memory format of its weights.
    """
    model.to(device)
    if memory_format != torch.contiguous_format:
        model.to(memory_format=memory_format)  # type: ignore[call-overload]


def _check_precision(compute: ComputeSection, device: torch.device) -> None:
    if compute.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError.about(
            where="precision",
            what="this device does not compute in bf16",
            got=torch.cuda.get_device_name(device),
            remedy="--set precision=fp16, or fp32",
        )
