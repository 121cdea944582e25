"""From the config's optimiser section to SAM over SGD or AdamW, and to the schedules of its two scalars."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lib.config.sections import OptimizerSection
from lib.optim.sam import SAM
from lib.schedules import FlatThenLinear, RiseThenLinear


def build_optimizer(section: OptimizerSection, model: nn.Module) -> SAM:
    """SAM over the base optimiser, for every parameter of `model` that learns; decay on weights only.

    rho 0 is the base optimiser alone: the baseline that SAM is held against.
    """
    groups = group_parameters(model, weight_decay=section.weight_decay)
    if section.base == "sgd":
        base: torch.optim.Optimizer = torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    else:
        base = torch.optim.AdamW(groups, lr=section.lr)
    return SAM(base, rho=section.rho, adaptive=find_weights(model) if section.asam else ())


def build_lr_schedule(section: OptimizerSection) -> FlatThenLinear:
    """Flat, then linear to 0, as the reference; optionally rising from 0 first."""
    return FlatThenLinear(section.lr, flat=section.flat, warmup=section.warmup)


def build_rho_schedule(section: OptimizerSection) -> RiseThenLinear:
    """Constant unless the config says more: rising from 0 first, and moving to `rho_end` after."""
    end = section.rho if section.rho_end is None else section.rho_end
    return RiseThenLinear(section.rho, end=end, rise=section.rho_warmup)


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
