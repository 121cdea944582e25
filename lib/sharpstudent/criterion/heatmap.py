"""The hard-label term of heat maps: pixel by pixel, how far a map of logits is from the target map.

    BCE = mean over the pixels of log(1 + exp(z)) - y z

Legend: B rows, H x W pixels, z logit of a pixel, y its target in 0..1.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sharpstudent.config.run_config import TermSection
from sharpstudent.criterion.section import Shapes, make_target_term
from sharpstudent.criterion.weighted_sum import WeightedTerm


def build_heatmap(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section; it reads the output and the target `heatmap` unless told otherwise."""
    return make_target_term(section, shapes, compute_heatmap, on="heatmap", target="heatmap")


def compute_heatmap(maps: Tensor, target: Tensor) -> Tensor:
    """BCE (B,) of logits (B, H, W) or (B, 1, H, W) against maps of as many pixels in 0..1; computed in fp32.

    Raises ValueError for other shapes.
    """
    logits, wanted = maps.flatten(1), target.flatten(1)
    if logits.shape != wanted.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(target.shape)}"
        raise ValueError(f"maps and their targets must have as many pixels, got {shapes}")
    return F.binary_cross_entropy_with_logits(logits.float(), wanted.float(), reduction="none").mean(1)
