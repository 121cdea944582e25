"""The soft-label term for one logit."""

import math

import numpy as np
import pytest
import torch
from made_terms import HALF, build_one, draw, make_batch, make_shapes, mean_of, take_gradient, to_float64
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.criterion import distillation
from torch import Tensor

compute_kd = mean_of(distillation.compute_kd)
compute_kd_sigmoid = mean_of(distillation.compute_kd_sigmoid)
TEMPERATURES = [0.5, 1.0, 3.0, 10.0]


def compute_float64(student: Tensor, teacher: Tensor, temperature: float) -> NDArray[np.float64]:
    """Of each row (B,)."""
    p, q = (
        1.0 / (1.0 + np.exp(-(z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]) / temperature))
        for z in (to_float64(teacher), to_float64(student))
    )
    return temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("outputs", [(1, 1), (2, 2), (1, 2), (2, 1)], ids=str)
def test_it_equals_numpy_in_float64(outputs: tuple[int, int], temperature: float) -> None:
    student, teacher = draw(16, outputs[0], seed=0), draw(16, outputs[1], seed=1)
    expected = compute_float64(student, teacher, temperature)
    assert compute_kd_sigmoid(student, teacher, temperature).item() == pytest.approx(float(np.mean(expected)), rel=1e-5)
    rows = distillation.compute_kd_sigmoid(student, teacher, temperature)
    np.testing.assert_allclose(to_float64(rows), expected, rtol=1e-5, atol=1e-6 * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_with_two_outputs_it_is_kd_and_has_its_gradient(temperature: float) -> None:
    student, teacher = draw(seed=0).requires_grad_(), draw(seed=1)
    ours, other = compute_kd_sigmoid(student, teacher, temperature), compute_kd(student, teacher, temperature)
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        distillation.compute_kd_sigmoid(student, teacher, temperature),
        distillation.compute_kd(student, teacher, temperature),
        rtol=1e-5,
        atol=1e-6 * temperature**2,
    )
    torch.testing.assert_close(take_gradient(ours, student), take_gradient(other, student), rtol=1e-4, atol=1e-6)


def test_t_squared_keeps_the_gradient_in_size_as_the_temperature_grows() -> None:
    # For T far above the margins the gradient tends to (m_s - m_t) / (4 B).
    student, teacher = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[0.8]])
    for temperature in (100.0, 1000.0):
        gradient = take_gradient(compute_kd_sigmoid(student, teacher, temperature), student)
        torch.testing.assert_close(gradient, torch.tensor([[0.3]]), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_extreme_logits_give_finite_values_and_gradients(temperature: float, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4], [-1e4, 1e4], [1e4, -1e4]], dtype=dtype)
    value = compute_kd_sigmoid(student, teacher, temperature)
    assert torch.isfinite(value)
    assert torch.isfinite(take_gradient(value, student)).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    student, teacher = draw(seed=0).to(dtype), draw(seed=1).to(dtype)
    rows = distillation.compute_kd_sigmoid(student, teacher, 3.0)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, distillation.compute_kd_sigmoid(student.float(), teacher.float(), 3.0))


@pytest.mark.parametrize("outputs", [1, 2])
def test_it_is_zero_where_both_agree_and_positive_elsewhere(outputs: int) -> None:
    logits = draw(32, outputs).requires_grad_()
    same = compute_kd_sigmoid(logits, logits.detach().clone(), 3.0)
    assert same.item() == pytest.approx(0.0, abs=1e-6)
    assert take_gradient(same, logits).abs().max() < 1e-6
    for seed in range(1, 6):
        assert compute_kd_sigmoid(logits, draw(32, outputs, seed=seed), 3.0).item() > 0.0


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_term_softens_the_teachers_logits_and_has_a_gradient(outputs: int) -> None:
    term = build_one("kd_sigmoid", make_shapes(outputs), temperature=2.5)
    student, teacher = draw(8, outputs, seed=0).requires_grad_(), draw(8, outputs, seed=1).requires_grad_()
    rows = term.compute({"logits": student}, make_batch(), {"logits": teacher}, temperature=2.5)
    assert torch.equal(rows, distillation.compute_kd_sigmoid(student, teacher, 2.5))
    assert (term.source, list(term.settings)) == ("teacher", ["temperature"])
    rows.mean().backward()
    assert student.grad is not None
    assert student.grad.norm() > 1e-2
    assert teacher.grad is None


def test_more_than_two_outputs_are_refused() -> None:
    with pytest.raises(UserError, match="two classes"):
        build_one("kd_sigmoid", make_shapes(3))


def test_other_images_and_other_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compute_kd_sigmoid(torch.zeros(4, 2), torch.zeros(3, 2), 1.0)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be"):
            compute_kd_sigmoid(torch.zeros(4, 2), torch.zeros(4, 2), temperature)
