"""Classifiers of pictures: a backbone of any library, then Dropout and a Linear head.

Some architectures take pictures of one size only (most ViT and Swin), or of multiples of a number. Whether a model
takes a size is found on torch's meta device, which computes shapes and needs neither memory nor weights.

Legend: B images, C classes, D channels of the last feature map, h x w its grid.
"""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs

EFFICIENTNET_B4 = "efficientnet-b4"
# What timm and torch raise for tensors or pictures that do not fit a model; timm has no exception of its own for it.
_MISFITS = (AssertionError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError)
PREPROCESS_OPTIONS = ("input_size", "mean", "std")
UNIT_NORM = "unit_norm"


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

    def adapt_tensors(self, tensors: Mapping[str, Tensor], classes: int) -> tuple[dict[str, Tensor], list[str]]:
        """Change the tensors of a file, by their names in the library, so that they fit this model.

        Args:
            tensors: The tensors by name, without prefixes.
            classes: The outputs of a head in the file that is more than one linear layer; 0 for any other.

        Returns:
            The tensors, and a sentence on each change.
        """
        return dict(tensors), []


class TimmClassifier(Classifier):
    """A timm backbone without its head, and a head of ours, so that its keys are the same in training and inference.

    State keys: `backbone.*` (timm's own) and `head.1.weight`, `head.1.bias`.

    Attributes:
        name: The timm name.
        sizes: `img_size`, where the model has to be built for a size other than its own; else {}.
        has_unit_norm: Whether the head reads pooled features of L2 norm 1.
    """

    def __init__(
        self,
        name: str,
        *,
        classes: int,
        dropout: float,
        sizes: Mapping[str, Any] | None = None,
        unit_norm: bool = False,
    ) -> None:
        """Build a model with random weights.

        Args:
            name: The timm name.
            classes: Number of outputs.
            dropout: Dropout rate before the head.
            sizes: See the class.
            unit_norm: Whether pooled features are divided by their L2 norm before the head.
        """
        import timm

        super().__init__()
        self.name, self.sizes, self.has_unit_norm = name, dict(sizes or {}), unit_norm
        # Any: timm's models have methods of their own, which nn.Module's type does not know.
        self.backbone: Any = timm.create_model(name, pretrained=False, num_classes=0, **self.sizes)
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
        """See `Classifier`. Raises UserError for an encoder, which gives no vector for a picture."""
        pooled = self.backbone(image)
        if pooled.ndim != 2:
            shape = tuple(pooled.shape)
            what = f"is an encoder without a classifier: it gives {shape} for {len(image)} pictures"
            raise UserError.about(f"model {self.name!r}", what, remedy="give a model that timm can classify with")
        return self.head(F.normalize(pooled, dim=1) if self.has_unit_norm else pooled)

    def adapt_tensors(self, tensors: Mapping[str, Tensor], classes: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Classifier`: timm's own conversion of older files and other sizes; heads that are more than linear."""
        adapted, notes = dict(tensors), list[str]()
        own = self.backbone.state_dict()
        misfits = [key for key, one in own.items() if key not in adapted or adapted[key].shape != one.shape]
        if misfits:
            adapted, notes = self._convert(adapted)
        if classes in (1, self.head[-1].out_features) and not self.has_unit_norm:  # timm's heads read plain features
            folded = self._fold_head(adapted, classes)
            if folded:
                adapted = {key: one for key, one in adapted.items() if key in own} | folded
                notes.append("its head is folded into one linear layer")
        return adapted, notes

    def _convert(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Convert by the function of the model's family in timm, which also resamples positions to another size."""
        family = sys.modules[type(self.backbone).__module__]
        convert = getattr(family, "checkpoint_filter_fn", None) or getattr(family, "_checkpoint_filter_fn", None)
        if convert is None:
            return tensors, []
        try:
            converted = dict(convert(dict(tensors), self.backbone))
        except _MISFITS:
            return tensors, []  # weights of another architecture, which the comparison of names refuses
        resized = [key for key, one in converted.items() if key in tensors and tensors[key].shape != one.shape]
        if not resized:
            is_changed = converted.keys() != tensors.keys()
            return converted, ["its names are converted to timm's present ones"] if is_changed else []
        return converted, [
            f"{len(resized)} tensors are resampled to this picture size, such as {resized[0]} from "
            f"{tuple(tensors[resized[0]].shape)} to {tuple(converted[resized[0]].shape)}"
        ]

    @torch.no_grad()
    def _fold_head(self, tensors: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
        """Express timm's own head, such as BatchNorm and Linear or two heads, as one linear layer on pooled features.

        An affine map f has the weights f(I) - f(0) and the bias f(0). {} where the head is no such map: two models,
        with timm's head and without, are compared on a picture.
        """
        import timm

        with torch.random.fork_rng(devices=[]):
            native: Any = timm.create_model(self.name, num_classes=classes, **self.sizes).eval()
            bare: Any = timm.create_model(self.name, num_classes=0, **self.sizes).eval()
        try:
            native.load_state_dict(dict(tensors))
            bare.load_state_dict({key: tensors[key] for key in bare.state_dict()})
            image = torch.rand(2, 3, *_find_own_size(native), generator=torch.Generator().manual_seed(0))
            wanted, pooled = native(image), bare(image)
        except _MISFITS:
            return {}
        for heads in _list_heads(native):
            try:
                weight, bias = _find_affine(heads, pooled.shape[-1])
            except _MISFITS:  # a module that takes more than the pooled features
                continue
            found = pooled @ weight.T + bias
            if wanted.shape == found.shape and torch.allclose(wanted, found, rtol=1e-3, atol=1e-4):
                return {"head.1.weight": weight, "head.1.bias": bias}
        return {}


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
    name: str,
    *,
    classes: int,
    dropout: float | None,
    options: Mapping[str, Any] | None = None,
    side: int | None = None,
) -> Classifier:
    """Build a classifier with random weights.

    Args:
        name: `efficientnet-b4` or any timm model name.
        classes: Number of outputs of its head.
        dropout: Dropout rate before the head; None for the architecture's own.
        options: Arguments of `PicturePreprocess`, and `unit_norm` for a timm model, as of `TimmClassifier`.
        side: Side of the pictures that it will be given [px]; `input_size` of the options comes first. None for the
            architecture's own.

    Raises:
        UserError: For a name that neither library knows, with the nearest ones; for any other option; and for a model
            that cannot take pictures of this size, with one that it takes.
    """
    form = dict(options or {})
    known = PREPROCESS_OPTIONS if name == EFFICIENTNET_B4 else (*PREPROCESS_OPTIONS, UNIT_NORM)
    unknown = [option for option in form if option not in known]
    if unknown:
        raise UserError.about(f"model {name!r}", f"has no option {unknown[0]!r}", ", ".join(known))
    unit_norm = form.pop(UNIT_NORM, False)
    if not isinstance(unit_norm, bool):
        raise UserError.about(
            f"model {name!r}, option {UNIT_NORM!r}", "has another form", "true or false", str(unit_norm)
        )
    if name == EFFICIENTNET_B4:
        model: Classifier = EfficientNetClassifier(name, classes=classes, dropout=dropout)
    else:
        check_model_name(name)
        side = form.get("input_size") or side
        sizes = {} if side is None else find_sizes(name, side)
        dropout = 0.3 if dropout is None else dropout
        model = TimmClassifier(name, classes=classes, dropout=dropout, sizes=sizes, unit_norm=unit_norm)
    if form:
        model.preprocess = PicturePreprocess(**form)
    return model


def check_model_name(name: str) -> None:
    """Raise UserError, with the nearest names, unless `name` can be built."""
    if name == EFFICIENTNET_B4:
        return
    import difflib

    import timm

    if timm.is_model(name):
        arch, tag = timm.models.split_model_name_tag(name)
        tagged = timm.list_models(f"{arch}.*", pretrained=True)
        if tag and name not in tagged:
            what = "has no pretrained weights of this tag in timm"
            raise UserError.about(f"model {name!r}", what, ", ".join(tagged) or arch, tag, f"write {arch}")
        return
    known = timm.list_models()
    asked = name.rpartition("/")[2].partition(".")[0]  # without the owner on the hub and without the tag
    near = difflib.get_close_matches(asked, [EFFICIENTNET_B4, *known], n=4)
    raise UserError.about(
        where=f"model {name!r}",
        what="is known neither to timm nor here",
        expected=f"{EFFICIENTNET_B4} or a timm {timm.__version__} model name",
        remedy=f"did you mean {', '.join(near)}?" if near else "list the names with timm.list_models()",
    )


@functools.cache
def find_misfit(name: str, side: int, img_size: int | None = None) -> str | None:
    """Find out whether a timm model takes pictures of a size.

    Args:
        name: The timm name.
        side: Side of the pictures [px].
        img_size: The size that it is built for; None for its own.

    Returns:
        Why it does not; None where it does.
    """
    import timm

    sizes: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    config = timm.get_pretrained_cfg(name)
    # Shapes do not show an index beyond a table of positions, as of MViTv2: such models also compute two pictures.
    devices = ("meta", "cpu") if config is not None and config.fixed_input_size else ("meta",)
    try:
        for device in devices:
            with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
                model = TimmClassifier(name, classes=2, dropout=0.0, sizes=sizes).eval()
                model(torch.zeros(2, 3, side, side))
    except _MISFITS as error:
        return (str(error) or type(error).__name__).splitlines()[0][:160]
    return None


def find_sizes(name: str, side: int) -> dict[str, Any]:
    """Find the size that a timm model must be built for, to take pictures of a size.

    Args:
        name: The timm name, a known one.
        side: Side of the pictures [px].

    Returns:
        `img_size`, where the model does not take them as it is and timm can build it for them; else {}.

    Raises:
        UserError: Where it takes no such pictures; the remedy names the nearest size that fits.
    """
    own = _read_own_side(name)
    if side == own or find_misfit(name, side) is None:
        return {}
    if find_misfit(name, side, side) is None:
        return {"img_size": side}
    if find_misfit(name, own) is not None:
        return {}  # shapes alone do not tell
    fitting = next(one for one in _list_sides(side, own) if one == own or find_misfit(name, one) is None)
    raise UserError.about(
        where=f"model {name!r}",
        what=f"takes no pictures of {side} px ({find_misfit(name, side)})",
        expected=f"pictures of another size, such as {fitting} px",
        remedy=f"--set image_size={fitting}; for a teacher input_size {fitting} in `teachers`; for a file that was "
        f"trained on such pictures --image-size {fitting}; or another model",
    )


def _list_sides(side: int, own: int) -> Iterator[int]:
    """List sides to try, the nearest first: multiples of usual patches and windows, and at last the model's own."""
    tried = {step * (side // step + more) for step in (14, 16, 32, 64) for more in (0, 1, 2)}
    yield from sorted((one for one in tried if one >= 32), key=lambda one: abs(one - side))
    yield own


def _read_own_side(name: str) -> int:
    import timm

    config = timm.get_pretrained_cfg(name)
    return 224 if config is None else int(config.input_size[-1])


def _list_heads(model: Any) -> Iterator[list[nn.Module]]:
    """List what may be the heads of a timm model: the layers that it names, and the modules around them."""
    named = model.pretrained_cfg["classifier"]
    paths = [path.split(".") for path in ((named,) if isinstance(named, str) else named)]
    for depth in range(min(map(len, paths))):
        yield [model.get_submodule(".".join(path[: len(path) - depth])) for path in paths]


def _find_affine(heads: Sequence[nn.Module], size: int) -> tuple[Tensor, Tensor]:
    """Find weight (C, D) and bias (C,) of the mean of affine maps of D = size numbers, computed in fp64."""
    inputs = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()
    outputs = torch.stack([head.double()(inputs) for head in heads]).mean(0)
    return (outputs[1:] - outputs[0]).T.float().contiguous(), outputs[0].float()


def _find_own_size(model: Any) -> tuple[int, int]:
    """Find the picture size of a timm model: the one that it was built for, else the one of its weights."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or model.pretrained_cfg["input_size"][-2:]
    return int(size[0]), int(size[1])


def _per_colour(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)
