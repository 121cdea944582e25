"""One or more frozen teachers as one, and what messages and tables call them.

One or more frozen teachers as one: each sees the batch at its own size and scale, and their answers are averaged.

Legend: B images, C classes, H x W pixels.

What messages, tables and files call the models of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.types import Outputs
from sharpstudent.models.classifier import Classifier, FrozenTeacher
from sharpstudent.models.weights import is_head

Average = Literal["logits", "probabilities"]


class AdaptedTeacher(FrozenTeacher):
    """A frozen teacher with an input size, a normalisation, a class order and a temperature of its own.

    input_size: side in pixels that the images are resized to (bilinear with antialiasing); mean, std: of each colour,
    for RGB in 0..1; order: for each class of the task, its place in the teacher's logits; calibration: what its logits
    are divided by, found by the preflight. What is None leaves the tensor as it is: without any of them the teacher
    gets the caller's very tensor, and gives its own logits.
    """

    mean: Tensor | None
    std: Tensor | None
    calibration: float | None = None

    def __init__(
        self,
        model: Classifier,
        *,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model)
        self.input_size = input_size
        # Not persistent: settings are no weights.
        self.register_buffer("mean", _per_colour(mean), persistent=False)
        self.register_buffer("std", _per_colour(std), persistent=False)
        self.order = None if order is None or list(order) == sorted(order) else tuple(order)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) RGB in 0..1 as this teacher expects them; the same object where it expects no other."""
        size = self.input_size
        if size is not None and tuple(images.shape[-2:]) != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        if self.mean is not None:
            images = images - self.mean
        if self.std is not None:
            images = images / self.std
        return images

    @torch.no_grad()
    def forward(self, images: Tensor) -> Outputs:
        outputs = self.model(self.prepare(images))
        logits = outputs.logits if self.order is None else outputs.logits[:, list(self.order)]
        logits = logits if self.calibration is None else logits / self.calibration
        return outputs if logits is outputs.logits else Outputs(logits=logits, features=outputs.features)

    @torch.no_grad()
    def get_features(self, images: Tensor) -> Tensor:
        return self.model.get_features(self.prepare(images))

    @property
    def head(self) -> nn.Linear:
        """The layer that gives the logits, whatever its library calls it. Raises ValueError where there is not one."""
        layers = [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and is_head(f"{name}.weight")
        ]
        if len(layers) != 1:
            raise ValueError(f"{type(self.model).__name__} has {len(layers)} linear layers that could be its head")
        return layers[0]

    @torch.no_grad()
    def pool(self, images: Tensor) -> Tensor:
        """What the head takes in, (B, D), of images (B, 3, H, W) RGB in 0..1: pooled as this architecture pools."""
        taken: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, values: taken.append(values[0]))
        try:
            self.model(self.prepare(images))
        finally:
            handle.remove()
        return taken[0]

    @torch.no_grad()
    def replace_head(self, weight: Tensor, bias: Tensor) -> None:
        """Give the head these weights (C, D) and (C,), on its own device; they stay frozen."""
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)


class TeacherEnsemble(nn.Module):
    """Frozen teachers that answer with one voice. Stays in evaluation mode, keeps no graph.

    weights: the share of each teacher, divided by their sum. average: `logits` gives their weighted mean,
    `probabilities` the logarithm of the weighted mean of their softmaxes; one teacher alone answers for itself in both.
    Features go by the names of the layers: the first teacher's as they are, the second's after `2.`, the third's after
    `3.`, and so on; each at the size of its own input.
    """

    shares: Tensor

    def __init__(
        self, teachers: Sequence[FrozenTeacher], *, weights: Sequence[float] | None = None, average: Average = "logits"
    ) -> None:
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
        return super().train(False)

    def tap(self, layers: Sequence[str]) -> None:
        """As `Classifier.tap`, with the names under which the features come. Raises UserError as it does."""
        named = [_split_name(layer, len(self.teachers)) for layer in layers]
        for number, teacher in enumerate(self.members, 1):
            teacher.tap([layer for place, layer in named if place == number])

    @property
    def members(self) -> list[FrozenTeacher]:
        """The teachers in their order."""
        return [teacher for teacher in self.teachers if isinstance(teacher, FrozenTeacher)]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Outputs:
        """images (B, 3, H, W) float32 RGB in 0..1 -> logits (B, C) in the task's order of classes."""
        answers: list[Outputs] = [teacher(images) for teacher in self.teachers]
        if len(answers) == 1:
            return answers[0]
        features = {
            name_layer(number, layer): tensor
            for number, answer in enumerate(answers, 1)
            for layer, tensor in answer.features.items()
        }
        return Outputs(logits=self.combine([answer.logits for answer in answers]), features=features)

    @torch.no_grad()
    def get_features(self, images: Tensor) -> Tensor:
        """Last feature map of the first teacher."""
        return self.members[0].get_features(images)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """The average (B, C) of what each teacher says, (B, C) each, on one device. At least in fp32: teachers may
        answer in several precisions.
        """
        stacked = torch.stack([each.to(torch.promote_types(each.dtype, torch.float32)) for each in logits])
        if self.average == "logits":
            return (stacked * self.shares).sum(0)
        # log(sum of share * softmax), without ever leaving the logarithms: no probability rounds to 0.
        return torch.logsumexp(F.log_softmax(stacked, -1) + self.shares.log(), 0)


def name_layer(number: int, layer: str) -> str:
    """What the layer of the n-th teacher (from 1) is called among the features of all."""
    return layer if number == 1 else f"{number}.{layer}"


def _split_name(name: str, teachers: int) -> tuple[int, str]:
    """The reverse of `name_layer`. A number that no teacher has stays in the name, which then is unknown."""
    first, _, rest = name.partition(".")
    if first.isdecimal() and 2 <= int(first) <= teachers:
        return int(first), rest
    return 1, name


def _per_colour(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)


Named = tuple[str, nn.Module]


def name_teachers(config: RunConfig, teachers: nn.Module | None) -> list[Named]:
    """The teachers of stage 2 in their order: `teacher NAME`, or `teacher 1 NAME`, `teacher 2 NAME` and so on."""
    if not isinstance(teachers, TeacherEnsemble):
        return []
    sections = config.teachers
    numbers = [f" {number}" for number in range(1, len(sections) + 1)] if len(sections) > 1 else [""]
    names = [f"teacher{number} {section.name}" for number, section in zip(numbers, sections, strict=True)]
    return list(zip(names, teachers.members, strict=True))
