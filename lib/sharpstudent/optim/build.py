"""From the config's optimiser section to SAM over SGD or AdamW, and the loss scale of fp16.

The loss scale is torch's GradScaler as a value that a transaction can put back; the schedules of lr and rho are made
here, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.config.scheduled import build_lr_schedule, build_rho_schedule
from sharpstudent.optim.sam import SAM

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


class LossScale:
    """Multiplies the loss so that small fp16 gradients survive; halves itself after an overflow, doubles after 2000
    steps without one (Micikevicius et al. 2018, "Mixed Precision Training").
    """

    def __init__(self, device_type: str, *, initial: float = 2.0**16) -> None:
        self._device_type = device_type
        self._scaler = torch.amp.GradScaler(device_type, init_scale=initial)

    @property
    def value(self) -> float:
        """The scale of the next step."""
        return float(self._scaler.get_scale())

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: SAM) -> None:
        """Divide the gradients in place; once a step."""
        self._scaler.unscale_(optimizer.base_optimizer)

    def step(self, optimizer: SAM) -> None:
        """The base step on unscaled, finite gradients, and one step nearer to a larger scale."""
        self._scaler.step(optimizer.base_optimizer)
        self._scaler.update()

    def back_off(self) -> float:
        """Halve the scale after an overflow and begin to count anew; returns the new scale."""
        state = self.state_dict()
        self.load_state_dict({**state, "scale": state["scale"] * state["backoff_factor"], "_growth_tracker": 0})
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Scale and counters as plain numbers."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put `state_dict` back, and forget what was unscaled in a step that was not finished."""
        scaler = torch.amp.GradScaler(self._device_type)
        scaler.load_state_dict(state)
        self._scaler = scaler  # whole or not at all
