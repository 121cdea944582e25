"""Decoupled distillation and standardised logits against NumPy in float64, and where they are dead."""

import numpy as np
import pytest
import torch
from made_terms import (
    HALF,
    START,
    build_one,
    draw,
    make_batch,
    make_labels,
    make_shapes,
    softmax_float64,
    take_gradient,
    to_float64,
)
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.criterion.distillation import compute_dkd, compute_kd, standardise
from sharpstudent.criterion.weighted_sum import WeightedSum
from torch import Tensor

FIVE = make_shapes(5)


def diverge(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p || q) of each row."""
    return (p * (np.log(p) - np.log(q))).sum(1)


def compute_parts(student: Tensor, teacher: Tensor, labels: Tensor, t: float) -> tuple[NDArray, NDArray]:
    """T^2 times the two parts of equation 7, with the labels' classes taken out of NumPy arrays one by one."""
    sides = []
    for logits in (teacher, student):
        p = softmax_float64(logits, t)
        y = labels.numpy()
        of_label = p[np.arange(len(p)), y]
        rest = np.stack([np.delete(row, label) for row, label in zip(p, y, strict=True)])
        sides.append((np.stack([of_label, 1.0 - of_label], 1), rest / rest.sum(1, keepdims=True)))
    (target_t, rest_t), (target_s, rest_s) = sides
    return t**2 * diverge(target_t, target_s), t**2 * diverge(rest_t, rest_s)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 8.0), (1.0, 0.0), (0.0, 2.0)])
def test_it_equals_numpy_in_float64(weights: tuple[float, float], temperature: float) -> None:
    student, teacher, labels = draw(9, 5), draw(9, 5, seed=1), make_labels(9, 5)
    target, rest = compute_parts(student, teacher, labels, temperature)
    rows = compute_dkd(student, teacher, labels, temperature, *weights)
    np.testing.assert_allclose(to_float64(rows), weights[0] * target + weights[1] * rest, rtol=2e-5, atol=1e-5)


def test_with_the_teachers_rest_as_weight_the_parts_are_kd() -> None:
    """Equation 6: KD = the part on the label's class + (1 - p_t(y)) times that on the others."""
    student, teacher, labels = draw(9, 5), draw(9, 5, seed=1), make_labels(9, 5)
    target, rest = (compute_dkd(student, teacher, labels, 3.0, *weights) for weights in ((1.0, 0.0), (0.0, 1.0)))
    of_label = (teacher / 3.0).softmax(1)[torch.arange(9), labels]
    torch.testing.assert_close(target + (1.0 - of_label) * rest, compute_kd(student, teacher, 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_certain_models_give_finite_values_and_gradients(dtype: torch.dtype) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, 3e4, 0.0]], dtype=dtype, requires_grad=True)
    for labels in (torch.tensor([0, 1]), torch.tensor([1, 2])):
        rows = compute_dkd(logits, logits.detach().flip(0), labels, 4.0, 1.0, 8.0)
        assert rows.dtype == torch.float32
        assert torch.isfinite(rows).all()
        assert torch.isfinite(take_gradient(rows.sum(), logits)).all()


def test_the_term_reads_label_mask_and_named_outputs() -> None:
    shapes = make_shapes(4)
    shapes = type(shapes)({**shapes.student, "aux": (2, 4)}, {**shapes.teacher, "big": (2, 4)}, 2)
    term = build_one("dkd", shapes, on="aux", of="big")
    batch = make_batch(8, 4)
    weights = torch.tensor([1.0, 1, 0, 1, 0, 1, 1, 1])
    batch = type(batch)(batch.inputs, batch.targets, {"label": weights}, batch.rows)
    aux, big = draw(8, 4), draw(8, 4, seed=2)
    value = WeightedSum([term])({"aux": aux, "logits": aux * 9}, batch, {"teacher": {"big": big}}, START)
    rows = compute_dkd(aux, big, batch.targets["label"], 4.0, 1.0, 8.0)
    torch.testing.assert_close(value.total, rows[weights > 0].mean())
    assert WeightedSum([term]).describe(START) == {
        "dkd/weight": 1.0,
        "dkd/temperature": 4.0,
        "dkd/target_weight": 1.0,
        "dkd/non_target_weight": 8.0,
    }


def test_two_classes_are_refused_since_the_rest_is_one_class() -> None:
    with pytest.raises(UserError) as refused:
        build_one("dkd")
    assert "leave one class" in refused.value.as_text()
    assert "3 or more" in refused.value.as_text()
    build_one("dkd", make_shapes(3))


@pytest.mark.parametrize(("student", "labels"), [((4, 2), 4), ((4, 5), 3), ((0, 5), 0)], ids=str)
def test_shapes_that_do_not_fit_are_refused(student: tuple[int, ...], labels: int) -> None:
    with pytest.raises(ValueError, match="logits"):
        compute_dkd(torch.zeros(student), torch.zeros(student), torch.zeros(labels, dtype=torch.int64), 1.0, 1.0, 1.0)


def test_standardised_rows_equal_numpy_and_a_constant_row_is_zeros_with_a_finite_gradient() -> None:
    logits = torch.cat([draw(6, 5), torch.full((1, 5), 7.0)]).requires_grad_()
    z = to_float64(logits)[:6]
    expected = (z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)
    rows = standardise(logits)
    np.testing.assert_allclose(to_float64(rows)[:6], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(rows[6], torch.zeros(5))
    assert torch.isfinite(take_gradient((rows * draw(7, 5, seed=3)).sum(), logits)).all()


@pytest.mark.parametrize("kind", ["kd", "dkd"])
def test_a_standardising_term_ignores_shift_and_size_of_both_sides(kind: str) -> None:
    student, teacher, batch = draw(8, 5), draw(8, 5, seed=1), make_batch(8, 5)
    criterion = WeightedSum([build_one(kind, FIVE, standardise="yes")])
    plain = WeightedSum([build_one(kind, FIVE)])

    def compute(of: WeightedSum, s: Tensor, t: Tensor) -> Tensor:
        return of({"logits": s}, batch, {"teacher": {"logits": t}}, START).total

    value = compute(criterion, student, teacher)
    torch.testing.assert_close(
        compute(criterion, 5.0 * student - 2.0, 0.3 * teacher + 1.0), value, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(value, compute(plain, standardise(student), standardise(teacher)))
    assert compute(criterion, 2.0 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-5)


def test_standardised_logits_of_two_classes_are_refused_and_maps_are_taken() -> None:
    with pytest.raises(UserError, match=r"always 0\.71 and -0\.71"):
        build_one("kd", standardise="yes")
    assert (
        standardise(torch.tensor([[3.0, 1.0], [-2.0, 9.0]])).abs().tolist()
        == [[pytest.approx(0.7071, abs=1e-4)] * 2] * 2
    )
    shapes = type(FIVE)({"map": (2, 4, 4)}, {"map": (2, 4, 4)}, 2)
    build_one("kd", shapes, on="map", over="pixels", standardise="yes")
