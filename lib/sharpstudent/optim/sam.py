"""Sharpness-aware minimisation over a base optimiser, and its adaptive form.

SAM: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization", algorithm 1. ASAM: Kwon
et al. 2021, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks",
equation 5.

    g = grad L(w);  e = rho T^2 g / ||T g||;  g' = grad L(w + e);  restore w;  the base optimiser steps with g'.

T is 1 in SAM. In ASAM it is |w| + 0.01 for weights and 1 for biases. The ascent to w + e is a context manager: however
its body ends, the weights are restored exactly, from copies. cheap_sam.py has the variants that cost less; a step calls
them where they differ: `choose_share`, `first_pass`, `ascends`, `complete_gradient`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from sharpstudent.core.schedules import Progress

EPSILON = 1e-12  # keeps the division finite; the value of the official code
ETA = 0.01  # ASAM's floor of T: without it a weight that is 0 would never be perturbed


class SAM:
    """A base optimiser and a radius `rho` [L2 norm over all parameters]; with rho 0 it is the base optimiser alone.

    e is the same for g and for any positive multiple of g, so the gradient of a scaled loss (fp16) need not be unscaled
    before the ascent.
    """

    def __init__(self, base_optimizer: torch.optim.Optimizer, *, rho: float, adaptive: Collection[Tensor] = ()) -> None:
        """Wrap a base optimiser.

        Args:
            base_optimizer: An optimiser of torch, with its parameter groups.
            rho: The radius of the first step.
            adaptive: The parameters whose radius is relative to their own size (ASAM); none of them in plain SAM.
        """
        self.base_optimizer = base_optimizer
        self.ascent_state: Mapping[str, Any] = {}  # never changed in place, so that a transaction need not copy it
        self._adaptive = {id(p) for p in adaptive}
        unknown = self._adaptive - {id(p) for p in self.parameters}
        if unknown:
            raise ValueError(f"{len(unknown)} adaptive tensors are not parameters of the base optimiser")
        self.set_rho(rho)

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter of every group, in order."""
        return [p for group in self.base_optimizer.param_groups for p in group["params"]]

    @property
    def rho(self) -> float:
        """The radius of the next step."""
        return self._rho

    def set_rho(self, rho: float) -> None:
        """Set the radius of the next step; 0 turns SAM off. Raises ValueError unless it is finite and >= 0."""
        if not 0.0 <= rho < float("inf"):
            raise ValueError(f"rho must be a finite number >= 0, got {rho}")
        self._rho = rho

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group for the next step; a group may have a factor of its own."""
        for group in self.base_optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)

    def choose_share(self, progress: Progress) -> float:
        """The share of the batch's samples that pass 1 reads; 1 in a step without a second pass."""
        return 1.0

    def first_pass(self) -> AbstractContextManager[object]:
        """Context manager for pass 1."""
        return contextlib.nullcontext()

    def ascends(self, progress: Progress, grad_norm: Tensor, scale: float) -> bool:
        """Whether the step has a second pass. Called once a step, with the gradients of pass 1 in place.

        Args:
            progress: The epoch and number of the step.
            grad_norm: What `compute_grad_norm` gave for the current gradients.
            scale: The loss scale of fp16, by which they are multiplied; else 1.
        """
        return self.rho > 0.0

    def complete_gradient(self, progress: Progress, *, ascended: bool) -> None:
        """Change the gradient that the base optimiser will step with, after the last pass."""

    def restore_ascent(self, state: Mapping[str, Any]) -> None:
        """Undo a step: the state of the ascent is that of before it, and every parameter requires its gradient."""
        self.ascent_state = state
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    def compute_grad_norm(self) -> Tensor:
        """L2 norm of all gradients together, a scalar; 0 where there are none."""
        return _compute_norm([p.grad for p in self.parameters if p.grad is not None])

    @contextlib.contextmanager
    def perturbed(self, grad_norm: Tensor, weights: Sequence[Tensor] | None = None) -> Generator[None]:
        """Set the weights to w + e for the body of a `with`, and to exactly w after it, also when the body raises.

        The current gradients are dropped at the start, so that the body accumulates those of w + e.

        Args:
            grad_norm: What `compute_grad_norm` gave for the current gradients.
            weights: Copies of w that `copy_parameters` made; None to make them now.
        """
        parameters = self.parameters
        saved = self.copy_parameters() if weights is None else list(weights)
        try:
            self._ascend([p for p in parameters if p.grad is not None], grad_norm)
            self.zero_grad()
            yield
        finally:
            # Copying back is exact; subtracting e would add rounding errors in every step.
            with torch.no_grad():
                torch._foreach_copy_(parameters, saved)

    def copy_parameters(self) -> list[Tensor]:
        """Copies of all parameters, in order."""
        return [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def _ascend(self, moved: list[Tensor], grad_norm: Tensor) -> None:
        """Add e to the weights."""
        directions, norm = self._find_directions(moved), grad_norm
        if not directions:
            return
        if directions[0] is not moved[0].grad:
            norm = _compute_norm(directions)
        if self._adaptive:
            scales = [p.abs().add_(ETA) if id(p) in self._adaptive else torch.ones_like(p) for p in moved]
            directions = list(torch._foreach_mul(directions, scales))  # T g
            norm = _compute_norm(directions)
            torch._foreach_mul_(directions, scales)  # T^2 g
        torch._foreach_add_(moved, torch._foreach_mul(directions, self.rho / (norm + EPSILON)))

    def _find_directions(self, moved: list[Tensor]) -> list[Tensor]:
        """Find the direction of the ascent for each of these parameters: its gradient."""
        return [p.grad for p in moved if p.grad is not None]

    @torch.no_grad()
    def clip(self, grad_norm: Tensor, max_norm: float) -> None:
        """Scale all gradients so that their L2 norm is at most `max_norm`.

        Args:
            grad_norm: The L2 norm of the current gradients.
            max_norm: The largest norm.
        """
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if grads:
            torch._foreach_mul_(grads, torch.clamp(max_norm / (grad_norm + 1e-6), max=1.0))

    def step(self) -> None:
        """Take one step of the base optimiser with the current gradients."""
        self.base_optimizer.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.base_optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of the base optimiser, its momentum included, and that of the ascent where a variant has one."""
        ascent = {"ascent": dict(sorted(self.ascent_state.items()))} if self.ascent_state else {}
        return {"base": self.base_optimizer.state_dict(), **ascent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.base_optimizer.load_state_dict(state["base"])
        self._load_ascent(state.get("ascent", {}))

    def _load_ascent(self, state: Mapping[str, Any]) -> None:
        """Take over the state of the ascent; a run whose config was changed may bring one that is not needed."""


def _compute_norm(tensors: list[Tensor]) -> Tensor:
    """L2 norm of all tensors together, a scalar; 0 where there are none."""
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
