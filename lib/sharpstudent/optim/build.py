"""Builds SAM over SGD or AdamW from the optimiser's section of the config, and defines the loss scale of fp16.

`build_lr_schedule` and `build_rho_schedule` of the config are exported from here, too.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.config.scheduled import build_lr_schedule, build_rho_schedule
from sharpstudent.core.errors import UserError
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
        UserError: For `sam_norm_only` and a student without normalisation layers, and for a pattern of `lr_factors`
            that fits no parameter.
    """
    modules = [model] if extra is None else [model, extra]
    decay, factors = section.weight_decay, section.lr_factors
    groups = [
        *group_parameters(model, weight_decay=decay, factors=factors),
        *([] if extra is None else group_parameters(extra, weight_decay=decay)),
    ]
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


def group_parameters(
    model: nn.Module, *, weight_decay: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Put the trainable parameters into groups of one weight decay and one factor of the learning rate.

    Args:
        model: The model.
        weight_decay: The weight decay of weights; vectors (biases, parameters of norm layers) are not decayed.
        factors: Factors of the learning rate by patterns of parameter names; the first that fits counts.

    Returns:
        Weights and vectors without a factor, then those of each pattern, with `lr_factor`; empty groups are left out.

    Raises:
        UserError: For a pattern that fits no trainable parameter.
    """
    parts: dict[str | None, list[Tensor]] = {None: [], **{pattern: [] for pattern in factors or {}}}
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for name, p in model.named_parameters():
        if p.requires_grad:
            fits = (pattern for pattern in factors or {} if fnmatch.fnmatchcase(name, pattern))
            parts[next(fits, None)].append(p)
    unused = [pattern for pattern, own in parts.items() if pattern is not None and not own]
    if unused:
        raise UserError.about(
            "lr_factors",
            f"{unused[0]!r} fits no parameter that is trained, or only those of an earlier pattern",
            expected="a pattern of parameter names, such as " + ", ".join(names[-3:]),
            remedy="correct it or leave it out",
        )
    groups = [
        {"params": own, "weight_decay": decay, **({} if pattern is None else {"lr_factor": (factors or {})[pattern]})}
        for pattern, found in parts.items()
        for own, decay in (
            ([p for p in found if p.ndim > 1], weight_decay),
            ([p for p in found if p.ndim <= 1], 0.0),
        )
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
