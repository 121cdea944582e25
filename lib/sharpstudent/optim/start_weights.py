"""Holds a model near the trained one that it started from, so that what that one knew is not lost.

Two means, each a key of the config:

    l2_start = a     L2-SP: a / 2 ||w - w0||^2, of gradient a (w - w0)      (Li, Grandvalet, Davoine 2018, equation 4)
    start_share = s  WiSE-FT: what is kept is (1 - s) w + s w0              (Wortsman et al. 2022, section 3)

w are the weights that learn, w0 their values at the start. The pull acts as the weight decay of each optimiser does,
towards w0 in place of 0: SGD adds its gradient, so that it goes through the momentum; AdamW is decoupled,
w <- w - lr a (w - w0) before its own step. It is no part of the loss: it comes once a step, after both passes of SAM
and after clipping, and neither the ascent nor the logged loss knows of it. It is the same on all ranks, whose gradients
are added up by then, and with any number of micro-batches. Statistics of BatchNorm are not pulled.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.optim.sam import SAM


class StartWeights:
    """The weights that a stage starts from, and what keeps a model near them.

    Attributes:
        model: A frozen copy of the model at the start, in evaluation mode.
        pull: The weight a of L2-SP; 0 for none.
        share: The share s of the start in what is kept; 0 for none.
    """

    def __init__(self, student: nn.Module, *, pull: float = 0.0, share: float = 0.0) -> None:
        """Copy the student as it is now.

        Args:
            student: The model that will learn.
            pull: The weight of L2-SP.
            share: The share of the start in what is kept, below 1.
        """
        if pull < 0.0 or not 0.0 <= share < 1.0:
            raise ValueError(f"a start pulls by 0 or more and has a share of 0 to below 1, got {pull} and {share}")
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        self.pull, self.share = pull, share
        starts = dict(self.model.named_parameters())
        self._start_of: dict[Tensor, Tensor] = {
            p: starts[name] for name, p in student.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def pull_back(self, optimizer: SAM) -> None:
        """Pull the weights towards the start; called with the final gradients, just before the base step."""
        if self.pull == 0.0:
            return
        base = optimizer.base_optimizer
        is_decoupled = isinstance(base, torch.optim.AdamW)
        for group in base.param_groups:
            pulled = [p for p in group["params"] if p.grad is not None and p in self._start_of]
            if not pulled:
                continue
            ways = torch._foreach_sub(pulled, [self._start_of[p] for p in pulled])
            if is_decoupled:
                torch._foreach_add_(pulled, ways, alpha=-min(1.0, group["lr"] * self.pull))
            else:
                torch._foreach_add_([p.grad for p in pulled], ways, alpha=self.pull)

    @torch.no_grad()
    def mix(self, model: nn.Module) -> nn.Module:
        """Average a model with the start.

        Args:
            model: The student, or the moving average of its weights.

        Returns:
            The model itself where the start has no share; else a new one, in evaluation mode, whose weights and
            buffers of floating-point numbers are (1 - s) w + s w0. Buffers of integers are those of the model.
        """
        if self.share == 0.0:
            return model
        mixed = copy.deepcopy(self.model)
        state = model.state_dict()
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(state[name], 1.0 - self.share)
            else:
                tensor.copy_(state[name])
        return mixed

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the start."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.model.load_state_dict(state)
