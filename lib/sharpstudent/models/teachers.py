"""Frozen teachers: what they read of a batch, how their outputs are averaged, and what messages call them.

Legend: R rows of a batch, C classes, D features that the head reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.types import FEATURES, Outputs
from sharpstudent.models.forward import run_model
from sharpstudent.models.hooks import hook_features
from sharpstudent.models.weights import is_head

Average = Literal["logits", "probabilities"]


class FrozenTeacher(nn.Module):
    """A model that is not trained: `train()` leaves it in evaluation mode, and its forward runs without autograd.

    Attributes:
        model: The model itself.
        order: For each class of the task, its place in the teacher's logits; None for the same order.
        reads: Maps an input of the teacher to the input of the batch it is given, as {"image": "image_clean"} does.
        calibration: The temperature by which its logits are divided, chosen by the preflight; None for no division.
    """

    calibration: float | None = None

    def __init__(
        self, model: nn.Module, *, order: Sequence[int] | None = None, reads: Mapping[str, str] | None = None
    ) -> None:
        """Freeze a model.

        Args:
            model: The model to freeze.
            order: See the class.
            reads: See the class.
        """
        super().__init__()
        self.model = model
        self.order = None if order is None or list(order) == sorted(order) else tuple(order)
        self.reads = dict(reads or {})
        model.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode."""
        return super().train(False)

    def hook_features(self, layers: Sequence[str]) -> None:
        """Let the forward also give the outputs of these layers, see `models.hooks.hook_features`."""
        hook_features(self.model, layers)

    @torch.no_grad()
    def forward(self, **inputs: Tensor) -> Outputs:
        """Compute the outputs for the inputs of a batch, logits in the task's order of classes."""
        outputs = run_model(self.model, self.select(inputs))
        if "logits" not in outputs or (self.order is None and self.calibration is None):
            return outputs
        logits = outputs["logits"] if self.order is None else outputs["logits"][:, list(self.order)]
        logits = logits if self.calibration is None else logits / self.calibration
        return {**outputs, "logits": logits}

    def select(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the inputs of a batch the names that the model has for them.

        Raises:
            ValueError: Where one is missing.
        """
        missing = [source for source in self.reads.values() if source not in inputs]
        if missing:
            raise ValueError(
                f"a teacher reads {', '.join(self.reads.values())}, and the batch has {', '.join(inputs)}: "
                f"{', '.join(missing)} is missing"
            )
        return {**inputs, **{name: inputs[source] for name, source in self.reads.items()}}

    @property
    def head(self) -> nn.Linear:
        """The layer that computes the logits, under any library's name for it.

        Raises:
            ValueError: Unless there is exactly one such layer.
        """
        layers = [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and is_head(f"{name}.weight")
        ]
        if len(layers) != 1:
            raise ValueError(f"{type(self.model).__name__} has {len(layers)} linear layers that could be its head")
        return layers[0]

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the features (R, D) that the head takes in: pooled as this architecture pools."""
        taken: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, values: taken.append(values[0]))
        try:
            run_model(self.model, self.select(inputs))
        finally:
            handle.remove()
        return taken[0]

    @torch.no_grad()
    def replace_head(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the weights of the head; they stay frozen.

        Args:
            weight: (C, D).
            bias: (C,).
        """
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)


class TeacherEnsemble(nn.Module):
    """The weighted average of frozen teachers. It stays in evaluation mode and runs without autograd.

    Feature maps are not averaged. Each has the name of its layer, with the prefix `2.` for the second teacher, `3.` for
    the third, and so on.

    Attributes:
        shares: The weight of each teacher, divided by their sum, (teachers, 1, 1).
        average: What is averaged: with `logits` the logits themselves, with `probabilities` their softmax, whose
            logarithm is then the output.
    """

    shares: Tensor

    def __init__(
        self, teachers: Sequence[FrozenTeacher], *, weights: Sequence[float] | None = None, average: Average = "logits"
    ) -> None:
        """Combine teachers.

        Args:
            teachers: The teachers, one or more.
            weights: A weight above 0 for each teacher; None for equal weights.
            average: See the class.

        Raises:
            ValueError: For another number of weights, or a weight that is not above 0.
        """
        super().__init__()
        weights = [1.0] * len(teachers) if weights is None else list(weights)
        if not teachers or len(weights) != len(teachers) or min(weights) <= 0.0:
            raise ValueError(f"{len(teachers)} teachers need as many weights above 0, got {weights}")
        self.teachers = nn.ModuleList(teachers)
        shares = torch.tensor([weight / sum(weights) for weight in weights])
        self.register_buffer("shares", shares.reshape(-1, 1, 1), persistent=False)
        self.average: Average = average
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> TeacherEnsemble:
        """Stay in evaluation mode."""
        return super().train(False)

    def hook_features(self, layers: Sequence[str]) -> None:
        """Let the forward also give the outputs of these layers, see `models.hooks.hook_features`.

        Raises:
            UserError: For a name that the teacher does not have.
        """
        named = [_split_name(layer, len(self.teachers)) for layer in layers]
        for number, teacher in enumerate(self.members, 1):
            teacher.hook_features([layer for place, layer in named if place == number])

    @property
    def members(self) -> list[FrozenTeacher]:
        """The teachers in their order."""
        return [teacher for teacher in self.teachers if isinstance(teacher, FrozenTeacher)]

    @torch.no_grad()
    def forward(self, **inputs: Tensor) -> Outputs:
        """Average the outputs that all teachers give for a batch; logits in the task's order of classes."""
        given: list[Outputs] = [teacher(**inputs) for teacher in self.teachers]
        if len(given) == 1:
            return given[0]
        averaged = {
            name: self.combine([outputs[name] for outputs in given], name)
            for name in given[0]
            if not name.startswith(FEATURES) and all(name in outputs for outputs in given)
        }
        features = {
            f"{FEATURES}{name_layer(number, name.removeprefix(FEATURES))}": tensor
            for number, outputs in enumerate(given, 1)
            for name, tensor in outputs.items()
            if name.startswith(FEATURES)
        }
        return {**averaged, **features}

    def combine(self, outputs: Sequence[Tensor], name: str = "logits") -> Tensor:
        """Average one output of all teachers, in fp32 or better, because teachers may compute in different precisions.

        Args:
            outputs: The output of each teacher, (R, ...), all on one device.
            name: The name of the output. Only `logits` may be averaged as `probabilities`.

        Returns:
            The average (R, ...).
        """
        stacked = torch.stack([each.to(torch.promote_types(each.dtype, torch.float32)) for each in outputs])
        shares = self.shares.reshape(-1, *[1] * (stacked.ndim - 1))
        if self.average == "logits" or name != "logits":
            return (stacked * shares).sum(0)
        # log(sum of share * softmax), computed in logarithms throughout, so that no probability rounds to 0.
        return torch.logsumexp(F.log_softmax(stacked, -1) + shares.log(), 0)


def name_layer(number: int, layer: str) -> str:
    """Name a layer among the features of all teachers.

    Args:
        number: The number of the teacher, from 1.
        layer: Its name in the teacher's model.
    """
    return layer if number == 1 else f"{number}.{layer}"


def _split_name(name: str, teachers: int) -> tuple[int, str]:
    """Invert `name_layer`. A number that no teacher has remains a part of the name, which no layer has."""
    first, _, rest = name.partition(".")
    if first.isdecimal() and 2 <= int(first) <= teachers:
        return int(first), rest
    return 1, name


Named = tuple[str, nn.Module]


def name_teacher(config: RunConfig, number: int) -> str:
    """Name a teacher in messages: `teacher` where it is alone, else `teacher 2`.

    Args:
        config: The config of the run.
        number: The number of the teacher, from 1.
    """
    return "teacher" if len(config.teachers) == 1 else f"teacher {number}"


def name_teachers(config: RunConfig, teachers: nn.Module | None) -> list[Named]:
    """List the teachers of stage 2 in their order, as `teacher NAME`, or `teacher 1 NAME`, `teacher 2 NAME` and so on.

    Args:
        config: The config of the run.
        teachers: The ensemble; None in stage 1.
    """
    if not isinstance(teachers, TeacherEnsemble):
        return []
    pairs = zip(config.teachers, teachers.members, strict=True)
    return [(f"{name_teacher(config, number)} {section.name}", one) for number, (section, one) in enumerate(pairs, 1)]
