"""The loss scale of fp16 (torch's GradScaler), as a value that a transaction can put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lib.optim.sam import SAM


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
