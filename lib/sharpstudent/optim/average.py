"""An exponential moving average of the student's weights and buffers (timm's), with the count that its decay needs."""

from __future__ import annotations

from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn


class WeightAverage:
    """average = d average + (1 - d) student after each update; buffers of whole numbers are copied.

    d rises to `decay`: d(k) = min(decay, 1 - k^(-2/3)) at the k-th update, k from 1 on, so that the first copies the
    student. Otherwise a short run's average would be that of its first weights.
    """

    def __init__(self, student: nn.Module, *, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"the decay of an average must lie between 0 and 1, got {decay}")
        # Stochastic rounding (of bf16 weights) draws from a generator that no state and no transaction would hold.
        self._average = ModelEmaV3(student, decay=decay, use_warmup=True, foreach=True, stochastic_rounding=False)
        self._average.requires_grad_(False)
        self.updates = 0

    @property
    def model(self) -> nn.Module:
        """The averaged model, in evaluation mode; never learns."""
        return self._average.module

    @property
    def tensors(self) -> list[Tensor]:
        """What an update changes."""
        return list(self.model.state_dict().values())

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take the student's weights in."""
        # timm counts from 1 past `update_after_step` and returns decay 0 (a copy) for the first.
        self._average.update(student, step=self.updates + 1)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])
