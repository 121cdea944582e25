"""The focal loss."""

import math

import numpy as np
import pytest
import torch
from made_terms import (
    HALF,
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
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.criterion import classification
from torch import Tensor

compute_focal = mean_of(classification.compute_focal)
compute_cross_entropy = mean_of(classification.compute_cross_entropy)


def compute_float64(logits: Tensor, labels: Tensor, gamma: float) -> NDArray[np.float64]:
    """Of each row (B,)."""
    p = softmax_float64(logits)[np.arange(len(labels)), labels.numpy()]
    return -((1.0 - p) ** gamma) * np.log(p)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 7])
def test_it_equals_numpy_in_float64(classes: int, gamma: float) -> None:
    logits, labels = draw(16, classes), make_labels(16, classes)
    expected = compute_float64(logits, labels, gamma)
    assert compute_focal(logits, labels, gamma).item() == pytest.approx(float(np.mean(expected)), rel=5e-6)
    rows = classification.compute_focal(logits, labels, gamma)
    np.testing.assert_allclose(to_float64(rows), expected, rtol=5e-6, atol=1e-6)


def test_gamma_0_is_the_cross_entropy_and_has_its_gradient() -> None:
    logits, labels = draw().requires_grad_(), make_labels()
    ours, other = compute_focal(logits, labels, 0.0), compute_cross_entropy(logits, labels)
    torch.testing.assert_close(ours, other)
    torch.testing.assert_close(
        classification.compute_focal(logits, labels, 0.0), classification.compute_cross_entropy(logits, labels)
    )
    torch.testing.assert_close(take_gradient(ours, logits), take_gradient(other, logits))


def test_what_is_easy_weighs_less_the_larger_gamma_is() -> None:
    easy, hard = torch.tensor([[0.0, 4.0]]), torch.tensor([[4.0, 0.0]])
    label = torch.tensor([1])
    shares = [float(compute_focal(easy, label, g) / compute_focal(hard, label, g)) for g in (0.0, 1.0, 2.0, 5.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-8 < 1e-3 < shares[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_student_that_is_certain_gives_finite_values_and_gradients(gamma: float, dtype: torch.dtype) -> None:
    """(1 - p)^gamma has an infinite derivative at p = 1 for gamma < 1."""
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 60.0]], dtype=dtype, requires_grad=True)
    for labels in (torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])):
        value = compute_focal(logits, labels, gamma)
        assert torch.isfinite(value)
        assert torch.isfinite(take_gradient(value, logits)).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    logits, labels = draw().to(dtype), make_labels()
    rows = classification.compute_focal(logits, labels, 2.0)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, classification.compute_focal(logits.float(), labels, 2.0))


def test_the_term_takes_its_gamma_and_is_alive_at_two_classes() -> None:
    logits, batch = draw(spread=1.0).requires_grad_(), make_batch()
    for gamma in (0.0, 2.0, 4.0):
        term = build_one("focal", gamma=gamma)
        rows = term.compute({"logits": logits}, batch, None)
        assert torch.equal(rows, classification.compute_focal(logits, batch.targets["label"], gamma))
        assert take_gradient(rows.mean(), logits).norm() > 1e-3
        assert dict(term.settings) == {}  # a constant is no column of the log
    rows = build_one("focal").compute({"logits": logits}, batch, None)
    assert torch.equal(rows, classification.compute_focal(logits, batch.targets["label"], 2.0))


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_a_gamma_that_is_negative_or_not_finite_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be"):
        compute_focal(torch.zeros(2, 2), make_labels(2), gamma)


@pytest.mark.parametrize(("logits", "labels"), [((4,), 4), ((4, 2), 3), ((0, 2), 0), ((4, 1), 4)], ids=str)
def test_shapes_that_do_not_fit_are_refused(logits: tuple[int, ...], labels: int) -> None:
    with pytest.raises(ValueError, match=r"logits \(B, C\) and labels \(B,\)"):
        compute_focal(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), 2.0)


def test_one_output_is_refused() -> None:
    with pytest.raises(UserError, match="always 1"):
        build_one("focal", make_shapes(1))
