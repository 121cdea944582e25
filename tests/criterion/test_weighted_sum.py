"""The weighted sum: absolute weights that follow the run, and a term of weight 0 that is truly absent."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.config.terms import TargetSource
from sharpstudent.core.schedules import Constant, Progress, Schedule, Staircase
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.classification import compute_cross_entropy
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from torch import Tensor, nn

START = Progress(epoch=1, step=0, epochs=30, steps_per_epoch=10)
ALPHA = Staircase(start=0.95, end=0.5, epochs=20)
REST = Staircase(start=0.95, end=0.5, epochs=20, complement=True)


def at_epoch(epoch: int) -> Progress:
    return Progress(epoch=epoch, step=0, epochs=30, steps_per_epoch=10)


def make_batch(images: int = 6) -> Batch:
    names = [f"image {i}" for i in range(images)]
    return Batch(
        inputs={"image": torch.zeros(images, 3, 4, 4)},
        targets={"label": torch.arange(images) % 2},
        rows={"id": names, "group": names},
    )


def draw_outputs(seed: int, images: int = 6) -> Outputs:
    return {"logits": torch.randn(images, 2, generator=torch.Generator().manual_seed(seed)).requires_grad_()}


def hard(weight: Schedule) -> WeightedTerm:
    return WeightedTerm("hard", lambda o, batch, t: compute_cross_entropy(o["logits"], batch.targets["label"]), weight)


def kd(weight: Schedule, temperature: Schedule = Constant(3.0)) -> WeightedTerm:  # noqa: B008
    def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs, *, temperature: float) -> Tensor:
        return compute_kd(outputs["logits"], teacher_outputs["logits"], temperature)

    return WeightedTerm("kd", compute, weight, settings={"temperature": temperature}, source="teacher")


def compute_gradient(criterion: WeightedSum, teacher: Outputs | None, progress: Progress = START) -> Tensor:
    outputs = draw_outputs(0)
    criterion(outputs, make_batch(), {} if teacher is None else {"teacher": teacher}, progress).total.backward()
    assert outputs["logits"].grad is not None
    return outputs["logits"].grad


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 0.95), (11, 0.75), (21, 0.5)])
def test_the_total_is_alpha_hard_plus_the_rest_of_kd(epoch: int, alpha: float) -> None:
    outputs, teacher, batch = draw_outputs(0), draw_outputs(1), make_batch()
    value = WeightedSum([hard(ALPHA), kd(REST)])(outputs, batch, {"teacher": teacher}, at_epoch(epoch))
    cross_entropy = compute_cross_entropy(outputs["logits"], batch.targets["label"]).mean().item()
    distillation = compute_kd(outputs["logits"], teacher["logits"], 3.0).mean().item()
    assert value.total.item() == pytest.approx(alpha * cross_entropy + (1 - alpha) * distillation, rel=1e-6)
    assert {name: term.item() for name, term in value.terms.items()} == {"hard": cross_entropy, "kd": distillation}


def test_the_terms_are_reported_unweighted_and_without_a_graph() -> None:
    value = WeightedSum([hard(Constant(0.5))])(draw_outputs(0), make_batch(), {}, START)
    assert value.total.requires_grad
    assert not value.terms["hard"].requires_grad
    assert value.total.item() == pytest.approx(0.5 * value.terms["hard"].item())


def test_a_single_term_of_weight_1_is_that_term_bit_for_bit() -> None:
    outputs, batch = draw_outputs(0), make_batch()
    total = WeightedSum([hard(Constant(1.0))])(outputs, batch, {}, START).total
    assert torch.equal(total, compute_cross_entropy(outputs["logits"], batch.targets["label"]).mean())


@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_the_gradient_scales_with_the_weight(factor: float) -> None:
    teacher = draw_outputs(1)
    once = compute_gradient(WeightedSum([kd(Constant(1.0))]), teacher)
    scaled = compute_gradient(WeightedSum([kd(Constant(factor))]), teacher)
    torch.testing.assert_close(scaled, factor * once)


def test_both_terms_add_their_gradients() -> None:
    teacher = draw_outputs(1)
    together = compute_gradient(WeightedSum([hard(Constant(0.7)), kd(Constant(0.3))]), teacher)
    apart = compute_gradient(WeightedSum([hard(Constant(0.7))]), None)
    apart = apart + compute_gradient(WeightedSum([kd(Constant(0.3))]), teacher)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
def test_a_term_of_weight_0_changes_neither_total_nor_gradient_whatever_it_says(poison: float) -> None:
    poisoned = WeightedTerm("poisoned", lambda o, b, t: (o["logits"] * poison).sum(1), Constant(0.0))
    batch = make_batch()
    for terms in ([hard(Constant(1.0)), poisoned], [poisoned, hard(Constant(1.0))]):
        with_it = WeightedSum(terms)(draw_outputs(0), batch, {}, START)
        without = WeightedSum([hard(Constant(1.0))])(draw_outputs(0), batch, {}, START)
        assert torch.equal(with_it.total, without.total)
        assert set(with_it.terms) == {"hard"}
        gradient = compute_gradient(WeightedSum(terms), None)
        assert torch.equal(gradient, compute_gradient(WeightedSum([hard(Constant(1.0))]), None))


def test_a_term_of_weight_0_is_not_computed_and_needs_no_teacher() -> None:
    def fail(*arguments: object, **settings: object) -> Tensor:
        raise AssertionError("computed")

    silent = WeightedTerm("kd", fail, Constant(0.0), source="teacher")
    assert set(WeightedSum([hard(Constant(1.0)), silent])(draw_outputs(0), make_batch(), {}, START).terms) == {"hard"}


def test_the_same_arguments_give_the_same_value_in_both_passes_of_sam() -> None:
    criterion = WeightedSum([hard(ALPHA), kd(REST)])
    teacher = draw_outputs(1)
    values = [criterion(draw_outputs(0), make_batch(), {"teacher": teacher}, START).total for _ in range(3)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_the_temperature_follows_its_schedule() -> None:
    outputs, teacher, batch = draw_outputs(0), draw_outputs(1), make_batch()
    falling = Staircase(start=4.0, end=1.0, epochs=8)
    criterion = WeightedSum([kd(Constant(1.0), falling)])
    for epoch, temperature in ((1, 4.0), (9, 1.0)):
        total = criterion(outputs, batch, {"teacher": teacher}, at_epoch(epoch)).total
        assert torch.equal(total, compute_kd(outputs["logits"], teacher["logits"], temperature).mean())
        assert criterion.describe(at_epoch(epoch))["kd/temperature"] == temperature


def test_the_log_gets_weights_and_temperature() -> None:
    criterion = WeightedSum([hard(ALPHA), kd(REST)])
    assert criterion.describe(START) == {"hard/weight": 0.95, "kd/weight": 0.05, "kd/temperature": 3.0}
    assert criterion.describe(at_epoch(21)) == {"hard/weight": 0.5, "kd/weight": 0.5, "kd/temperature": 3.0}


@dataclass(frozen=True)
class Unknown:
    """A schedule of somebody else's."""

    def __call__(self, progress: Progress) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("weight", "needed"),
    [
        (Constant(0.5), True),
        (Constant(0.0), False),
        (Staircase(0.0, 0.0, 5), False),
        (Staircase(0.0, 0.5, 5), True),
        (Constant(1.0, complement=True), False),
        (Staircase(1.0, 1.0, 5, complement=True), False),
        (REST, True),
        (Unknown(), True),
    ],
    ids=str,
)
def test_a_teacher_is_needed_when_kd_can_ever_weigh_anything(weight: Schedule, needed: bool) -> None:
    assert WeightedSum([hard(Constant(1.0)), kd(weight)]).sources == ({"teacher"} if needed else set())


def test_hard_labels_alone_need_no_teacher() -> None:
    assert WeightedSum([hard(Constant(1.0))]).sources == frozenset()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_the_parts_of_a_batch_add_up_to_the_batch_however_it_is_split(sizes: list[int], seed: int) -> None:
    """Value, terms and gradient: a row weighs the same in a large part and in a small one."""
    count, criterion = sum(sizes), WeightedSum([hard(Constant(0.7)), kd(Constant(0.3))])
    teacher, batch = draw_outputs(seed + 100, count), make_batch(count)
    whole, split = draw_outputs(seed, count), draw_outputs(seed, count)
    expected = criterion(whole, batch, {"teacher": teacher}, START)
    expected.total.backward()
    values = []
    for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
        rows = slice(end - size, end)
        sources: dict[TargetSource, Outputs] = {"teacher": {"logits": teacher["logits"][rows]}}
        value = criterion(
            {"logits": split["logits"][rows]}, batch[rows], sources, START, totals=criterion.count([batch])
        )
        value.total.backward()
        values.append(value)
    assert sum(value.total.item() for value in values) == pytest.approx(expected.total.item(), rel=2e-6, abs=1e-7)
    for name, term in expected.terms.items():
        assert sum(value.terms[name].item() for value in values) == pytest.approx(term.item(), rel=2e-6, abs=1e-7)
    assert whole["logits"].grad is not None
    assert split["logits"].grad is not None
    torch.testing.assert_close(split["logits"].grad, whole["logits"].grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("compute", "shape"),
    [
        (lambda o, b, t: o["logits"].mean(), r"\(\)"),
        (lambda o, b, t: o["logits"], r"\(6, 2\)"),
        (lambda o, b, t: o["logits"].sum(1, keepdim=True), r"\(6, 1\)"),
        (lambda o, b, t: o["logits"][:4].sum(1), r"\(4,\)"),
    ],
    ids=["a mean", "a value a class", "a column", "too few"],
)
def test_a_term_that_gives_no_value_a_row_is_refused_by_its_name(compute: Callable[..., Tensor], shape: str) -> None:
    criterion = WeightedSum([hard(Constant(1.0)), WeightedTerm("odd", compute, Constant(0.5))])
    with pytest.raises(ValueError, match=rf"'odd' must give one value for each of the 6 rows .* shape {shape}"):
        criterion(draw_outputs(0), make_batch(), {}, START)


def test_each_term_gets_the_outputs_of_its_source() -> None:
    seen: dict[str, object] = {}

    def make(name: str, source: TargetSource | None) -> WeightedTerm:
        def compute(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None) -> Tensor:
            seen[name] = teacher_outputs
            return outputs["logits"].sum(1)

        return WeightedTerm(name, compute, Constant(1.0), source=source)

    criterion = WeightedSum([make("none", None), make("taught", "teacher"), make("averaged", "ema")])
    teacher, average = draw_outputs(1), draw_outputs(2)
    criterion(draw_outputs(0), make_batch(), {"teacher": teacher, "ema": average}, START)
    assert criterion.sources == {"teacher", "ema"}
    assert (seen["none"], seen["taught"] is teacher, seen["averaged"] is average) == (None, True, True)


def test_a_missing_average_is_named() -> None:
    term = WeightedTerm("self", lambda o, b, a: o["logits"].sum(1), Constant(0.5), source="ema")
    with pytest.raises(ValueError, match=r"'self' has weight 0\.5, but there are no outputs of the averaged student"):
        WeightedSum([term])(draw_outputs(0), make_batch(), {"teacher": draw_outputs(1)}, START)


def test_what_terms_learn_is_kept_by_their_names_and_may_hold_no_buffers() -> None:
    def make(module: nn.Module) -> WeightedSum:
        return WeightedSum(
            [hard(Constant(1.0)), WeightedTerm("own", lambda *_: torch.zeros(6), Constant(1.0), module=module)]
        )

    assert list(make(nn.Linear(2, 3)).module.state_dict()) == ["own.weight", "own.bias"]
    assert list(WeightedSum([hard(Constant(1.0))]).module.state_dict()) == []
    with pytest.raises(ValueError, match="no buffers"):
        make(nn.BatchNorm1d(2))


def test_a_missing_teacher_is_named() -> None:
    with pytest.raises(ValueError, match=r"'kd' has weight 0\.5, but there are no outputs of the teacher"):
        WeightedSum([kd(Constant(0.5))])(draw_outputs(0), make_batch(), {}, START)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight: float) -> None:
    criterion = WeightedSum([hard(Constant(weight))])
    uses: list[Callable[[], object]] = [
        lambda: criterion(draw_outputs(0), make_batch(), {}, START),
        lambda: criterion.describe(START),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="'hard' must be finite and >= 0"):
            use()


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="every term has weight 0 in epoch 1"):
        WeightedSum([hard(Constant(0.0))])(draw_outputs(0), make_batch(), {}, START)


@pytest.mark.parametrize("terms", [[], [hard(Constant(1.0)), hard(Constant(1.0))]], ids=["none", "twice"])
def test_no_terms_or_two_of_one_name_are_refused(terms: list[WeightedTerm]) -> None:
    with pytest.raises(ValueError, match="terms of different names"):
        WeightedSum(terms)
