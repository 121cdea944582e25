"""Classifiers of pictures: a backbone of any library, then Dropout and a Linear head.

Legend: B images, C classes, D channels of the last feature map, h x w its grid.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs

EFFICIENTNET_B4 = "efficientnet-b4"
PREPROCESS_OPTIONS = ("input_size", "mean", "std")


class PicturePreprocess(nn.Module):
    """Resizes and normalises pictures as one model expects them.

    A setting that is not given changes nothing; without any setting, `forward` returns the same tensor.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        *,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        """Set the size and the normalisation that the model expects.

        Args:
            input_size: Side in pixels that pictures are resized to (bilinear with antialiasing).
            mean: The mean of each colour, for RGB in 0..1; it is subtracted.
            std: The standard deviation by which each colour is then divided.
        """
        super().__init__()
        self.input_size = input_size
        # Not persistent: these are settings, and a file of weights holds weights only.
        self.register_buffer("mean", _per_colour(mean), persistent=False)
        self.register_buffer("std", _per_colour(std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Resize and normalise pictures (B, 3, H, W) float32 RGB in 0..1 for the model."""
        size = self.input_size
        if size is not None and tuple(image.shape[-2:]) != (size, size):
            image = F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
        if self.mean is not None:
            image = image - self.mean
        if self.std is not None:
            image = image / self.std
        return image


class Classifier(nn.Module, ABC):
    """Base class of every student and teacher of pictures.

    Attributes:
        preprocess: Resizes and normalises pictures for this model; None if it reads them as they are.
    """

    preprocess: PicturePreprocess | None

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = None  # set on the instance, because a class attribute would hide torch's submodule

    @abstractmethod
    def compute_logits(self, image: Tensor) -> Tensor:
        """Compute logits (B, C) of pictures (B, 3, H, W) float32 RGB in 0..1, preprocessed already."""

    def forward(self, image: Tensor) -> Outputs:
        """Compute `logits` (B, C) of pictures (B, 3, H, W) float32 RGB in 0..1."""
        return {"logits": self.compute_logits(self.prepare(image))}

    def prepare(self, image: Tensor) -> Tensor:
        """Preprocess pictures; returns the same tensor if the model reads them as they are."""
        return image if self.preprocess is None else self.preprocess(image)

    @abstractmethod
    def get_features(self, image: Tensor) -> Tensor:
        """Compute the last feature map (B, D, h, w) of pictures (B, 3, H, W) float32 RGB in 0..1."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Keep only the activations between blocks, and compute those inside a block again during `backward`.

        Raises:
            UserError: For an architecture that does not support this.
        """


class TimmClassifier(Classifier):
    """A timm backbone without its head, and a head of ours, so that its keys are the same in training and inference.

    State keys: `backbone.*` (timm's own) and `head.1.weight`, `head.1.bias`.
    """

    def __init__(self, name: str, *, classes: int, dropout: float) -> None:
        import timm

        super().__init__()
        # Any: timm's models have methods of their own, which nn.Module's type does not know.
        self.backbone: Any = timm.create_model(name, pretrained=False, num_classes=0)
        # Some families (MobileNetV3, GhostNet, HGNet) widen the pooled features once more, to `head_hidden_size`.
        pooled = int(getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(pooled, classes))

    def get_features(self, image: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.backbone.forward_features(self.prepare(image))

    def enable_gradient_checkpointing(self) -> None:
        """See `Classifier`."""
        enable = getattr(self.backbone, "set_grad_checkpointing", None)
        try:
            if enable is None:
                raise AssertionError("it has no such switch")
            enable(True)
        except AssertionError as error:  # timm raises it for an architecture without gradient checkpointing
            name = type(self.backbone).__name__
            raise UserError.about(
                where="gradient_checkpointing",
                what=f"is not possible with timm's {name} ({error})",
                remedy="--set gradient_checkpointing=false, and a smaller micro_batch_size instead",
            ) from None

    def compute_logits(self, image: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.head(self.backbone(image))


class EfficientNetClassifier(Classifier):
    """EfficientNet of `efficientnet-pytorch`, held in `net` as the published self-blending weights expect.

    State keys: `net._conv_stem.weight`, `net._blocks.0` ..., `net._fc.*`. The library's static padding is that of its
    own input size (380 px for B4), also at other sizes, as in the reference.
    """

    def __init__(self, name: str, *, classes: int, dropout: float | None = None) -> None:
        from efficientnet_pytorch import EfficientNet

        super().__init__()
        overrides: dict[str, Any] = {} if dropout is None else {"dropout_rate": dropout}
        self.net = EfficientNet.from_name(name, num_classes=classes, **overrides)

    def get_features(self, image: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.net.extract_features(self.prepare(image))

    def enable_gradient_checkpointing(self) -> None:
        """See `Classifier`."""
        for block in self.net._blocks:  # the library has no switch of its own
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)

    def compute_logits(self, image: Tensor) -> Tensor:
        """See `Classifier`."""
        return self.net(image)


def build_classifier(
    name: str, *, classes: int, dropout: float | None, options: Mapping[str, Any] | None = None
) -> Classifier:
    """Build a classifier with random weights.

    Args:
        name: `efficientnet-b4` or any timm model name.
        classes: Number of outputs of its head.
        dropout: Dropout rate before the head; None for the architecture's own.
        options: Arguments of `PicturePreprocess`.

    Raises:
        UserError: For a name that neither library knows, with the nearest ones, and for any other option.
    """
    unknown = [option for option in options or {} if option not in PREPROCESS_OPTIONS]
    if unknown:
        raise UserError.about(f"model {name!r}", f"has no option {unknown[0]!r}", ", ".join(PREPROCESS_OPTIONS))
    if name == EFFICIENTNET_B4:
        model: Classifier = EfficientNetClassifier(name, classes=classes, dropout=dropout)
    else:
        check_model_name(name)
        model = TimmClassifier(name, classes=classes, dropout=0.3 if dropout is None else dropout)
    if options:
        model.preprocess = PicturePreprocess(**options)
    return model


def check_model_name(name: str) -> None:
    """Raise UserError, with the nearest names, unless `name` can be built."""
    if name == EFFICIENTNET_B4:
        return
    import difflib

    import timm

    known = timm.list_models()
    if name in known:
        return
    near = difflib.get_close_matches(name, [EFFICIENTNET_B4, *known], n=4)
    raise UserError.about(
        where=f"model {name!r}",
        what="is known neither to timm nor here",
        expected=f"{EFFICIENTNET_B4} or a timm {timm.__version__} model name",
        remedy=f"did you mean {', '.join(near)}?" if near else "list the names with timm.list_models()",
    )


def _per_colour(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)
