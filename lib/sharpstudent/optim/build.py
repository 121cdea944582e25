"""Builds SAM over SGD or AdamW from the optimiser's section of the config, and defines the loss scale of fp16.

`build_lr_schedule` and `build_rho_schedule` of the config are exported from here, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.config.scheduled import build_lr_schedule, build_rho_schedule
from sharpstudent.optim.sam import SAM

__all__ = ["build_lr_schedule", "build_optimizer", "build_rho_schedule", "find_weights", "group_parameters"]


# The keys of the variants of SAM, with the value that leaves SAM as it is.
VARIANTS = {"sam_every": 1, "sam_norm_only": False, "sam_subset": 1.0, "sam_adaptive": False, "sam_friendly": False}


def build_optimizer(section: OptimizerSection, model: nn.Module, *, extra: nn.Module | None = None) -> SAM:
    """Build SAM over the base optimiser; weight decay acts on weights only.

    With rho 0 it is the base optimiser alone: the baseline for SAM.

    Args:
        section: The optimiser in the config.
        model: The student.
        extra: A module with the criterion's parameters; None for none. Its parameter groups come after those of the
            model, so that the state has the same layout in a run without it.

    Returns:
        The optimiser, for every parameter that requires a gradient.

    Raises:
        UserError: For `sam_norm_only` and a student without normalisation layers.
    """
    modules = [model] if extra is None else [model, extra]
    groups = [group for module in modules for group in group_parameters(module, weight_decay=section.weight_decay)]
    if section.base == "sgd":
        base: torch.optim.Optimizer = torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    else:
        base = torch.optim.AdamW(groups, lr=section.lr)
    adaptive = [p for module in modules for p in find_weights(module)] if section.asam else []
    if any(getattr(section, key) != idle for key, idle in VARIANTS.items()):
        from sharpstudent.optim.cheap_sam import build_cheap_sam  # loaded only where it is asked for

        return build_cheap_sam(section, base, model, adaptive=adaptive)
    return SAM(base, rho=section.rho, adaptive=adaptive)


def find_weights(model: nn.Module) -> list[Tensor]:
    """The parameters that ASAM scales: all trainable ones except biases.

    The scales of norm layers are among them, as in the code of ASAM's authors (SamsungLabs/ASAM, asam.py), which scales
    the parameters with `weight` in their name. Of convolutions, linear and norm layers these are the same. Parameters
    that are neither weights nor biases by name, such as position embeddings, class tokens and layer scales, are scaled
    here but not there: they multiply or join activations as weights do.
    """
    return [p for name, p in model.named_parameters() if p.requires_grad and not name.endswith("bias")]


def group_parameters(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Put the trainable parameters into two groups.

    Args:
        model: The model.
        weight_decay: The weight decay of the first group.

    Returns:
        The group of weights, which are decayed, and the group of vectors (biases, parameters of norm layers), which are
        not; empty groups are left out.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class LossScale:
    """Multiplies the loss so that small fp16 gradients survive.

    It halves itself after an overflow, and doubles after 2000 steps without one (Micikevicius et al. 2018, "Mixed
    Precision Training"). It wraps the GradScaler of torch, so that its state can be restored after a failed step.
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
        """Divide the gradients by the scale, in place; once per step."""
        self._scaler.unscale_(optimizer.base_optimizer)

    def step(self, optimizer: SAM) -> None:
        """Step the base optimiser with unscaled, finite gradients, and count the step towards the next doubling."""
        self._scaler.step(optimizer.base_optimizer)
        self._scaler.update()

    def back_off(self) -> float:
        """Halve the scale after an overflow, and restart the count; returns the new scale."""
        state = self.state_dict()
        self.load_state_dict({**state, "scale": state["scale"] * state["backoff_factor"], "_growth_tracker": 0})
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Scale and counters as plain numbers."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, and forget the unscaling of a step that was not finished."""
        scaler = torch.amp.GradScaler(self._device_type)
        scaler.load_state_dict(state)
        self._scaler = scaler  # replaced at the end: an error above leaves the old one
