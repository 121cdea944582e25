"""The exponential moving average (EMA) of the student's weights and buffers, computed with timm's implementation."""

from __future__ import annotations

from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn


class WeightAverage:
    """The moving average of the weights of a model.

    At each update, average = d average + (1 - d) student; buffers of integers are copied.

    d rises to `decay`: d(k) = min(decay, 1 - k^(-2/3)) at the k-th update, counted from 1, so that the first update
    copies the student. With a constant d, the average of a short run would mostly be its first weights.
    """

    def __init__(self, student: nn.Module, *, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"the decay of an average must lie between 0 and 1, got {decay}")
        # Stochastic rounding (of bf16 weights) would draw random numbers that neither a resume nor a rollback repeats.
        self._average = ModelEmaV3(student, decay=decay, use_warmup=True, foreach=True, stochastic_rounding=False)
        self._average.requires_grad_(False)
        self.updates = 0

    @property
    def model(self) -> nn.Module:
        """The averaged model, in evaluation mode and without gradients."""
        return self._average.module

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that an update changes."""
        return list(self.model.state_dict().values())

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Update the average with the weights of the student."""
        # In timm, the decay of step 1 is 0: the first update copies the student.
        self._average.update(student, step=self.updates + 1)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged model and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])
