"""Loss terms for classification with hard labels. Legend: B rows, C classes, y label.

Cross-entropy with label smoothing s (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision",
section 7):

    CE = - sum_c q(c) log p(c),   q(c) = (1 - s) [c = y] + s / C

Binary cross-entropy of the margin m, the log-odds of class 1. With two outputs z0 and z1, m = z1 - z0, and the loss is
the cross-entropy over both classes; with one output, m is that output:

    BCE = log(1 + exp(m)) - y m

Focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4), over classes. With gamma 0 it is the
cross-entropy:

    FL = - (1 - p_y)^gamma log p_y,   p = softmax(logits)

Binary cross-entropy of a heat map of H x W pixels, of the logit z of each pixel with its target y in 0..1:

    BCE = mean over the pixels of log(1 + exp(z)) - y z
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from sharpstudent.config.run_config import TermSection
from sharpstudent.criterion.section import Shapes, check_outputs, make_target_term, take_constant
from sharpstudent.criterion.weighted_sum import WeightedTerm


def build_cross_entropy(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `hard`.

    Raises:
        UserError: For a head of one output.
    """
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    smoothing = take_constant(section, "label_smoothing")

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        return compute_cross_entropy(logits, labels, label_smoothing=smoothing)

    return make_target_term(section, shapes, compute)


def compute_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy with label smoothing, in fp32.

    Args:
        logits: (B, C).
        labels: Class indices (B,) int64.
        label_smoothing: s, 0 <= s < 1.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0:
        raise ValueError(
            f"cross entropy needs logits (B, C) and labels (B,) with B >= 1, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="none")


def compute_margin(logits: Tensor) -> Tensor:
    """Compute the margin m, the log-odds of class 1 against class 0, in fp32.

    sigmoid(m) is the probability of class 1. Logits (B, 2) give m = z1 - z0; logits (B, 1) or (B,) are the margins
    themselves. Returns m (B,). Raises ValueError for other shapes.
    """
    if logits.ndim == 1 and len(logits):
        return logits.float()
    if logits.ndim != 2 or logits.shape[0] == 0 or logits.shape[1] not in (1, 2):
        raise ValueError(f"a margin needs logits (B, 1) or (B, 2) with B >= 1, got {tuple(logits.shape)}")
    # fp32 before the subtraction, because half precision would round the difference once more.
    logits = logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def build_binary(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `binary`.

    Raises:
        UserError: For a head of more than two outputs.
    """
    check_outputs(section, shapes, most=2, why="works with two classes only")
    return make_target_term(section, shapes, compute_binary)


def compute_binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the binary cross-entropy of the margins, in fp32.

    Args:
        logits: (B, 2) or (B, 1).
        labels: 0 or 1, (B,) int64.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes.
    """
    margin = compute_margin(logits)
    if labels.shape != margin.shape:
        raise ValueError(f"labels must be (B,) = {tuple(margin.shape)}, got {tuple(labels.shape)}")
    return F.binary_cross_entropy_with_logits(margin, labels.to(margin.dtype), reduction="none")


def build_focal(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `focal`.

    Raises:
        UserError: For a head of one output.
    """
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    gamma = take_constant(section, "gamma")

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        return compute_focal(logits, labels, gamma)

    return make_target_term(section, shapes, compute)


def compute_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Compute the focal loss, in fp32.

    Args:
        logits: (B, C), C >= 2.
        labels: Class indices (B,) int64.
        gamma: How much less the easy rows count, >= 0.

    Returns:
        The loss of each row (B,).

    Raises:
        ValueError: For other shapes, and for a gamma that is negative or not finite.
    """
    if not (math.isfinite(gamma) and gamma >= 0.0):
        raise ValueError(f"gamma must be a finite number >= 0, got {gamma}")
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0 or logits.shape[1] < 2:
        raise ValueError(
            f"the focal loss needs logits (B, C) and labels (B,) with B >= 1 and C >= 2, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    log_p = F.log_softmax(logits.float(), dim=1)
    chosen = labels[:, None]
    # log(1 - p_y) as the sum over the other classes: 1 - p_y itself is 0 for a confident student, and the derivative of
    # 0^gamma is infinite for gamma < 1.
    log_rest = log_p.scatter(1, chosen, -math.inf).logsumexp(dim=1)
    return -((gamma * log_rest).exp() * log_p.gather(1, chosen)[:, 0])


def build_heatmap(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """Build the term `heatmap`.

    It reads the output and the target called `heatmap`, unless the config names others.
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
