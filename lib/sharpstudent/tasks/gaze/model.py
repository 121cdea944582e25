"""Gaze models of the Gaze-LLE form: a frozen backbone, and a small transformer that is told which head is asked about.

Ryan et al. 2025, "Gaze-LLE: Gaze Target Estimation via Large-Scale Learned Encoders", section 3. The picture is encoded
once for all its heads. Names of the tensors below `head.` are those of the published files.

Legend: I pictures, R heads (rows), C channels of the backbone, D width of the head, h x w cells of the backbone's map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.models.forward import run_frozen
from sharpstudent.tasks.gaze.backbones import Backbone, BackboneName, read_name
from sharpstudent.tasks.gaze.map_metrics import MAP_SIDE

PUBLISHED = ("linear.", "head_token.", "inout_token.", "transformer.", "heatmap_head.", "inout_head.")
OPTIONS = {"input_size": int, "dim": int, "layers": int, "fine": bool, "pooled": bool, "train_backbone": bool}


def build_positions(dim: int, height: int, width: int) -> Tensor:
    """Compute fixed 2-D sine and cosine positions (dim, height, width): the first half for x, the second for y."""
    half = dim // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * (-math.log(10000.0) / half))
    positions = torch.zeros(dim, height, width)
    for start, count, axis in ((0, width, 1), (half, height, 2)):
        angles = (torch.arange(float(count))[:, None] * rates).T  # (half / 2, count)
        angles = angles.unsqueeze(axis).expand(-1, height, width)
        positions[start : start + half : 2] = angles.sin()
        positions[start + 1 : start + half : 2] = angles.cos()
    return positions


def build_masks(box: Tensor, height: int, width: int) -> Tensor:
    """Mark the cells of head boxes: 1 within, 0 outside, and at least one cell each.

    Args:
        box: x0, y0, x1, y1 in 0..1 (R, 4).
        height: h.
        width: w.

    Returns:
        float32 (R, h, w).
    """
    along = []
    for low, high, count in ((box[:, 1], box[:, 3], height), (box[:, 0], box[:, 2], width)):
        cells = torch.arange(count, device=box.device, dtype=torch.float32)
        first = (low * count).round().clamp(0, count - 1)[:, None]
        end = torch.maximum((high * count).round()[:, None], first + 1)
        along.append(((cells >= first) & (cells < end)).float())
    return along[0][:, :, None] * along[1][:, None, :]


def build_coverage(box: Tensor, height: int, width: int) -> Tensor:
    """Compute which share of each cell lies in the head box, divided by their sum: float32 (R, h, w)."""
    along = []
    for low, high, count in ((box[:, 1], box[:, 3], height), (box[:, 0], box[:, 2], width)):
        cells = torch.arange(count, device=box.device, dtype=torch.float32)
        shared = torch.minimum(high[:, None] * count, cells + 1) - torch.maximum(low[:, None] * count, cells)
        along.append(shared.clamp(min=0.0))
    covered = along[0][:, :, None] * along[1][:, None, :]
    return covered / covered.sum((1, 2), keepdim=True).clamp(min=1e-6)


class GazeHead(nn.Module):
    """The trained part: tokens of the picture, a mark on those of one head, and three transformer blocks."""

    def __init__(
        self, channels: int, *, dim: int = 256, layers: int = 3, inout: int | None = None, pooled: bool = False
    ) -> None:
        """Build it with random weights.

        Args:
            channels: C.
            dim: D.
            layers: How many transformer blocks, of 8 heads each.
            inout: Hidden width of the in/out head, 0 for a linear one; None without one.
            pooled: Whether the mean feature of the head box, the place relative to it, and their product are added to
                every token. The product says how well a place lies along a direction, which is the key to learning
                from few scenes; no part of the published form.
        """
        from timm.models.vision_transformer import Block

        super().__init__()
        self.linear = nn.Linear(channels, dim)
        self.head_token = nn.Embedding(1, dim)
        self.transformer = nn.Sequential(*(Block(dim, num_heads=8, mlp_ratio=4, drop_path=0.1) for _ in range(layers)))
        self.heatmap_head = nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, stride=2), nn.Linear(dim, 1, bias=False))
        self.pool = nn.Linear(channels, dim) if pooled else None
        self.relative = nn.Linear(5, dim) if pooled else None
        self.inout_token = None if inout is None else nn.Embedding(1, dim)
        if inout is None:
            self.inout_head: nn.Module | None = None
        elif inout:
            parts = (nn.Linear(dim, inout), nn.ReLU(), nn.Dropout(0.1), nn.Linear(inout, 1))
            self.inout_head = nn.Sequential(*parts)
        else:
            self.inout_head = nn.Sequential(nn.Linear(dim, 1))

    def forward(self, features: Tensor, index: Tensor, box: Tensor) -> dict[str, Tensor]:
        """Compute logits `heatmap` (R, 64, 64) and, with an in/out head, `inside` (R,).

        Args:
            features: Maps of the pictures (I, C, h, w).
            index: The picture of each head (R,) int64.
            box: The boxes of the heads in 0..1 (R, 4).
        """
        height, width = features.shape[-2:]
        tokens = self.linear(features.flatten(2).transpose(1, 2))
        positions = build_positions(tokens.shape[-1], height, width).to(tokens)
        tokens = (tokens + positions.flatten(1).T)[index]
        tokens = tokens + build_masks(box, height, width).flatten(1)[:, :, None] * self.head_token.weight
        if self.pool is not None:
            tokens = tokens + self._pool(features, index, box)
        if self.inout_token is not None:
            tokens = torch.cat([self.inout_token.weight.expand(tokens.shape[0], 1, -1), tokens], 1)
        tokens = self.transformer(tokens)
        outputs: dict[str, Tensor] = {}
        if self.inout_head is not None:
            outputs["inside"] = self.inout_head(tokens[:, 0])[:, 0]
            tokens = tokens[:, 1:]
        maps = self.heatmap_head[0](tokens.transpose(1, 2).unflatten(2, (height, width)))
        maps = self.heatmap_head[1](maps.permute(0, 2, 3, 1))[..., 0]
        return {"heatmap": resize_maps(maps, MAP_SIDE), **outputs}

    def _pool(self, features: Tensor, index: Tensor, box: Tensor) -> Tensor:
        """Compute what is added to every token (R, h w, D): how the head looks, where the token lies, their product."""
        assert self.pool is not None
        assert self.relative is not None
        height, width = features.shape[-2:]
        coverage = build_coverage(box, height, width).flatten(1)
        mean = torch.bmm(features.flatten(2)[index], coverage[:, :, None])[..., 0]
        rows, columns = (torch.arange(count, device=box.device) + 0.5 for count in (height, width))
        dx = (columns / width)[None, None, :] - ((box[:, 0] + box[:, 2]) / 2)[:, None, None]
        dy = (rows / height)[None, :, None] - ((box[:, 1] + box[:, 3]) / 2)[:, None, None]
        dx, dy = dx.expand(-1, height, -1), dy.expand(-1, -1, width)
        far = (dx.square() + dy.square() + 1e-6).sqrt()
        place = torch.stack([dx, dy, far, dx / far, dy / far], -1).flatten(1, 2)
        looks, lies = self.pool(mean)[:, None], self.relative(place)
        return looks + lies + looks * lies


def resize_maps(maps: Tensor, side: int) -> Tensor:
    """Resize maps (R, H, W) of logits to side x side; returned as they are where they have it."""
    if tuple(maps.shape[-2:]) == (side, side):
        return maps
    smaller = min(maps.shape[-2:]) < side
    return F.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False, antialias=not smaller)[:, 0]


class GazeModel(nn.Module):
    """A backbone, frozen unless asked otherwise, and a gaze head.

    State keys: `backbone.net.*` and `head.*`.
    """

    def __init__(
        self, name: str, *, side: int, inout: bool, options: Mapping[str, Any], cache: Any | None = None
    ) -> None:
        """Build a model with random weights.

        Args:
            name: The name, which `backbones.read_name` reads.
            side: Side of the pictures of the config [px], for a backbone without a size of its own.
            inout: Whether it has an in/out head.
            options: `input_size`, `dim`, `layers`, `fine`, `pooled`, `train_backbone`.
            cache: Keeps what the frozen backbone computes; None for nothing.

        Raises:
            UserError: For an unknown name or option.
        """
        super().__init__()
        _check_options(name, options)
        self.named: BackboneName = read_name(name)
        self.side = int(options.get("input_size") or self.named.side or side)
        self.backbone = Backbone(self.named, side=self.side, fine=bool(options.get("fine", False)))
        hidden = 128 if inout and self.named.backbone.startswith("dinov2") else 0
        self.head = GazeHead(
            self.backbone.channels,
            dim=int(options.get("dim", 256)),
            layers=int(options.get("layers", 3)),
            inout=hidden if inout else None,
            pooled=bool(options.get("pooled", False)),
        )
        self.is_frozen = not options.get("train_backbone", False)
        self.has_backbone = False  # whether weights of the backbone have been loaded
        self._cache = cache
        self.backbone.requires_grad_(not self.is_frozen)

    def forward(self, image: Tensor, image_index: Tensor, box: Tensor) -> Outputs:
        """Compute logits `heatmap` (R, 64, 64) and, with an in/out head, `inside` (R,).

        Args:
            image: Pictures (I, 3, S, S) float32 RGB in 0..1.
            image_index: The picture of each head (R,) int64.
            box: x0, y0, x1, y1 of each head in 0..1 of its picture (R, 4) float32.
        """
        return self.head(self.encode(image), image_index, box)

    def encode(self, image: Tensor) -> Tensor:
        """Compute the backbone's map (I, C, h, w) of pictures, resized to the side of this model."""
        if image.shape[-1] != self.side or image.shape[-2] != self.side:
            image = F.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        if not self.is_frozen:
            return self.backbone(image)
        with torch.no_grad():
            return run_frozen(self.backbone, image) if self._cache is None else self._cache(self.backbone, image)

    def adapt_tensors(self, tensors: Mapping[str, Tensor], classes: int) -> tuple[dict[str, Tensor], list[str]]:
        """Fit the tensors of a file to this model, by their names without prefixes.

        Published heads get the prefix `head.`, weights of a backbone alone get `net.`'s place, and a file without a
        backbone gets that of this model, where one has been loaded.

        Args:
            tensors: The tensors.
            classes: Not used here.

        Returns:
            The tensors, and a sentence on each change.
        """
        adapted, notes = dict(tensors), list[str]()
        if any(key.startswith(PUBLISHED) for key in adapted):
            adapted = {f"head.{key}" if key.startswith(PUBLISHED) else key: one for key, one in adapted.items()}
            notes.append("its head has the published names")
        own = {key.removeprefix("net."): one for key, one in self.backbone.state_dict().items()}
        if self.has_backbone and not own.keys() & adapted.keys():
            adapted |= own
            notes.append("warning: the file has no tensors of the backbone, and those that are loaded already stay")
        side = 2 * self.backbone.cells
        if side != MAP_SIDE and any(key.startswith("head.linear") for key in adapted):
            notes.append(f"its maps of {side} x {side} cells are resized to {MAP_SIDE} x {MAP_SIDE}")
        extra = [key for key in adapted if key.startswith(("head.weight", "head.bias", "classifier.", "fc."))]
        if extra and not any(key.startswith("head.linear") for key in adapted):
            adapted = {key: one for key, one in adapted.items() if key not in extra}
            notes.append("the classifier of its backbone is left out")
        return adapted, notes


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        kind = OPTIONS.get(key)
        if kind is None:
            raise UserError.about(f"model {name!r}", f"has no option {key!r}", expected=", ".join(OPTIONS))
        if type(value) is not kind or (kind is int and not 1 <= value <= 4096):
            expected = "true or false" if kind is bool else "a whole number from 1 to 4096"
            raise UserError.about(f"model {name!r}, option {key!r}", "has another form", expected, repr(value))
    if int(options.get("dim", 256)) % 16:
        raise UserError.about(f"model {name!r}, option 'dim'", "does not fit", "a multiple of 16", str(options["dim"]))


def load_backbone(model: Any, name: str, key: str, *, partial: bool, may_fetch: bool = True) -> str:
    """Load the pretrained weights of the backbone, as `models.pretrained.load_imagenet` does.

    They come from `weights/NAME.imagenet.safetensors` or `.pth`, where NAME is timm's, else from timm's hub.

    Args:
        model: A gaze model.
        name: Its name.
        key: The config key that requests them, for messages.
        partial: Whether weights that do not match every tensor are permitted.
        may_fetch: Whether weights may be downloaded.

    Returns:
        A sentence that says where they came from.

    Raises:
        UserError: Where there are none, or they do not fit.
    """
    from sharpstudent.models.pretrained import find_local_weights, load_imagenet

    found = read_name(name)
    named = found.timm or found.backbone
    if found.timm is None and find_local_weights(named) is None:
        raise UserError.about(
            f"{key} = 'imagenet'",
            f"there is no file weights/{named}.imagenet.safetensors or .pth, and {name} is no model of timm's hub",
            remedy=f"put the weights of its backbone there, or name a file of weights in {key}",
        )
    model.sizes = {}
    line = load_imagenet(model, named, key, partial=partial, may_fetch=may_fetch)
    model.has_backbone = True
    return line
