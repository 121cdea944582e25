"""Binary cross-entropy of one margin a picture.

    BCE = mean over the batch of log(1 + exp(m)) - y m

With two outputs, m = z1 - z0, it is the cross-entropy over both classes. Legend: B images, m margin, y label.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lib.config.sections import TermSection
from lib.criterion.margin import compute_margin
from lib.criterion.section import Shapes, check_outputs, make_term
from lib.criterion.weighted_sum import WeightedTerm
from lib.types import Batch, Outputs


def build(section: TermSection, shapes: Shapes) -> WeightedTerm:
    """The term of this section. Raises UserError for a head of more than two outputs."""
    check_outputs(section, shapes, most=2, why="tells two classes apart and no more")

    def compute(outputs: Outputs, batch: Batch, answer: Outputs | None) -> Tensor:
        return compute_binary(outputs.logits, batch.labels)

    return make_term(section, compute)


def compute_binary(logits: Tensor, labels: Tensor) -> Tensor:
    """BCE of logits (B, 2) or (B, 1) against labels (B,) int64 of 0 and 1; a scalar, computed in fp32."""
    margin = compute_margin(logits)
    if labels.shape != margin.shape:
        raise ValueError(f"labels must be (B,) = {tuple(margin.shape)}, got {tuple(labels.shape)}")
    return F.binary_cross_entropy_with_logits(margin, labels.to(margin.dtype))
