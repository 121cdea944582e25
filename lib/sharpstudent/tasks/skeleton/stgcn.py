"""ST-GCN++ in the sizes of LAST-E nano and small: what to compare LAST-E with.

Written from Duan et al. 2022, "PYSKL: Towards Good Practices for Skeleton Action Recognition", section 3.1: learned
adjacencies that start at the fixed ones, a residual in the graph convolution, and six temporal branches. It reads the
stream `joint` alone. Legend: R rows, C channels, T frames, V joints.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sharpstudent.tasks.skeleton.graph import Skeleton

WIDTHS: Mapping[str, int] = {"stgcnpp_16": 16, "stgcnpp_24": 24}  # channels of the first stage
GROWING = (5, 8)  # blocks, from 1, that double the channels and halve the frames
BLOCKS, TAPS = 10, 3


class SpatialConvolution(nn.Module):
    """A 1x1 convolution for each adjacency, which is learned; with a residual."""

    def __init__(self, channels: int, out: int, adjacencies: Tensor) -> None:
        super().__init__()
        self.adjacencies = nn.Parameter(adjacencies.clone())
        self.mix = nn.Conv2d(channels, out * len(adjacencies), 1)
        self.norm = nn.BatchNorm2d(out)
        self.residual = _build_residual(channels, out, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Pass features (R, C, T, V) along the bones."""
        split = self.mix(features).unflatten(1, (len(self.adjacencies), -1))
        return (self.norm(torch.einsum("rkctv,kvw->rctw", split, self.adjacencies)) + self.residual(features)).relu()


def _build_residual(channels: int, out: int, stride: int) -> nn.Module:
    if channels == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride=(stride, 1)), nn.BatchNorm2d(out))


class _NoResidual(nn.Module):
    """Adds nothing: the first block has no residual."""

    def forward(self, _: Tensor) -> float:
        return 0.0


class TemporalBranches(nn.Module):
    """Four dilated convolutions, a maximum and a 1x1 convolution side by side, joined by another."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 6
        widths = (channels - 5 * inner, *(inner,) * 5)
        self.branches = nn.ModuleList()
        for width, dilation in zip(widths, (1, 2, 3, 4, 0, 0), strict=True):
            last = nn.Conv2d(
                width, width, (TAPS, 1), (stride, 1), (dilation, 0), (dilation, 1)
            ) if dilation else nn.MaxPool2d((TAPS, 1), (stride, 1), (1, 0))  # fmt: skip
            entry = [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(), last]
            self.branches.append(nn.Sequential(*entry))
        self.branches[5] = nn.Conv2d(channels, inner, 1, stride=(stride, 1))
        self.join = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Connect the frames of features (R, C, T, V)."""
        return self.norm(self.join(torch.cat([branch(features) for branch in self.branches], 1)))


class StGcn(nn.Module):
    """`joint` (R, 3, T, V) -> `logits` (R, classes)."""

    def __init__(self, width: int, skeleton: Skeleton, classes: int, *, dropout: float) -> None:
        """Build the network with random weights.

        Args:
            width: Channels of the first stage.
            skeleton: The layout of the joints.
            classes: The number of classes.
            dropout: The dropout rate before the head, 0..1.
        """
        super().__init__()
        adjacencies, before = torch.from_numpy(skeleton.build_adjacencies()), 3
        self.norm = nn.BatchNorm1d(3 * skeleton.joints)
        self.graphs, self.times, self.residuals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for place in range(1, BLOCKS + 1):
            stride = 2 if place in GROWING else 1
            width *= stride
            self.graphs.append(SpatialConvolution(before, width, adjacencies))
            self.times.append(TemporalBranches(width, stride))
            self.residuals.append(_build_residual(before, width, stride) if place > 1 else _NoResidual())
            before = width
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(before, classes)

    def forward(self, joint: Tensor) -> dict[str, Tensor]:
        """Compute the logits of each row."""
        features = self.norm(joint.transpose(2, 3).flatten(1, 2)).unflatten(1, (3, -1)).transpose(2, 3)
        for graph, time, residual in zip(self.graphs, self.times, self.residuals, strict=True):
            features = (time(graph(features)) + residual(features)).relu()
        return {"logits": self.head(self.dropout(features.mean((2, 3))))}
