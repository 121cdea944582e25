"""Variants of SAM that cost less than two passes, or ascend in a better direction. Each is one key of the config.

With g the gradient at w, g' the one at w + e, and means over the steps of a run:

    sam_every k    LookSAM (Liu et al. 2022, "Towards Efficient and Scalable Sharpness-Aware Minimization", algorithm
                   1): g' in every k-th step, of which u, the part across g, is kept; the steps between take
                   g + .7 ||g|| u / ||u||
    sam_norm_only  SAM-ON (Mueller et al. 2023, "Normalization Layers Are All That Sharpness-Aware Minimization
                   Needs"): e is 0 outside normalisation layers. Pass 1 computes no gradient of other parameters
    sam_subset s   pass 1 reads the first share s of the samples, which are in random order
    sam_adaptive   AE-SAM (Jiang et al. 2023, "An Adaptive Policy to Employ Sharpness-Aware Minimization", algorithm
                   1): g' if ||g||^2 >= m + c sqrt(v), with the means m and v of ||g||^2 and of its squared deviation,
                   and c falling from 1 to -1 over the run
    sam_friendly   Friendly-SAM (Li et al. 2024, "Friendly Sharpness-Aware Minimization", equation 11): e follows
                   g - m, with the mean m of the earlier gradients

What a variant keeps from step to step is its `ascent_state`: it is saved with the optimiser, and a step that fails
leaves it as it was. Steps with rho 0, as in a warm-up, are plain steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.optim.sam import EPSILON, SAM

ACROSS = 0.7  # LookSAM's alpha, of the paper
MEMORY = 0.9  # what a running mean keeps of its earlier value, of the papers of AE-SAM and Friendly-SAM
NORM_LAYERS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "RmsNorm", "SimpleNorm")


@dataclass(frozen=True)
class SamVariant:
    """What differs from SAM.

    Attributes:
        every: The second pass is in every so many steps.
        share: The share of the samples that pass 1 reads.
        only: The parameters that are perturbed; None for all.
        is_adaptive: Whether the size of the gradient decides about the second pass.
        is_friendly: Whether the ascent leaves out the running mean of the gradients.
    """

    every: int = 1
    share: float = 1.0
    only: Sequence[Tensor] | None = None
    is_adaptive: bool = False
    is_friendly: bool = False


class CheapSAM(SAM):
    """SAM with variants; those that make sense together may be combined."""

    def __init__(
        self,
        base_optimizer: torch.optim.Optimizer,
        variant: SamVariant,
        *,
        rho: float,
        adaptive: Collection[Tensor] = (),
    ) -> None:
        """Wrap a base optimiser.

        Args:
            base_optimizer: An optimiser of torch, with its parameter groups.
            variant: What differs from SAM.
            rho: The radius of the first step.
            adaptive: The parameters whose radius is relative to their own size (ASAM).
        """
        super().__init__(base_optimizer, rho=rho, adaptive=adaptive)
        self._variant = variant
        chosen = None if variant.only is None else {id(p) for p in variant.only}
        self._still = [] if chosen is None else [p for p in self.parameters if id(p) not in chosen]
        self._first: list[Tensor | None] = []  # LookSAM: the gradients of pass 1, during pass 2
        self._mean: Mapping[int, Tensor] | None = None  # Friendly-SAM: the mean before this step
        self._scale = 1.0

    def choose_share(self, progress: Progress) -> float:
        """The share of the batch's samples that pass 1 reads."""
        return self._variant.share if self.rho > 0.0 else 1.0

    @contextlib.contextmanager
    def first_pass(self) -> Generator[None]:
        """Context manager for pass 1: parameters that are not perturbed need no gradient in it."""
        if self.rho == 0.0 or not self._still:
            yield
            return
        try:
            for parameter in self._still:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in self._still:
                parameter.requires_grad_(True)

    def ascends(self, progress: Progress, grad_norm: Tensor, scale: float) -> bool:
        """Whether the step has a second pass; the running means take in the gradient of pass 1."""
        if self.rho == 0.0:
            return False
        variant, self._scale = self._variant, scale
        if variant.is_friendly:
            self._mean = self.ascent_state.get("mean_gradient")
            self.ascent_state = {**self.ascent_state, "mean_gradient": self._update_mean(self._mean)}
        if variant.is_adaptive and not self._is_large((float(grad_norm) / scale) ** 2, progress):
            return False
        if progress.done % variant.every:
            return False
        if variant.every > 1:
            self._first = [p.grad for p in self.parameters]
        return True

    def complete_gradient(self, progress: Progress, *, ascended: bool) -> None:
        """Keep what LookSAM needs in the steps between, or add it in one of them."""
        self._mean = None
        if self._variant.every == 1 or self.rho == 0.0:
            return
        if ascended:
            self.ascent_state = {**self.ascent_state, "across": self._find_across()}
            self._first = []
        elif "across" in self.ascent_state:
            self._add_across(self.ascent_state["across"])

    @torch.no_grad()
    def _find_across(self) -> dict[int, Tensor]:
        """Find the part of the second gradient across the first, of length 1 over all parameters."""
        both = {
            place: (first, p.grad)
            for place, (first, p) in enumerate(zip(self._first, self.parameters, strict=True))
            if p.grad is not None
        }
        if not both:
            return {}
        known = [(first, second) for first, second in both.values() if first is not None]
        dot = sum((first * second).sum() for first, second in known)
        square = sum(first.square().sum() for first, _ in known)
        share = dot / (square + EPSILON**2)
        across = {
            place: second.clone() if first is None else second - share * first
            for place, (first, second) in both.items()
        }
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(across.values()))))
        return {place: one / (norm + EPSILON) for place, one in across.items()}

    @torch.no_grad()
    def _add_across(self, across: Mapping[int, Tensor]) -> None:
        """Add .7 ||g|| u to the gradients."""
        length = ACROSS * self.compute_grad_norm()
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None and place in across:
                parameter.grad.add_(length * across[place])

    def _is_large(self, square: float, progress: Progress) -> bool:
        """Whether a squared norm is large for the run so far, which it then belongs to."""
        state = self.ascent_state
        mean = MEMORY * state["mean"] + (1.0 - MEMORY) * square if "mean" in state else square
        variance = MEMORY * state.get("variance", 0.0) + (1.0 - MEMORY) * (square - mean) ** 2
        self.ascent_state = {**state, "mean": mean, "variance": variance}
        return square >= mean + (1.0 - 2.0 * progress.share_to_last) * math.sqrt(variance)

    @torch.no_grad()
    def _update_mean(self, mean: Mapping[int, Tensor] | None) -> dict[int, Tensor]:
        """Compute the running mean of the gradients with the current ones, without the loss scale."""
        grads = {place: p.grad / self._scale for place, p in enumerate(self.parameters) if p.grad is not None}
        if mean is None:
            return grads
        return {
            place: MEMORY * mean[place] + (1.0 - MEMORY) * grad if place in mean else grad
            for place, grad in grads.items()
        }

    def _find_directions(self, moved: list[Tensor]) -> list[Tensor]:
        """Find the directions of the ascent: the gradients, or what they have beyond their mean."""
        directions = super()._find_directions(moved)
        if self._mean is None:
            return directions
        places = {id(p): place for place, p in enumerate(self.parameters)}
        mean = [self._mean.get(places[id(p)]) for p in moved]
        return [g / self._scale if m is None else g / self._scale - m for g, m in zip(directions, mean, strict=True)]

    def restore_ascent(self, state: Mapping[str, Any]) -> None:
        """Undo a step."""
        super().restore_ascent(state)
        self._first, self._mean = [], None

    def _load_ascent(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; what this variant does not use is dropped. Raises ValueError for other shapes."""
        wanted = {
            "across": self._variant.every > 1,
            "mean_gradient": self._variant.is_friendly,
            "mean": self._variant.is_adaptive,
            "variance": self._variant.is_adaptive,
        }
        loaded: dict[str, Any] = {}
        parameters = self.parameters
        for name in (name for name, used in wanted.items() if used and name in state):
            value = state[name]
            if isinstance(value, Mapping):
                for place, tensor in value.items():
                    if tensor.shape != parameters[place].shape:
                        raise ValueError(f"optimizer: {name} of parameter {place} has the shape {tuple(tensor.shape)}")
                value = {place: tensor.to(parameters[place].device) for place, tensor in value.items()}
            loaded[name] = value
        self.ascent_state = loaded


def build_cheap_sam(
    section: OptimizerSection, base: torch.optim.Optimizer, model: nn.Module, *, adaptive: Collection[Tensor]
) -> CheapSAM:
    """Build the variant that the config asks for.

    Args:
        section: The optimiser in the config.
        base: The base optimiser.
        model: The student.
        adaptive: The parameters whose radius is relative to their own size (ASAM).

    Returns:
        The optimiser.

    Raises:
        UserError: For `sam_norm_only` and a student without normalisation layers.
    """
    only = find_norm_parameters(model) if section.sam_norm_only else None
    if only == []:
        raise UserError.about(
            "sam_norm_only",
            f"perturbs normalisation layers only, and {type(model).__name__} has none with parameters that learn",
            expected=f"layers such as {', '.join(NORM_LAYERS[:3])}",
            got="none",
            remedy="--set sam_norm_only=false, and sam_subset for a cheaper step",
        )
    variant = SamVariant(
        every=section.sam_every,
        share=section.sam_subset,
        only=only,
        is_adaptive=section.sam_adaptive,
        is_friendly=section.sam_friendly,
    )
    return CheapSAM(base, variant, rho=section.rho, adaptive=adaptive)


def find_norm_parameters(model: nn.Module) -> list[Tensor]:
    """Find the parameters of normalisation layers that learn, those of timm's own layers among them."""
    layers = (module for module in model.modules() if any(name in type(module).__name__ for name in NORM_LAYERS))
    return [p for layer in layers for p in layer.parameters(recurse=False) if p.requires_grad]
