"""The depthwise convolution over frames, in the form that trains fastest on a processor.

Torch has no fast backward pass for a dilated depthwise convolution on a CPU. Over few frames the convolution is
therefore computed as a product of matrices while gradients are kept: for each channel, a band matrix of the nine taps
times the frames. `benchmarks/frame_convolution.py` measures both.

Legend: R rows, C channels, T frames, U frames after the stride, V joints, K taps.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

TAPS = 9  # K
MOST_FRAMES = 48  # with more, the product of matrices is no faster


class FrameConvolution(nn.Conv2d):
    """Convolves each channel and joint over frames with nine taps; the weights are those of `nn.Conv2d`."""

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        """Build the convolution with random weights and no bias.

        Args:
            channels: C.
            stride: Every so many frames are kept.
            dilation: How many frames lie between two taps, plus 1.
        """
        padding, step, between = (TAPS // 2 * dilation, 0), (stride, 1), (dilation, 1)
        super().__init__(channels, channels, (TAPS, 1), step, padding, between, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve features (R, C, T, V) to (R, C, U, V)."""
        frames, needs_gradient = input.shape[2], torch.is_grad_enabled() and self.weight.requires_grad
        if not needs_gradient or input.device.type != "cpu" or frames > MOST_FRAMES:
            return super().forward(input)
        bands = build_bands(frames, self.stride[0], self.dilation[0]).to(self.weight.dtype)
        return (self.weight.flatten(1) @ bands.flatten(1)).unflatten(1, bands.shape[1:]) @ input


@lru_cache(maxsize=64)
def build_bands(frames: int, stride: int, dilation: int) -> Tensor:
    """Build which tap of the convolution leads from which frame to which (K, U, T).

    Entry (k, u, t) is 1 where t = stride u + dilation (k - K // 2), else 0; frames outside are 0, as padding is.
    """
    with torch.inference_mode(False):
        given = torch.arange(frames)
        made = torch.arange(0, frames, stride)[:, None]
        shift = dilation * (torch.arange(TAPS) - TAPS // 2)[:, None, None]
        return (given == made + shift).float()
