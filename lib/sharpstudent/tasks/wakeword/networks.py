"""The students: mel spectrogram (R, 1, M, T) -> `logits` (R, 2), and the `embedding` (R, D) that the head reads.

tiny_conv     four convolutions of 16, 32, 64 and 64 channels, strides 2, 2, 2, 1; 60,530 parameters
mobilenetv3   MobileNetV3-small of torchvision with one input channel (Howard et al. 2019); 1,519,618
resnet18      ResNet18 of torchvision with one input channel (He et al. 2015); 11,171,266
lstm, gru     two bidirectional layers of 128; the mean over time
tcn           dilated convolutions of 64, 128 and 256 channels (Bai et al. 2018), the mean over time
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec

CLASSES = 2
TINY_CHANNELS, TINY_STRIDES = (16, 32, 64, 64), (2, 2, 2, 1)
TCN_CHANNELS = (64, 128, 256)
HIDDEN = 128  # of a recurrent layer, in each direction


class MelClassifier(nn.Module):
    """A body that turns the mel spectrogram into a vector, dropout and a linear head."""

    def __init__(self, body: nn.Module, size: int, dropout: float) -> None:
        """Join body and head.

        Args:
            body: (R, 1, M, T) -> (R, D).
            size: D.
            dropout: Rate before the head.
        """
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, CLASSES)

    def forward(self, audio_features: Tensor) -> dict[str, Tensor]:
        """Compute `logits` and `embedding`."""
        embedding = self.body(audio_features)
        return {"logits": self.head(self.dropout(embedding)), "embedding": embedding}


def build_tiny_conv(n_mels: int) -> tuple[nn.Module, int]:
    """Build the body of TinyConv; it fits any number of bands and frames."""
    layers: list[nn.Module] = []
    before = 1
    for channels, stride in zip(TINY_CHANNELS, TINY_STRIDES, strict=True):
        layers += [nn.Conv2d(before, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def build_mobilenet(n_mels: int) -> tuple[nn.Module, int]:
    """Build the body of MobileNetV3-small; its last hidden layer is the embedding."""
    from torchvision.models import mobilenet_v3_small

    body: Any = mobilenet_v3_small(weights=None)
    first = body.features[0][0]
    body.features[0][0] = nn.Conv2d(1, first.out_channels, 3, 2, padding=1, bias=False)
    size = body.classifier[3].in_features
    body.classifier = nn.Sequential(*body.classifier[:2])  # its own dropout and head are ours
    return body, size


def build_resnet(n_mels: int) -> tuple[nn.Module, int]:
    """Build the body of ResNet18."""
    from torchvision.models import resnet18

    body: Any = resnet18(weights=None)
    body.conv1 = nn.Conv2d(1, 64, 7, 2, padding=3, bias=False)
    size, body.fc = body.fc.in_features, nn.Identity()
    return body, size


class RecurrentBody(nn.Module):
    """Two bidirectional recurrent layers over time, and the mean of their outputs."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], n_mels: int) -> None:
        """Build the layers.

        Args:
            kind: LSTM or GRU.
            n_mels: M.
        """
        super().__init__()
        self.layers = kind(n_mels, HIDDEN, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, mel: Tensor) -> Tensor:
        """(R, 1, M, T) -> (R, 2 * HIDDEN)."""
        return self.layers(mel.squeeze(1).transpose(1, 2))[0].mean(1)


class DilatedBody(nn.Module):
    """Residual blocks of convolutions over time, the dilation twice that of the block before."""

    def __init__(self, n_mels: int) -> None:
        """Build the blocks.

        Args:
            n_mels: M.
        """
        super().__init__()
        self.blocks, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        before = n_mels
        for level, channels in enumerate(TCN_CHANNELS):
            dilation = 2**level
            self.blocks.append(
                nn.Sequential(
                    nn.Conv1d(before, channels, 3, padding=dilation, dilation=dilation, bias=False),
                    nn.BatchNorm1d(channels),
                    nn.ReLU(),
                    nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
                    nn.BatchNorm1d(channels),
                )
            )
            self.shortcuts.append(nn.Conv1d(before, channels, 1))
            before = channels

    def forward(self, mel: Tensor) -> Tensor:
        """(R, 1, M, T) -> (R, last of TCN_CHANNELS)."""
        hidden = mel.squeeze(1)
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            hidden = torch.relu(block(hidden) + shortcut(hidden))
        return hidden.mean(2)


BODIES: Mapping[str, Callable[[int], tuple[nn.Module, int]]] = {
    "tiny_conv": build_tiny_conv,
    "mobilenetv3": build_mobilenet,
    "resnet18": build_resnet,
    "lstm": lambda n_mels: (RecurrentBody(nn.LSTM, n_mels), 2 * HIDDEN),
    "gru": lambda n_mels: (RecurrentBody(nn.GRU, n_mels), 2 * HIDDEN),
    "tcn": lambda n_mels: (DilatedBody(n_mels), TCN_CHANNELS[-1]),
}


def build_mel_classifier(spec: ModelSpec, n_mels: int) -> MelClassifier:
    """Build a student with random weights.

    Args:
        spec: Its name, one of BODIES, and its dropout.
        n_mels: M.

    Returns:
        The model.

    Raises:
        UserError: For an option: these models have none.
    """
    if spec.options:
        raise UserError.about(
            f"{spec.role}.{next(iter(spec.options))}",
            f"is no option: {spec.name} has none",
            remedy=f'write "{spec.role}": "{spec.name}"',
        )
    body, size = BODIES[spec.name](n_mels)
    return MelClassifier(body, size, 0.0 if spec.dropout is None else spec.dropout)
