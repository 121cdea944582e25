"""Sharpness-aware minimisation over a base optimiser (Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently
Improving Generalization", algorithm 1).

    g = grad L(w);  e = rho g / ||g||;  g' = grad L(w + e);  restore w;  the base optimiser steps with g'.

The ascent is a context manager: whatever ends it, the weights come back as copies of those saved, bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-12  # keeps the division finite; the official code's value


class SAM:
    """A base optimiser and a radius `rho` [L2 norm over all parameters]; rho 0 is the base optimiser alone."""

    def __init__(self, base_optimizer: torch.optim.Optimizer, *, rho: float) -> None:
        if not 0.0 <= rho < float("inf"):
            raise ValueError(f"rho must be a finite number >= 0, got {rho}")
        self.base_optimizer = base_optimizer
        self.rho = rho

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter of every group, in order."""
        return [p for group in self.base_optimizer.param_groups for p in group["params"]]

    def set_lr(self, lr: float) -> None:
        """The learning rate of every group for the next step."""
        for group in self.base_optimizer.param_groups:
            group["lr"] = lr

    def compute_grad_norm(self) -> Tensor:
        """L2 norm of all gradients together, a scalar; 0 where there are none."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if not grads:
            return torch.zeros(())
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))

    @contextlib.contextmanager
    def perturbed(self, grad_norm: Tensor) -> Generator[None]:
        """Weights at w + rho g / ||g|| inside, at w, exactly, after: also when the body raises.

        `grad_norm` is what `compute_grad_norm` gave for the gradients now in place; they are dropped here, so that the
        body accumulates those of w + e.
        """
        moved = [p for p in self.parameters if p.grad is not None]
        saved = [p.detach().clone() for p in moved]
        try:
            self._ascend(moved, self.rho / (grad_norm + EPSILON))
            self.zero_grad()
            yield
        finally:
            # Copying back is exact; subtracting e would leave rounding behind in every step.
            with torch.no_grad():
                if moved:
                    torch._foreach_copy_(moved, saved)

    @torch.no_grad()
    def _ascend(self, moved: list[Tensor], scale: Tensor) -> None:
        """w += scale * g."""
        grads = [p.grad for p in moved if p.grad is not None]
        if grads:
            torch._foreach_add_(moved, torch._foreach_mul(grads, scale))

    @torch.no_grad()
    def clip(self, grad_norm: Tensor, max_norm: float) -> None:
        """Scale all gradients so that their L2 norm is at most `max_norm`."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if grads:
            torch._foreach_mul_(grads, torch.clamp(max_norm / (grad_norm + 1e-6), max=1.0))

    def step(self) -> None:
        """One step of the base optimiser with the gradients in place."""
        self.base_optimizer.step()

    def zero_grad(self) -> None:
        self.base_optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The base optimiser's state, its momentum included: SAM itself remembers nothing between steps."""
        return {"base": self.base_optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base_optimizer.load_state_dict(state["base"])
