"""The hard-label term of heat maps: binary cross-entropy of each pixel with the target map.

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
    """Build the term `heatmap`.

    It reads the output and the target called `heatmap`, unless the config names others.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.

    Returns:
        The term.
    """
    return make_target_term(section, shapes, compute_heatmap, on="heatmap", target="heatmap")


def compute_heatmap(maps: Tensor, target: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy of the pixels, in fp32.

    Args:
        maps: Logits (B, H, W) or (B, 1, H, W).
        target: Maps with the same number of pixels, values in 0..1.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes.
    """
    logits, wanted = maps.flatten(1), target.flatten(1)
    if logits.shape != wanted.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(target.shape)}"
        raise ValueError(f"maps and their targets must have the same number of pixels, got {shapes}")
    return F.binary_cross_entropy_with_logits(logits.float(), wanted.float(), reduction="none").mean(1)
