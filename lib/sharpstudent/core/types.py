"""The few values that every room exchanges. Torch is named for type checkers only, so importing this costs nothing.

Legend: N images of a batch, C classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """What the student and the frozen teachers look at: the same tensor for all of them.

    inputs (N, 3, H, W) float32 RGB in 0..1; labels (N,) int64, real 0 and fake 1; sample_ids, clip_ids and
    identities: N strings each; masks (N, H, W) float32 in 0..1 where a blend is known (for pictures), else None.
    items: the item that each image came from, N numbers of which those of one item stand together; () where every
    image is an item of its own.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    sample_ids: tuple[str, ...]
    clip_ids: tuple[str, ...]
    identities: tuple[str, ...]
    masks: torch.Tensor | None = None
    items: tuple[int, ...] = ()

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def to(self, device: torch.device, *, memory_format: torch.memory_format | None = None) -> Batch:
        """On `device`, the images in a memory format where one is given."""
        inputs = self.inputs.to(device)
        inputs = inputs if memory_format is None else inputs.contiguous(memory_format=memory_format)
        return replace(self, inputs=inputs, labels=self.labels.to(device))

    def __getitem__(self, rows: slice) -> Batch:
        """Some of the images, as a batch."""
        return Batch(
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            sample_ids=self.sample_ids[rows],
            clip_ids=self.clip_ids[rows],
            identities=self.identities[rows],
            masks=None if self.masks is None else self.masks[rows],
            items=self.items[rows],
        )


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch: logits (N, C) float, and named feature maps where a tap asked for them."""

    logits: torch.Tensor
    features: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])


@dataclass(frozen=True)
class StepResult:
    """What one training step did.

    status `ok`, or `skipped` with the reason: then weights, buffers, optimiser, average and random states are those
    before the step. loss and terms are those of pass 1 (at the unperturbed weights), perturbed_loss is that of pass 2
    (at w + e; None in a plain step); grad_norm is the L2 norm of the gradient that was applied, before clipping.
    agreement: share of the images, 0..1, in which student (pass 1) and teacher prefer the same class; None without one.
    is_overflow: skipped because the loss scale of fp16 was too large; it is smaller now.
    """

    status: Literal["ok", "skipped"]
    reason: str | None = None
    loss: float = float("nan")
    perturbed_loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict[str, float])
    grad_norm: float = float("nan")
    agreement: float | None = None
    is_overflow: bool = False

    @property
    def ok(self) -> bool:
        return self.status == "ok"
