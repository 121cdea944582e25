"""Terms between rows and classes, against formulas written as loops in NumPy, and where they are dead."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from made_terms import (
    HALF,
    START,
    TWO,
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
from sharpstudent.core.types import Batch
from sharpstudent.criterion.build import LEAST_SHARE, compute_gradient_share
from sharpstudent.criterion.relations import compute_dist, compute_rkd, compute_supcon
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from torch import Tensor

FIVE = make_shapes(5)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1.0 else abs(x) - 0.5


def correlate(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> float:
    """1 minus the mean correlation: of rows at axis 1, of classes at axis 0."""
    sides = [softmax_float64(logits, temperature) for logits in (student, teacher)]
    pairs = zip(*(side if axis == 1 else side.T for side in sides), strict=True)
    return 1.0 - float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_equals_the_correlations_of_numpy(temperature: float) -> None:
    student, teacher = draw(9, 5), draw(9, 5, seed=1)
    inter, intra = (correlate(student, teacher, temperature, axis) for axis in (1, 0))
    value = compute_dist(student, teacher, temperature, 2.0, 0.5).item()
    assert value == pytest.approx(temperature**2 * (2.0 * inter + 0.5 * intra), rel=1e-4)


def measure_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])
    return found / found[~np.eye(len(rows), dtype=bool)].mean()


def measure_angle(rows: NDArray[np.float64], i: int, j: int, k: int) -> float:
    a, b = rows[i] - rows[j], rows[k] - rows[j]
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_rkd_equals_loops_over_pairs_and_triples_and_needs_no_equal_sizes() -> None:
    student, teacher = draw(6, 3), draw(6, 7, seed=1)
    s, t = to_float64(student), to_float64(teacher)
    of_s, of_t = measure_distances(s), measure_distances(t)
    distance = np.mean([huber(of_s[i, j] - of_t[i, j]) for i, j in permutations(range(6), 2)])
    angle = np.mean([huber(measure_angle(s, *one) - measure_angle(t, *one)) for one in permutations(range(6), 3)])
    assert compute_rkd(student, teacher, 1.0, 0.0).item() == pytest.approx(distance, rel=1e-5)
    assert compute_rkd(student, teacher, 0.0, 1.0).item() == pytest.approx(angle, rel=1e-5)
    assert compute_rkd(student, teacher, 0.5, 3.0).item() == pytest.approx(0.5 * distance + 3.0 * angle, rel=1e-5)


def test_rkd_is_zero_for_rows_that_are_turned_moved_and_scaled() -> None:
    teacher = draw(6, 3)
    turn = torch.linalg.qr(draw(3, 3, seed=5)).Q
    assert compute_rkd(2.5 * teacher @ turn + 1.0, teacher, 1.0, 1.0).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_supcon_equals_a_loop_over_anchors(temperature: float) -> None:
    vectors, labels = draw(7, 4), torch.tensor([0, 1, 0, 2, 1, 0, 3])  # 2 and 3 are alone: no anchors
    z = to_float64(vectors)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        same = [p for p in others if labels[p] == labels[i]]
        total = np.log(sum(np.exp(z[i] @ z[a] / temperature) for a in others))
        if same:
            losses.append(-np.mean([z[i] @ z[p] / temperature - total for p in same]))
    assert compute_supcon(vectors, labels, temperature).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_batch_without_two_rows_of_one_label_has_no_contrast() -> None:
    vectors = draw(4, 3).requires_grad_()
    value = compute_supcon(vectors, torch.arange(4), 0.1)
    assert value.item() == 0.0
    assert torch.equal(take_gradient(value, vectors), torch.zeros(4, 3))


COMPUTE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dist": lambda s, t: compute_dist(s, t, 1.0, 1.0, 1.0),
    "rkd": lambda s, t: compute_rkd(s, t, 1.0, 2.0),
    "supcon": lambda s, t: compute_supcon(s, make_labels(len(s), 3), 0.1),
}


@pytest.mark.parametrize("name", COMPUTE)
def test_equal_constant_and_huge_rows_give_finite_values_and_gradients(name: str) -> None:
    for rows in (torch.zeros(5, 3), torch.ones(5, 3).cumsum(0).flip(1), 1e4 * draw(5, 3), draw(1, 3).repeat(5, 1)):
        rows = rows.clone().requires_grad_()
        for teacher in (rows.detach().clone(), draw(5, 3, seed=4)):
            value = COMPUTE[name](rows, teacher)
            assert torch.isfinite(value)
            assert torch.isfinite(take_gradient(value, rows)).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", COMPUTE)
def test_half_precision_is_computed_in_fp32_and_no_gradient_reaches_the_teacher(name: str, dtype: torch.dtype) -> None:
    student, teacher = draw(6, 4).to(dtype).requires_grad_(), draw(6, 4, seed=1).to(dtype).requires_grad_()
    value = COMPUTE[name](student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, COMPUTE[name](student.float(), teacher.float()))
    value.backward()
    assert teacher.grad is None
    assert student.grad is not None


def compute_term(term: WeightedTerm, batch: Batch, student: Tensor, teacher: Tensor) -> Tensor:
    return WeightedSum([term])({"logits": student}, batch, {"teacher": {"logits": teacher}}, START).total


@pytest.mark.parametrize("name", ["dist", "rkd", "supcon"])
def test_rows_of_weight_0_take_no_part_even_if_they_are_no_numbers(name: str) -> None:
    student, teacher, batch = draw(9, 5), draw(9, 5, seed=1), make_batch(9, 5)
    kept = torch.tensor([True, True, False, True, True, True, False, True, False])
    batch = replace(batch, targets={"label": make_labels(9, 3)})
    masked = replace(batch, weights={"mask": kept.float()})
    student[~kept] = float("nan")
    student.requires_grad_()
    value = compute_term(build_one(name, FIVE, where="mask"), masked, student, teacher)
    part = replace(make_batch(6, 5), targets={"label": batch.targets["label"][kept]})
    expected = compute_term(build_one(name, FIVE), part, student[kept], teacher[kept])
    torch.testing.assert_close(value, expected)
    gradient = take_gradient(value, student)
    assert torch.equal(gradient[~kept], torch.zeros(3, 5))
    few = replace(batch, weights={"mask": torch.tensor([1.0, 1.0] + [0.0] * 7)})
    value = compute_term(build_one(name, FIVE, where="mask"), few, student, teacher)
    assert value.item() == 0.0
    assert torch.equal(take_gradient(value, student), torch.zeros(9, 5))


@pytest.mark.parametrize(
    ("name", "classes", "settings", "reason"),
    [
        ("dist", 1, {}, "always 1"),
        ("dist", 2, {}, "correlation of two numbers"),
        ("dist", 5, {"inter_weight": 0.0, "intra_weight": 0.0}, "has no part"),
        ("rkd", 1, {}, "lie on a line"),
        ("rkd", 5, {"distance_weight": 0.0, "angle_weight": 0.0}, "has no part"),
        ("supcon", 1, {}, "only two of them"),
    ],
)
def test_what_cannot_teach_is_refused_with_its_reason(name: str, classes: int, settings: dict, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        build_one(name, make_shapes(classes), **settings)
    assert reason in refused.value.as_text()


@pytest.mark.parametrize(
    ("name", "shapes", "settings"),
    [
        ("dist", TWO, {"inter_weight": 0.0}),
        ("dist", make_shapes(3), {}),
        ("dist", make_shapes(3), {"intra_weight": 0.0}),
        ("rkd", TWO, {}),
        ("rkd", make_shapes(1), {"angle_weight": 0.0}),
        ("rkd", Shapes({"logits": (2, 2), "features/a": (2, 3, 4, 4)}, {"features/a": (2, 9)}), {"on": "features/a"}),
        ("supcon", TWO, {}),
    ],
)
def test_what_is_left_is_alive(name: str, shapes: Shapes, settings: dict) -> None:
    assert compute_gradient_share(build_one(name, shapes, **settings), shapes) > LEAST_SHARE * 10


def test_the_refused_parts_have_no_gradient_indeed() -> None:
    two = draw(8, 2, spread=1.0).requires_grad_(), draw(8, 2, seed=1, spread=1.0)
    assert take_gradient(compute_dist(*two, 1.0, 1.0, 0.0), two[0]).abs().max() < 1e-5
    of_two_rows = draw(2, 5).requires_grad_(), draw(2, 5, seed=1)
    assert take_gradient(compute_dist(*of_two_rows, 1.0, 0.0, 1.0), of_two_rows[0]).abs().max() < 1e-4
    line = draw(6, 1).requires_grad_(), draw(6, 1, seed=1)
    assert take_gradient(compute_rkd(*line, 0.0, 1.0), line[0]).abs().max() < 1e-6
    pair = draw(2, 4).requires_grad_()
    assert take_gradient(compute_supcon(pair, torch.tensor([1, 1]), 0.1), pair).abs().max() == 0.0


def test_the_rows_that_a_term_needs_are_those_of_its_live_parts() -> None:
    assert build_one("dist", FIVE).least_rows == build_one("rkd", FIVE).least_rows == 3
    assert build_one("supcon", FIVE).least_rows == 3
    assert build_one("dist", FIVE, intra_weight=0.0).least_rows == build_one("kd", FIVE).least_rows == 1
    assert all(build_one(name, FIVE).couples_rows for name in COMPUTE)


def test_an_output_that_the_teacher_lacks_is_refused_with_those_that_it_gives() -> None:
    shapes = Shapes(student={"logits": (2, 5), "embedding": (2, 8)}, teacher={"logits": (2, 5)})
    with pytest.raises(UserError) as refused:
        build_one("rkd", shapes, on="embedding")
    assert "'embedding', which the teacher does not give" in refused.value.as_text()
    build_one("rkd", shapes, on="embedding", of="logits")
    with pytest.raises(UserError, match="averaged weights"):
        build_one("self", Shapes({"features/a": (2, 5)}), on="features/a")
