"""`create_model` of the wake-word guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec
from sharpstudent.tasks.wakeword.networks import CLASSES
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.task import WakewordTask
from torch import Tensor, nn


class LogitsOnly(nn.Module):
    """A model of the task that gives its logits alone, as the guide's models do; `inner` gives everything."""

    def __init__(self, inner: nn.Module) -> None:
        """Wrap a model."""
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits (R, 2)."""
        return self.inner(inputs)["logits"]


def create_model(
    architecture: str, num_classes: int = CLASSES, input_size: int = 64, dropout: float = 0.0, **options: Any
) -> LogitsOnly:
    """Build a model with random weights.

    Args:
        architecture: A student (mobilenetv3, resnet18, tiny_conv, lstm, gru, tcn), which reads spectrograms, or
            wav2vec2, which hears raw audio.
        num_classes: 2.
        input_size: Mel bands.
        dropout: Rate before the last layer.
        options: Of wav2vec2: keys of transformers' Wav2Vec2Config.

    Raises:
        UserError: For an unknown name, another number of classes, and options that a model does not have.
    """
    if num_classes != CLASSES:
        raise UserError.about("num_classes", "must be 2: the word, and everything else", got=str(num_classes))
    return LogitsOnly(build_inner(architecture, input_size, dropout, options))


def build_inner(architecture: str, input_size: int, dropout: float, options: Mapping[str, Any]) -> nn.Module:
    """Build the model of the task, which gives logits and embedding."""
    task = WakewordTask(WakewordSection(n_mels=input_size))
    return task.build_student(ModelSpec(architecture, dict(options), dropout))
