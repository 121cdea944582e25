"""Backbones of gaze models by their names: DINOv3 and DINOv2 through timm, two small ViTs, and any other timm model.

Weights of DINOv2 and DINOv3 are the user's own file or come from timm's hub; the licence of DINOv3 is Meta's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpstudent.core.errors import UserError
from sharpstudent.models.vision import check_model_name, find_sizes

PREFIX, INOUT = "gazelle_", "_inout"
# name -> (the name in timm, side of the pictures that it was trained on [px])
NAMED = {
    "dinov3_vits16": ("vit_small_patch16_dinov3", 640),
    "dinov3_vits16plus": ("vit_small_plus_patch16_dinov3", 640),
    "dinov3_vitb16": ("vit_base_patch16_dinov3", 640),
    "dinov2_vitb14": ("vit_base_patch14_dinov2", 448),
    "dinov2_vitl14": ("vit_large_patch14_dinov2", 448),
}
SMALL = {"dinov3_vit_tiny": (192, 3), "dinov3_vit_tinyplus": (256, 4)}  # name -> (width, heads)
SMALL_SIDE = 640


@dataclass(frozen=True)
class BackboneName:
    """What a name such as `gazelle_dinov2_vitb14_inout` says.

    Attributes:
        backbone: The name without prefix and ending.
        has_inout: Whether it ends in `_inout`.
        timm: The name in timm; None for the two small ViTs, which timm does not have.
        side: Side of the pictures that the model expects [px]; None for that of the config.
    """

    backbone: str
    has_inout: bool
    timm: str | None
    side: int | None


def read_name(name: str) -> BackboneName:
    """Read the name of a gaze model.

    Args:
        name: `gazelle_`, the name of a backbone, and `_inout` for a model with an in/out head.

    Raises:
        UserError: For any other name, and for a backbone that nobody knows, with the nearest names.
    """
    if not name.startswith(PREFIX):
        raise UserError.about(
            f"model {name!r}",
            "is no gaze model",
            expected=f"{', '.join(PREFIX + known for known in (*SMALL, *NAMED))}, or {PREFIX} and any timm name",
            remedy=f"write {PREFIX}{name}",
        )
    backbone = name.removeprefix(PREFIX)
    has_inout = backbone.endswith(INOUT)
    backbone = backbone.removesuffix(INOUT)
    if backbone in SMALL:
        return BackboneName(backbone, has_inout, None, SMALL_SIDE)
    if backbone in NAMED:
        return BackboneName(backbone, has_inout, *NAMED[backbone])
    check_model_name(backbone)
    return BackboneName(backbone, has_inout, backbone, None)


class Backbone(nn.Module):
    """Computes one map of features of a picture.

    Attributes:
        net: The network, as timm builds it.
        channels: The channels C of the map.
        cells: The cells of a side of the map.
        fine: Whether the map of half the stride is joined to the last one, four cells as channels of one. A map of
            stride 32 alone does not show which way a face is turned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: BackboneName, *, side: int, fine: bool) -> None:
        """Build the network with random weights.

        Args:
            name: The name.
            side: Side of the pictures [px].
            fine: See the class.

        Raises:
            UserError: For pictures of a size that the network does not take, and for `fine` without such a map.
        """
        super().__init__()
        self.net: Any = _build_small(*SMALL[name.backbone]) if name.timm is None else _build_timm(name.timm, side)
        self.fine = fine
        self._indices: Any = 2 if fine else 1
        config = getattr(self.net, "pretrained_cfg", None) or {}
        for key in ("mean", "std"):
            values = config.get(key) or {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}[key]
            self.register_buffer(key, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)
        with torch.no_grad():  # in evaluation mode, so that statistics of BatchNorm stay as they are
            _, self.channels, _, self.cells = map(int, self.eval()(torch.zeros(1, 3, side, side)).shape)
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        """Compute the map (I, C, h, w) of pictures (I, 3, S, S) float32 RGB in 0..1."""
        maps = self.net.forward_intermediates(
            (image - self.mean) / self.std, indices=self._indices, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        if not self.fine:
            return maps[-1]
        before, last = maps
        if before.shape[-1] != 2 * last.shape[-1]:
            raise UserError.about(
                "option 'fine' of the model",
                "needs a backbone whose last map but one has twice the cells",
                got=f"maps of {before.shape[-1]} and {last.shape[-1]} cells",
                remedy="leave the option out",
            )
        return torch.cat([last, F.pixel_unshuffle(before, 2)], 1)


def _build_small(width: int, heads: int) -> nn.Module:
    """Build a DINOv3 ViT of patch 16 and depth 12, without register tokens and LayerScale."""
    from functools import partial

    from timm.models.eva import Eva

    return Eva(
        img_size=256,
        patch_size=16,
        dynamic_img_size=True,
        embed_dim=width,
        depth=12,
        num_heads=heads,
        num_classes=0,
        qkv_bias=False,
        init_values=None,
        rope_type="dinov3",
        rope_temperature=100.0,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=0,
        use_fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )


def _build_timm(name: str, side: int) -> nn.Module:
    import timm

    patched = name.startswith("vit_")  # these resample their positions, so that any multiple of the patch will do
    sizes: dict[str, Any] = {"dynamic_img_size": True} if patched else find_sizes(name, side)
    return timm.create_model(name, pretrained=False, num_classes=0, **sizes)
