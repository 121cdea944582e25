"""LAST-v2-base, the teacher: a wide graph network with attention that passes each stream through the same backbone.

Written from a description of the architecture. Where that left a choice (biases, norms, the width of the attention),
the one was taken that gives its 9,217,256 parameters. Legend: R rows, C channels, T frames, V joints, S streams, H
heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharpstudent.tasks.skeleton.frame_convolution import TAPS
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.last_e import STREAMS

CHANNELS, BLOCKS, HEADS = (96, 192, 384), (4, 5, 5), 4


class AdaptiveGraphConvolution(nn.Module):
    """The sum of five 1x1 convolutions: along three fixed adjacencies, a learned one, and one made of the features.

    The last is that of Shi et al. 2019, "Two-Stream Adaptive Graph Convolutional Networks", equation 3.
    """

    adjacencies: Tensor

    def __init__(self, channels: int, out: int, adjacencies: Tensor) -> None:
        super().__init__()
        joints, inner = adjacencies.shape[1], out // 4
        self.register_buffer("adjacencies", adjacencies, persistent=False)
        self.learned = nn.Parameter(torch.zeros(joints, joints))
        self.weights = nn.Parameter(torch.ones(len(adjacencies) + 2))
        self.embeddings = nn.ModuleList(nn.Conv2d(channels, inner, 1, bias=False) for _ in range(2))
        self.mixes = nn.ModuleList(nn.Conv2d(channels, out, 1, bias=False) for _ in range(len(adjacencies) + 2))
        self.norm = nn.BatchNorm2d(out)
        self.residual = nn.Identity() if channels == out else _build_projection(channels, out, bias=False)
        nn.init.normal_(self.learned, 0.0, 0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Pass features (R, C, T, V) along the bones."""
        mixed = [torch.einsum("rctv,vw->rctw", features, one) for one in (*self.adjacencies, self.learned)]
        from_joint, to_joint = (embed(features).flatten(1, 2).mT for embed in self.embeddings)
        alike = (from_joint @ to_joint.mT / from_joint.shape[2]).softmax(1)
        mixed.append(torch.einsum("rctv,rvw->rctw", features, alike))
        parts = [weight * mix(one) for weight, mix, one in zip(self.weights, self.mixes, mixed, strict=True)]
        return (self.norm(torch.stack(parts).sum(0)) + self.residual(features)).relu()


class GatedAttention(nn.Module):
    """Attention over frames and joints, from means over the other of the two; its gate starts at the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 8
        self.squeeze = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish())
        self.excite = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh features (R, C, T, V)."""
        frames = features.shape[2]
        means = torch.cat([features.mean(3, keepdim=True), features.mean(2, keepdim=True).transpose(2, 3)], 2)
        found = self.excite(self.squeeze(means)).sigmoid()
        return features * (1.0 + self.gate * found[:, :, :frames] * found[:, :, frames:].transpose(2, 3))


class LinearAttention(nn.Module):
    """Attention over frames in time linear in T, for each joint by itself.

    Katharopoulos et al. 2020, "Transformers are RNNs", equation 6, with the feature map elu(x) + 1.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm_in, self.norm_out = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Attend over the frames of features (R, C, T, V); every stride-th frame asks."""
        split = self.qkv(self.norm_in(features)).unflatten(1, (3, HEADS, -1))  # (R, 3, H, C / H, T, V)
        query, key = nn.functional.elu(split[:, 0, :, :, :: self.stride]) + 1.0, nn.functional.elu(split[:, 1]) + 1.0
        memory = torch.einsum("rhdtv,rhetv->rhdev", key, split[:, 2]) / features.shape[2]
        found = torch.einsum("rhdtv,rhdev->rhetv", query, memory)
        total = torch.einsum("rhdtv,rhdv->rhtv", query, key.mean(3))
        return self.norm_out(self.out((found / total[:, :, None]).flatten(1, 2)))


class TeacherBlock(nn.Module):
    """An adaptive graph convolution, attention over frames and joints, what connects frames, and a residual."""

    def __init__(self, channels: int, out: int, stride: int, adjacencies: Tensor, *, attends: bool) -> None:
        super().__init__()
        self.graph = AdaptiveGraphConvolution(channels, out, adjacencies)
        self.attention = GatedAttention(out)
        convolution = nn.Conv2d(out, out, (TAPS, 1), padding=(TAPS // 2, 0))
        self.frames = LinearAttention(out, stride) if attends else nn.Sequential(convolution, nn.BatchNorm2d(out))
        is_same = channels == out and stride == 1
        self.residual = nn.Identity() if is_same else _build_projection(channels, out, stride=stride, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """Pass features (R, C, T, V) on; a stride of 2 halves T."""
        return (self.frames(self.attention(self.graph(features))) + self.residual(features)).relu()


def _build_projection(channels: int, out: int, *, stride: int = 1, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride=(stride, 1), bias=bias), nn.BatchNorm2d(out))


class LastV2(nn.Module):
    """The three streams of one or two bodies (R, 3, T, V) -> `logits` (R, classes): summed over streams."""

    def __init__(self, skeleton: Skeleton, classes: int, *, dropout: float, mask_empty: bool = True) -> None:
        """Build the network with random weights.

        Args:
            skeleton: The layout of the joints.
            classes: The number of classes.
            dropout: The dropout rate before the head, 0..1.
            mask_empty: Whether a second body that is absent counts in no mean; without it, its logits are averaged in.
        """
        super().__init__()
        adjacencies = torch.from_numpy(skeleton.build_adjacencies())
        blocks, before = list[TeacherBlock](), 3
        for stage, (channels, count) in enumerate(zip(CHANNELS, BLOCKS, strict=True)):
            for place in range(count):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(TeacherBlock(before, channels, stride, adjacencies, attends=stage > 0))
                before = channels
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in STREAMS)
        self.blocks = nn.Sequential(*blocks)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(before, classes)
        self.mask_empty = mask_empty

    def forward(
        self,
        joint: Tensor,
        velocity: Tensor,
        bone: Tensor,
        second_joint: Tensor | None = None,
        second_velocity: Tensor | None = None,
        second_bone: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the logits of each row; the mean over its bodies."""
        if second_joint is None or second_velocity is None or second_bone is None:
            return {"logits": self._judge(joint, velocity, bone)}
        streams = (
            torch.cat(pair) for pair in ((joint, second_joint), (velocity, second_velocity), (bone, second_bone))
        )
        first, second = self._judge(*streams).chunk(2)
        is_there = (second_joint != 0).flatten(1).any(1, keepdim=True).to(first.dtype)
        share = is_there if self.mask_empty else torch.ones_like(is_there)
        return {"logits": (first + share * second) / (1.0 + share)}

    def _judge(self, joint: Tensor, velocity: Tensor, bone: Tensor) -> Tensor:
        # Stacked as rows, the streams share the statistics of every norm of the backbone.
        streams = [norm(one) for norm, one in zip(self.norms, (joint, velocity, bone), strict=True)]
        found = self.head(self.dropout(self.blocks(torch.cat(streams)).mean((2, 3))))
        return torch.stack(found.chunk(len(STREAMS))).sum(0)
