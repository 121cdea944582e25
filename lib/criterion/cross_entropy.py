"""The hard-label term, with label smoothing (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer
Vision", section 7).

    CE = mean over the batch of - sum_c q(c) log p(c),   q(c) = (1 - s) [c is the label] + s / C

Legend: B images, C classes, s the smoothing.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lib.config.sections import TermSection
from lib.criterion.section import Shapes, check_outputs, make_term, take_constant
from lib.criterion.weighted_sum import WeightedTerm
from lib.types import Batch, Outputs


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of one output."""
    check_outputs(section, shapes, least=2, why="the softmax of one output is always 1, and its gradient 0")
    smoothing = take_constant(section, "label_smoothing")

    def compute(outputs: Outputs, batch: Batch, answer: Outputs | None) -> Tensor:
        return compute_cross_entropy(outputs.logits, batch.labels, label_smoothing=smoothing)

    return make_term(section, compute)


def compute_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits (B, C) against class indices labels (B,) int64; a scalar, computed in fp32."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0:
        raise ValueError(
            f"cross entropy needs logits (B, C) and labels (B,) with B >= 1, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
