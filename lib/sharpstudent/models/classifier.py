"""The one classifier form: a backbone of any library, then Dropout and a Linear head.

Legend: B images, C classes, D channels of the last feature map, h x w its grid.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import Outputs
from sharpstudent.models.hooks import Taps

EFFICIENTNET_B4 = "efficientnet-b4"


class Classifier(nn.Module, ABC):
    """What every student and teacher can do."""

    _taps: Taps | None = None

    @abstractmethod
    def compute_logits(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W) float32 RGB in 0..1."""

    def tap(self, layers: Sequence[str]) -> None:
        """From now on each forward also gives the outputs of these layers, `Outputs.features[layer]`.

        layers: names as in `named_modules()`, such as `backbone.stages.3` or `net._blocks.31`; they replace those of an
        earlier call, and none ends the tapping. State keys stay as they are. The tensors are those that flow on: with
        a graph in training, and changed with them where the next layer works in place, as an activation after a norm
        does (a block's own output is safe). Under `torch.compile` tap before the first forward; a later call compiles
        anew, and each tapped layer keeps its output from being fused away. Under gradient checkpointing a tapped
        layer inside a checkpointed block costs the memory of its output.

        Raises UserError for a name the model does not have, with the nearest ones; the forward raises it for a layer
        that gives no tensor or is never called.
        """
        taps = Taps(self, layers)
        if self._taps is not None:
            self._taps.remove()
        self._taps = taps if taps.layers else None

    @property
    def tapped(self) -> tuple[str, ...]:
        """The layers whose outputs a forward gives."""
        return () if self._taps is None else self._taps.layers

    def forward(self, images: Tensor) -> Outputs:
        if self._taps is None:
            return Outputs(logits=self.compute_logits(images), features={})  # torch.compile cannot trace the default
        with self._taps.collecting() as features:
            logits = self.compute_logits(images)
        self._taps.check_complete(features)
        return Outputs(logits=logits, features=features)

    @abstractmethod
    def get_features(self, images: Tensor) -> Tensor:
        """Last feature map (B, D, h, w) of images (B, 3, H, W) float32 RGB in 0..1."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Keep the activations between blocks only, and compute those within again during `backward`.

        Raises UserError for an architecture that cannot.
        """


class TimmClassifier(Classifier):
    """A timm backbone without its head, and our own head, so that its keys are the same in training and inference.

    State keys: `backbone.*` (timm's own) and `head.1.weight`, `head.1.bias`.
    """

    def __init__(self, name: str, *, classes: int, dropout: float) -> None:
        import timm

        super().__init__()
        # Any: timm's models have methods of their own, which nn.Module's type does not know.
        self.backbone: Any = timm.create_model(name, pretrained=False, num_classes=0)
        # Some families (MobileNetV3, GhostNet, HGNet) widen the pooled features once more: theirs is the hidden size.
        pooled = int(getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(pooled, classes))

    def get_features(self, images: Tensor) -> Tensor:
        return self.backbone.forward_features(images)

    def enable_gradient_checkpointing(self) -> None:
        enable = getattr(self.backbone, "set_grad_checkpointing", None)
        try:
            if enable is None:
                raise AssertionError("it has no such switch")
            enable(True)
        except AssertionError as error:  # timm's way of saying that an architecture cannot
            name = type(self.backbone).__name__
            raise UserError(
                Problem(
                    where="gradient_checkpointing",
                    what=f"is not possible with timm's {name} ({error})",
                    remedy="--set gradient_checkpointing=false, and a smaller micro_batch_size instead",
                )
            ) from None

    def compute_logits(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


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

    def get_features(self, images: Tensor) -> Tensor:
        return self.net.extract_features(images)

    def enable_gradient_checkpointing(self) -> None:
        for block in self.net._blocks:  # the library has no switch of its own
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)

    def compute_logits(self, images: Tensor) -> Tensor:
        return self.net(images)


def build_classifier(name: str, *, classes: int, dropout: float | None) -> Classifier:
    """A classifier with random weights; `name` is `efficientnet-b4` or any timm model name.

    Raises UserError for a name that neither library knows, with the nearest ones.
    """
    if name == EFFICIENTNET_B4:
        return EfficientNetClassifier(name, classes=classes, dropout=dropout)
    check_model_name(name)
    return TimmClassifier(name, classes=classes, dropout=0.3 if dropout is None else dropout)


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
    raise UserError(
        Problem(
            where=f"model {name!r}",
            what="is known neither to timm nor here",
            expected=f"{EFFICIENTNET_B4} or a timm {timm.__version__} model name",
            remedy=f"did you mean {', '.join(near)}?" if near else "list the names with timm.list_models()",
        )
    )


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(p.numel() for p in model.parameters())


class FrozenTeacher(nn.Module):
    """A model that is only read: `train()` leaves it in evaluation mode, its forward keeps no graph."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        model.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        return super().train(False)

    def tap(self, layers: Sequence[str]) -> None:
        """As `Classifier.tap`."""
        self.model.tap(layers)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Outputs:
        return self.model(images)

    @torch.no_grad()
    def get_features(self, images: Tensor) -> Tensor:
        return self.model.get_features(images)
