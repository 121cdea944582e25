"""One number a picture out of the logits of two classes: how much more they say fake than real."""

from __future__ import annotations

from torch import Tensor


def compute_margin(logits: Tensor) -> Tensor:
    """m (B,) in fp32: z1 - z0 of logits (B, 2), or the only column of logits (B, 1); sigmoid(m) is the probability of
    class 1. Raises ValueError for other shapes.
    """
    if logits.ndim != 2 or logits.shape[0] == 0 or logits.shape[1] not in (1, 2):
        raise ValueError(f"a margin needs logits (B, 1) or (B, 2) with B >= 1, got {tuple(logits.shape)}")
    # fp32 before the difference: half precision would round the two logits' difference, too.
    logits = logits.float()
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
