"""The focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4), over classes.

    FL = mean over the batch of - (1 - p_y)^gamma log p_y,   p = softmax(logits)

gamma 0 is the cross-entropy. Legend: B images, C classes, y label.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from lib.config.sections import TermSection
from lib.criterion.section import Shapes, check_outputs, make_term, take_constant
from lib.criterion.weighted_sum import WeightedTerm
from lib.types import Batch, Outputs


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of one output."""
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    gamma = take_constant(section, "gamma")

    def compute(outputs: Outputs, batch: Batch, answer: Outputs | None) -> Tensor:
        return compute_focal(outputs.logits, batch.labels, gamma)

    return make_term(section, compute)


def compute_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal loss of logits (B, C), C >= 2, against class indices labels (B,) int64; a scalar, computed in fp32.

    Raises ValueError for other shapes, and unless gamma is finite and >= 0.
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
    # log(1 - p_y) as the sum over the other classes: 1 - p_y itself is 0 for a sure student, and the derivative of
    # 0^gamma is infinite for gamma < 1.
    log_rest = log_p.scatter(1, chosen, -math.inf).logsumexp(dim=1)
    return -((gamma * log_rest).exp() * log_p.gather(1, chosen)[:, 0]).mean()
