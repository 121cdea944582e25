"""From the config's optimiser section to SAM over SGD or AdamW, and to the schedules of its two scalars."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lib.config.build_schedule import build_lr_schedule, build_rho_schedule
from lib.config.sections import OptimizerSection
from lib.optim.sam import SAM

__all__ = ["build_lr_schedule", "build_optimizer", "build_rho_schedule", "find_weights", "group_parameters"]


def build_optimizer(section: OptimizerSection, model: nn.Module, *, extra: nn.Module | None = None) -> SAM:
    """SAM over the base optimiser, for every parameter of `model` and `extra` that learns; decay on weights only.

    extra: what the loss itself learns; in groups of its own behind the model's, so that the state of a run without any
    is laid out as ever. rho 0 is the base optimiser alone: the baseline that SAM is held against.
    """
    modules = [model] if extra is None else [model, extra]
    groups = [group for module in modules for group in group_parameters(module, weight_decay=section.weight_decay)]
    if section.base == "sgd":
        base: torch.optim.Optimizer = torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    else:
        base = torch.optim.AdamW(groups, lr=section.lr)
    adaptive = [p for module in modules for p in find_weights(module)]
    return SAM(base, rho=section.rho, adaptive=adaptive if section.asam else ())


def find_weights(model: nn.Module) -> list[Tensor]:
    """What ASAM's T measures: every learning parameter that is no bias, scales of norm layers included, as in the
    authors' code.
    """
    return [p for name, p in model.named_parameters() if p.requires_grad and not name.endswith("bias")]


def group_parameters(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights (decayed) and vectors, that is biases and norm layers (not decayed). Empty ones are left
    out.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
