"""Sections, outputs and batches for the tests of the terms, and what a term's value and gradient are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.config.run_config import TermSection
from sharpstudent.core.schedules import Constant, Progress
from sharpstudent.core.types import Batch
from sharpstudent.criterion.build import build_criterion
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedTerm
from torch import Tensor

START = Progress(epoch=1, step=0, epochs=30, steps_per_epoch=10)
HALF = [torch.float16, torch.bfloat16]


def make_shapes(
    classes: int,
    student: Mapping[str, tuple[int, ...]] | None = None,
    teacher: Mapping[str, tuple[int, ...]] | None = None,
) -> Shapes:
    """Models of so many classes each, and the layers that are hooked in them."""
    return Shapes(
        student={"logits": (2, classes), **{f"features/{name}": shape for name, shape in (student or {}).items()}},
        teacher={"logits": (2, classes), **{f"features/{name}": shape for name, shape in (teacher or {}).items()}},
        rows=2,
    )


TWO = make_shapes(2)


def constant(value: float) -> Constant:
    return Constant(value)


def make_section(term: str, *, name: str | None = None, weight: float = 1.0, **settings: Any) -> TermSection:
    """settings: numbers and words, as a config writes them."""
    return TermSection(
        name=name or term,
        term=term,
        weight=constant(weight),
        numbers={key: constant(value) for key, value in settings.items() if not isinstance(value, str)},
        choices={key: value for key, value in settings.items() if isinstance(value, str)},
    )


def build_one(term: str, shapes: Shapes = TWO, **settings: Any) -> WeightedTerm:
    return build_criterion([make_section(term, **settings)], shapes).terms[0]


def draw(images: int = 8, classes: int = 2, *, seed: int = 0, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


def make_labels(images: int = 8, classes: int = 2) -> Tensor:
    return torch.arange(images) % classes


def make_batch(images: int = 8, classes: int = 2) -> Batch:
    names = [f"image {i}" for i in range(images)]
    return Batch(
        inputs={"image": torch.zeros(images, 3, 4, 4)},
        targets={"label": make_labels(images, classes)},
        rows={"id": names, "group": names, "sample": list(range(images))},
    )


def to_float64(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().float().numpy().astype(np.float64)


def softmax_float64(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = to_float64(logits) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_of(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What the papers write down, and the criterion makes of the rows: their mean."""

    def compute_mean(*args: Any, **settings: Any) -> Tensor:
        rows = compute(*args, **settings)
        assert rows.shape == args[0].shape[:1]
        return rows.mean()

    return compute_mean


def take_gradient(value: Tensor, *of: Tensor) -> Tensor:
    """The gradient with respect to one tensor."""
    (gradient,) = torch.autograd.grad(value, of)
    return gradient
