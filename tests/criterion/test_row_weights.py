"""How rows count: a term is the mean over the rows that weigh anything, however a batch is split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_terms import START, TWO, build_one, draw, make_batch, make_section, make_shapes, take_gradient
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch
from sharpstudent.criterion.build import build_criterion, check_gradient
from sharpstudent.criterion.classification import compute_cross_entropy
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from torch import Tensor


def make_weighted(**weights: Sequence[float]) -> Batch:
    """A batch of as many rows as there are weights."""
    batch = make_batch(len(next(iter(weights.values()))))
    return replace(batch, weights={name: torch.tensor(values) for name, values in weights.items()})


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_k_parts_equal_one_batch_whatever_their_rows_weigh(parts: list[list[float]], seed: int) -> None:
    """Value and gradient. A share of rows would be wrong here, and a mean of a part that weighs nothing is 0 / 0."""
    batch = make_weighted(label=[weight for part in parts for weight in part])
    criterion = build_criterion([make_section("hard", weight=0.7), make_section("kd", weight=0.3, where="label")], TWO)
    logits, teacher = draw(len(batch), seed=seed), draw(len(batch), seed=seed + 100)
    whole, split = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = criterion({"logits": whole}, batch, {"teacher": {"logits": teacher}}, START)
    expected.total.backward()
    start, total, pieces = 0, 0.0, []
    for part in parts:
        pieces.append(slice(start, start + len(part)))
        start += len(part)
    totals = criterion.count([batch[rows] for rows in pieces])
    assert totals == {"hard": sum(map(sum, parts)), "kd": sum(map(sum, parts))}
    for rows in pieces:
        source_outputs = {"logits": teacher[rows]}
        value = criterion({"logits": split[rows]}, batch[rows], {"teacher": source_outputs}, START, totals=totals)
        value.total.backward()
        total += value.total.item()
    assert total == pytest.approx(expected.total.item(), rel=5e-6, abs=1e-6)
    torch.testing.assert_close(split.grad, whole.grad, rtol=1e-5, atol=1e-7)


def test_a_term_is_the_weighted_mean_of_its_rows_as_numpy_computes_it() -> None:
    weights, logits = [1.0, 0.0, 2.5, 0.5], draw(4)
    batch = make_weighted(label=weights)
    criterion = build_criterion([make_section("hard")], TWO)
    rows = compute_cross_entropy(logits, batch.targets["label"]).double().numpy()
    value = criterion({"logits": logits}, batch, {}, START)
    assert value.total.item() == pytest.approx(np.average(rows, weights=weights), rel=1e-6)


def test_no_weight_at_all_gives_0_and_keeps_the_graph() -> None:
    logits = draw(4).requires_grad_()
    value = build_criterion([make_section("hard")], TWO)({"logits": logits}, make_weighted(label=[0.0] * 4), {}, START)
    assert value.total.item() == value.terms["hard"].item() == 0.0
    assert torch.equal(take_gradient(value.total, logits), torch.zeros(4, 2))


def test_a_row_that_weighs_nothing_may_say_anything() -> None:
    """It lacks the target: whatever stands there is no number of this row."""
    logits = torch.tensor([[1.0, -1.0], [float("nan"), float("inf")]]).requires_grad_()
    criterion = WeightedSum([WeightedTerm("sum", lambda o, b, a: o["logits"].sum(1), Constant(1.0), where="label")])
    value = criterion({"logits": logits}, make_weighted(label=[1.0, 0.0]), {}, START)
    assert value.total.item() == 0.0
    assert torch.equal(take_gradient(value.total, logits), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("name", ["hard", "binary", "focal"])
def test_a_term_of_a_target_counts_rows_by_the_weights_of_that_target(name: str) -> None:
    logits, batch = draw(6), make_weighted(label=[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], other=[0.0] * 6)
    kept = [0, 1, 3]
    term = WeightedSum([build_one(name)])
    part = replace(make_batch(3), targets={"label": batch.targets["label"][kept]})
    expected = term({"logits": logits[kept]}, part, {}, START).total
    torch.testing.assert_close(term({"logits": logits}, batch, {}, START).total, expected)


def test_where_names_the_weights_by_which_rows_count() -> None:
    logits, batch = draw(4), make_weighted(label=[1.0] * 4, certain=[1.0, 0.0, 0.0, 1.0])
    rows = compute_cross_entropy(logits, batch.targets["label"])
    value = WeightedSum([build_one("hard", where="certain")])({"logits": logits}, batch, {}, START)
    torch.testing.assert_close(value.total, rows[[0, 3]].mean())
    # Without those weights in the batch every row counts, as the contract of a batch says.
    value = WeightedSum([build_one("hard", where="absent")])({"logits": logits}, batch, {}, START)
    torch.testing.assert_close(value.total, rows.mean())


def test_kd_counts_every_row_unless_where_says_otherwise() -> None:
    student, teacher, batch = draw(4), draw(4, seed=1), make_weighted(label=[1.0, 0.0, 0.0, 0.0])
    source_outputs: Mapping[str, Mapping[str, Tensor]] = {"teacher": {"logits": teacher}}
    rows = compute_kd(student, teacher, 3.0)
    torch.testing.assert_close(
        WeightedSum([build_one("kd")])({"logits": student}, batch, source_outputs, START).total, rows.mean()
    )
    masked = WeightedSum([build_one("kd", where="label")])({"logits": student}, batch, source_outputs, START)
    torch.testing.assert_close(masked.total, rows[0])


def test_on_reads_the_mean_over_all_outputs_that_match() -> None:
    shapes = Shapes(student={"logits": (2, 3), "aux.0": (2, 3), "aux.1": (2, 3)}, teacher={"logits": (2, 3)})
    outputs = {"logits": draw(8, 3), "aux.0": draw(8, 3, seed=1), "aux.1": draw(8, 3, seed=2)}
    batch, teacher = make_batch(8, 3), draw(8, 3, seed=3)
    rows = build_one("hard", shapes, on="aux.*").compute(outputs, batch, None)
    expected = [compute_cross_entropy(outputs[name], batch.targets["label"]) for name in ("aux.0", "aux.1")]
    torch.testing.assert_close(rows, (expected[0] + expected[1]) / 2)
    # Each of them learns from the one output of the teacher.
    rows = build_one("kd", shapes, on="aux.*").compute(outputs, batch, {"logits": teacher}, temperature=2.0)
    expected = [compute_kd(outputs[name], teacher, 2.0) for name in ("aux.0", "aux.1")]
    torch.testing.assert_close(rows, (expected[0] + expected[1]) / 2)


def test_of_names_the_output_of_the_teacher() -> None:
    shapes = Shapes(student={"logits": (2, 3)}, teacher={"logits": (2, 3), "other": (2, 3)})
    term = build_one("kd", shapes, of="other")
    student, teacher, batch = draw(8, 3), {"logits": draw(8, 3, seed=1), "other": draw(8, 3, seed=2)}, make_batch(8, 3)
    rows = term.compute({"logits": student}, batch, teacher, temperature=3.0)
    assert torch.equal(rows, compute_kd(student, teacher["other"], 3.0))
    with pytest.raises(ValueError, match=r"reads 'other' of the teacher, which gives logits"):
        term.compute({"logits": student}, batch, {"logits": teacher["logits"]}, temperature=3.0)


def test_target_names_what_a_term_learns_from() -> None:
    example = make_batch(16)
    example = replace(example, targets={"kind": 1 - example.targets["label"]})
    criterion = build_criterion([make_section("hard", target="kind")], TWO, example)
    logits = draw(16)
    value = criterion({"logits": logits}, example, {}, START)
    assert torch.equal(value.total, compute_cross_entropy(logits, example.targets["kind"]).mean())


@pytest.mark.parametrize("on", ["aux.0", "aux.*", "heatmap"])
def test_an_output_that_the_student_does_not_give_is_refused_with_those_that_it_gives(on: str) -> None:
    with pytest.raises(UserError) as refused:
        build_one("hard", make_shapes(2, student={"a": (2, 3, 4, 4)}), on=on)
    message = refused.value.as_text()
    assert all(part in message for part in ("'hard'", repr(on), "logits, features/a"))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 1, 6, 5)], ids=str)
def test_kd_over_pixels_equals_numpy_in_float64(shape: tuple[int, ...], temperature: float) -> None:
    """Each map is one distribution over its pixels."""
    shapes = Shapes(student={"map": shape}, teacher={"map": shape})
    student, teacher = (3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    term = build_one("kd", shapes, on="map", over="pixels")
    rows = term.compute({"map": student}, make_batch(4), {"map": teacher}, temperature=temperature)

    def take_log_softmax(maps: Tensor) -> np.ndarray:
        scaled = maps.numpy().astype(np.float64).reshape(4, -1) / temperature
        return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)

    p, q = take_log_softmax(teacher), take_log_softmax(student)
    np.testing.assert_allclose(rows.numpy(), temperature**2 * (np.exp(p) * (p - q)).sum(1), rtol=5e-6)


def test_the_heat_map_term_equals_numpy_in_float64_and_half_precision_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target = 3.0 * torch.randn(4, 6, 5, generator=generator), torch.rand(4, 6, 5, generator=generator)
    example = replace(make_batch(4), targets={"heatmap": target})
    shapes = Shapes(student={"heatmap": (2, 6, 5)})
    (term,) = build_criterion([make_section("heatmap")], shapes, example).terms
    rows = term.compute({"heatmap": maps}, example, None)
    z, y = maps.numpy().astype(np.float64), target.numpy().astype(np.float64)
    np.testing.assert_allclose(rows.numpy(), (np.logaddexp(0.0, z) - y * z).mean((1, 2)), rtol=2e-6)
    half = maps.half()
    assert torch.equal(
        term.compute({"heatmap": half}, example, None), term.compute({"heatmap": half.float()}, example, None)
    )
    with pytest.raises(ValueError, match="same number of pixels"):
        term.compute({"heatmap": maps[:, 1:]}, example, None)


def test_a_term_that_couples_rows_is_a_scalar_and_is_taken_as_it_is() -> None:
    def couple(outputs: Mapping[str, Tensor], batch: Batch, teacher_outputs: None) -> Tensor:
        logits = outputs["logits"]
        return (logits @ logits.T).pow(2).mean()

    term = WeightedTerm("coupled", couple, Constant(0.5), couples_rows=True)
    check_gradient(term, TWO)
    logits = draw(6)
    value = WeightedSum([term])({"logits": logits}, make_batch(6), {}, START)
    assert torch.equal(value.terms["coupled"], couple({"logits": logits}, make_batch(6), None))
    assert value.total.item() == pytest.approx(0.5 * value.terms["coupled"].item())
    per_row = replace(term, compute=lambda o, b, a: o["logits"].sum(1))
    with pytest.raises(ValueError, match=r"'coupled' must give one scalar for all of the 6 rows"):
        WeightedSum([per_row])({"logits": logits}, make_batch(6), {}, START)
