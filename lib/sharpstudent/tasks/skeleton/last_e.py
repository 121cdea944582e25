"""LAST-E, a small spatio-temporal graph network for skeletons, in four sizes.

Written from a description of the architecture. Legend: R rows, C channels, T frames, V joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpstudent.tasks.skeleton.frame_convolution import FrameConvolution
from sharpstudent.tasks.skeleton.graph import Skeleton

STREAMS = ("joint", "velocity", "bone")


@dataclass(frozen=True)
class Size:
    """A size of LAST-E.

    Attributes:
        channels: The channels of the three stages.
        blocks: The number of blocks of each stage.
        attention: The first stage whose blocks have attention, from 0.
    """

    channels: tuple[int, int, int]
    blocks: tuple[int, int, int]
    attention: int


SIZES: Mapping[str, Size] = {
    "last_e_nano": Size((24, 48, 96), (2, 2, 3), 2),
    "last_e_small": Size((32, 64, 128), (2, 3, 3), 1),
    "last_e_base": Size((40, 80, 160), (3, 4, 4), 0),
    "last_e_large": Size((48, 96, 192), (4, 5, 5), 0),
}


class GraphConvolution(nn.Module):
    """Three fixed adjacencies, weighted in each channel by a softmax, then a 1x1 convolution."""

    adjacencies: Tensor

    def __init__(self, channels: int, out: int, adjacencies: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(len(adjacencies), channels))
        self.mix = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        self.register_buffer("adjacencies", adjacencies, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Pass features (R, C, T, V) along the bones."""
        weighted = torch.einsum("kc,kvw->cvw", self.alpha.softmax(0), self.adjacencies)
        return self.mix(torch.einsum("rctv,cvw->rctw", features, weighted))


class JointAttention(nn.Module):
    """Attention over frames and joints, from means over the other of the two; its gate starts at the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.squeeze = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.Hardswish())
        self.excite = nn.Conv2d(half, channels, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh features (R, C, T, V)."""
        frames = features.shape[2]
        means = torch.cat([features.mean(3, keepdim=True), features.mean(2, keepdim=True).transpose(2, 3)], 2)
        found = self.excite(self.squeeze(means)).sigmoid()
        weights = found[:, :, :frames] * found[:, :, frames:].transpose(2, 3)
        return features * (1.0 + self.gate[:, None, None] * weights)


def _build_branch(channels: int, stride: int, dilation: int) -> nn.Sequential:
    """Build a depthwise-separable convolution of nine frames."""
    return nn.Sequential(
        FrameConvolution(channels, stride, dilation),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


class Block(nn.Module):
    """A graph convolution, attention where it has one, two temporal branches of half the channels, and a residual."""

    def __init__(self, channels: int, out: int, stride: int, adjacencies: Tensor, *, has_attention: bool) -> None:
        super().__init__()
        self.graph = GraphConvolution(channels, out, adjacencies)
        self.attention = JointAttention(out) if has_attention else nn.Identity()
        self.branches = nn.ModuleList(_build_branch(out // 2, stride, dilation) for dilation in (1, 2))
        is_same = channels == out and stride == 1
        self.residual = (
            nn.Identity()
            if is_same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride=(stride, 1)), nn.BatchNorm2d(out))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Pass features (R, C, T, V) on; a stride of 2 halves T."""
        attended = self.attention(self.graph(features))
        halves = attended.chunk(2, 1)
        moved = torch.cat([branch(half) for branch, half in zip(self.branches, halves, strict=True)], 1)
        return (moved + self.residual(features)).relu()


class LastE(nn.Module):
    """`joint`, `velocity` and `bone` (R, 3, T, V) -> `logits` (R, classes)."""

    def __init__(self, size: Size, skeleton: Skeleton, classes: int, *, dropout: float) -> None:
        """Build the network with random weights.

        Args:
            size: Its size.
            skeleton: The layout of the joints.
            classes: The number of classes.
            dropout: The dropout rate before the head, 0..1.
        """
        super().__init__()
        first = size.channels[0]
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in STREAMS)
        self.stem = nn.Sequential(nn.Conv2d(3, first, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.fusion = nn.Parameter(torch.zeros(len(STREAMS), first))
        self.blocks = nn.Sequential(*_build_blocks(size, torch.from_numpy(skeleton.build_adjacencies())))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size.channels[-1], classes)

    def forward(self, joint: Tensor, velocity: Tensor, bone: Tensor) -> dict[str, Tensor]:
        """Compute the logits of each row."""
        # One behind the other in time, the streams share the statistics of the stem's norm; rows stay of any number.
        streams = [norm(one) for norm, one in zip(self.norms, (joint, velocity, bone), strict=True)]
        features = self.stem(torch.cat(streams, 2)).unflatten(2, (len(STREAMS), joint.shape[2]))
        fused = torch.einsum("sc,rcstv->rctv", self.fusion.softmax(0), features)
        return {"logits": self.head(self.dropout(self.blocks(fused).mean((2, 3))))}


def _build_blocks(size: Size, adjacencies: Tensor) -> Sequence[Block]:
    blocks, before = list[Block](), size.channels[0]
    for stage, (channels, count) in enumerate(zip(size.channels, size.blocks, strict=True)):
        for place in range(count):
            stride = 2 if stage > 0 and place == 0 else 1
            blocks.append(Block(before, channels, stride, adjacencies, has_attention=stage >= size.attention))
            before = channels
    return blocks
