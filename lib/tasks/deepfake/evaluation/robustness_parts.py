"""Many pictures at once through a model, in the parts and the memory layout that it is fastest with."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

import torch
from torch import nn

from lib.types import Outputs

# On a CPU, larger feature maps are given back to the system and asked for again at every layer: twice the time.
CPU_PIXELS, DEVICE_PIXELS = 12 * 112 * 112, 64 * 224 * 224


class InParts(nn.Module):
    """A model that is given so many pictures at a time, to the same answers but for rounding."""

    def __init__(self, model: nn.Module, most: int, layout: torch.memory_format) -> None:
        super().__init__()
        self._model, self._most, self._layout = model, most, layout
        self.training = model.training  # whoever puts its mode back puts back the model's

    def forward(self, images: torch.Tensor) -> Outputs:
        """images (B, 3, S, S) float32 in 0..1 -> logits (B, 2)."""
        parts = (part.contiguous(memory_format=self._layout) for part in images.split(self._most))
        return Outputs(torch.cat([self._model(part).logits for part in parts]))


@contextlib.contextmanager
def take_in_parts(models: Sequence[nn.Module], *, image_size: int, device: torch.device) -> Generator[list[InParts]]:
    """The models for batches of any size. On a CPU their weights lie with channels last meanwhile: half the time."""
    is_cpu = device.type == "cpu"
    most = max(1, (CPU_PIXELS if is_cpu else DEVICE_PIXELS) // image_size**2)
    layout = torch.channels_last if is_cpu else torch.contiguous_format
    try:
        for model in models:
            model.to(memory_format=layout)
        yield [InParts(model, most, layout) for model in models]
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)
