"""The hard-label term. Legend: B images, C classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def compute_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, C) against class indices labels (B,) int64; a scalar, computed in fp32."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0:
        raise ValueError(
            f"cross entropy needs logits (B, C) and labels (B,) with B >= 1, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels)
