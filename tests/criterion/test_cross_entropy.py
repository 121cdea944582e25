"""The hard-label term."""

import math

import numpy as np
import pytest
import torch
from made_terms import (
    build_one,
    draw,
    make_batch,
    make_labels,
    make_shapes,
    mean_of,
    softmax_float64,
    take_gradient,
    to_float64,
)
from sharpstudent.core.errors import UserError
from sharpstudent.criterion import classification

compute_cross_entropy = mean_of(classification.compute_cross_entropy)


def test_it_is_minus_the_mean_log_probability_of_the_label() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # probabilities (1/4, 3/4) and (1/2, 1/2)
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert compute_cross_entropy(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)
    rows = classification.compute_cross_entropy(logits, torch.tensor([1, 0])).tolist()
    assert rows == [pytest.approx(math.log(4 / 3), rel=1e-6), pytest.approx(math.log(2), rel=1e-6)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(16, 2, generator=torch.Generator().manual_seed(0)).to(dtype), torch.arange(16) % 2
    rows = classification.compute_cross_entropy(logits, labels)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, classification.compute_cross_entropy(logits.float(), labels))


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 7])
def test_with_smoothing_it_equals_numpy_in_float64(classes: int, smoothing: float) -> None:
    logits, labels = draw(16, classes), make_labels(16, classes)
    targets = (1.0 - smoothing) * np.eye(classes)[labels.numpy()] + smoothing / classes
    expected = -np.sum(targets * np.log(softmax_float64(logits)), axis=1)
    value = compute_cross_entropy(logits, labels, label_smoothing=smoothing)
    assert value.item() == pytest.approx(float(np.mean(expected)), rel=2e-6)
    rows = classification.compute_cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(to_float64(rows), expected, rtol=2e-6, atol=1e-6)


def test_no_smoothing_is_the_plain_loss_bit_for_bit() -> None:
    logits, batch = draw(), make_batch()
    plain = torch.nn.functional.cross_entropy(logits, batch.targets["label"], reduction="none")
    for term in (build_one("hard"), build_one("hard", label_smoothing=0.0)):
        assert torch.equal(term.compute({"logits": logits}, batch, None), plain)


def test_a_smoothed_label_is_reached_at_finite_logits() -> None:
    """With smoothing s the best margin of two classes is log((1 - s / 2) / (s / 2)), and the gradient there is 0."""
    best = math.log(0.95 / 0.05)
    logits = torch.tensor([[0.0, best], [best, 0.0]], requires_grad=True)
    value = build_one("hard", label_smoothing=0.1).compute({"logits": logits}, make_batch(2), None).mean()
    assert take_gradient(value, logits).abs().max() > 0.4  # both labels are wrong
    value = compute_cross_entropy(logits, torch.tensor([1, 0]), label_smoothing=0.1)
    assert take_gradient(value, logits).abs().max() < 1e-6


def test_one_output_is_refused() -> None:
    with pytest.raises(UserError, match="always 1"):
        build_one("hard", make_shapes(1))
