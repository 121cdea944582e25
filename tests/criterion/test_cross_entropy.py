"""The hard-label term."""

import math

import pytest
import torch

from lib.criterion.cross_entropy import compute_cross_entropy


def test_it_is_minus_the_mean_log_probability_of_the_label() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # probabilities (1/4, 3/4) and (1/2, 1/2)
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert compute_cross_entropy(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(16, 2, generator=torch.Generator().manual_seed(0)).to(dtype), torch.arange(16) % 2
    value = compute_cross_entropy(logits, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, compute_cross_entropy(logits.float(), labels))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    value = compute_cross_entropy(logits, torch.tensor([1, 0]))
    value.backward()
    assert value.item() == pytest.approx(2e4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("logits", "labels"), [((4,), (4,)), ((4, 2), (3,)), ((4, 2), (4, 2)), ((0, 2), (0,))], ids=str
)
def test_shapes_that_do_not_fit_are_refused(logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits \(B, C\) and labels \(B,\)"):
        compute_cross_entropy(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))
