"""Binary cross-entropy of the margin."""

import numpy as np
import pytest
import torch
from made_terms import HALF, build_one, draw, make_batch, make_labels, make_shapes, mean_of, take_gradient, to_float64
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.criterion import classification
from torch import Tensor

compute_binary = mean_of(classification.compute_binary)
compute_cross_entropy = mean_of(classification.compute_cross_entropy)


def compute_float64(logits: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Of each row (B,)."""
    z = to_float64(logits)
    margin = z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]
    return np.logaddexp(0.0, margin) - labels.numpy() * margin


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_numpy_in_float64(classes: int, seed: int) -> None:
    logits, labels = draw(16, classes, seed=seed), make_labels(16)
    expected = compute_float64(logits, labels)
    assert compute_binary(logits, labels).item() == pytest.approx(float(np.mean(expected)), rel=2e-6)
    rows = classification.compute_binary(logits, labels)
    np.testing.assert_allclose(to_float64(rows), expected, rtol=2e-6, atol=1e-6)


def test_with_two_outputs_it_is_the_cross_entropy_and_has_its_gradient() -> None:
    logits, labels = draw().requires_grad_(), make_labels()
    ours, other = compute_binary(logits, labels), compute_cross_entropy(logits, labels)
    torch.testing.assert_close(ours, other)
    torch.testing.assert_close(
        classification.compute_binary(logits, labels), classification.compute_cross_entropy(logits, labels)
    )
    torch.testing.assert_close(take_gradient(ours, logits), take_gradient(other, logits))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_logits_are_subtracted_in_fp32(dtype: torch.dtype) -> None:
    logits, labels = draw().to(dtype), make_labels()
    rows = classification.compute_binary(logits, labels)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, classification.compute_binary(logits.float(), labels))


@pytest.mark.parametrize("classes", [1, 2])
def test_extreme_logits_give_finite_values_and_gradients(classes: int) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])[:, :classes].requires_grad_()
    for labels in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        value = compute_binary(logits, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(take_gradient(value, logits)).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_the_term_reads_logits_and_labels_and_is_alive(classes: int) -> None:
    term, logits, batch = build_one("binary", make_shapes(classes)), draw(8, classes).requires_grad_(), make_batch()
    rows = term.compute({"logits": logits}, batch, None)
    assert torch.equal(rows, classification.compute_binary(logits, batch.targets["label"]))
    assert take_gradient(rows.mean(), logits).norm() > 1e-2
    assert (term.source, term.module, dict(term.settings)) == (None, None, {})


def test_more_than_two_outputs_are_refused() -> None:
    with pytest.raises(UserError, match="two classes"):
        build_one("binary", make_shapes(3))
    with pytest.raises(ValueError, match=r"\(B, 1\) or \(B, 2\)"):
        compute_binary(torch.zeros(4, 3), make_labels(4))


def test_labels_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be"):
        compute_binary(torch.zeros(4, 2), make_labels(3))
