"""Terms that look like losses and cannot teach two classes are refused before a run begins."""

from dataclasses import replace

import pytest
import torch
from made_terms import TWO, build_one, constant, make_batch, make_shapes
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.build import LEAST_SHARE, build_criterion, check_gradient, compute_gradient_share
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.weighted_sum import WeightedTerm
from torch import Tensor
from torch.nn import functional as F


def compute_non_target_kd(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
    """Decoupled KD's part on the classes that are not the label (Zhao et al. 2022, equation 5)."""
    far = 1000.0 * F.one_hot(batch.targets["label"], outputs["logits"].shape[1])
    return compute_kd(outputs["logits"] - far, teacher_outputs["logits"] - far, 4.0)


def compute_inter_class(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
    """DIST's term between classes (Huang et al. 2022, equation 9): 1 - Pearson's correlation of the probabilities."""
    student, teacher = outputs["logits"].softmax(1), teacher_outputs["logits"].softmax(1)
    student, teacher = (p - p.mean(1, keepdim=True) for p in (student, teacher))
    return 1.0 - F.cosine_similarity(student, teacher, dim=1)


def compute_soft_cross_entropy(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
    return -(teacher_outputs["logits"].softmax(1) * outputs["logits"].log_softmax(1)).sum(1)


def compute_not_finite(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
    return (outputs["logits"] - outputs["logits"].detach()).abs().sqrt().sum(1)


def compute_detached(outputs: Outputs, batch: Batch, teacher_outputs: Outputs) -> Tensor:
    return outputs["logits"].detach().sum(1)


def make_term(compute) -> WeightedTerm:
    return WeightedTerm("made_up", compute, Constant(1.0), source="teacher")


@pytest.mark.parametrize(
    ("compute", "dead_at"),
    [(compute_non_target_kd, 2), (compute_inter_class, 2), (compute_soft_cross_entropy, 1)],
)
def test_a_term_whose_gradient_vanishes_at_few_classes_is_refused_there_and_passes_with_more(
    compute, dead_at: int
) -> None:
    with pytest.raises(UserError, match=f"cannot teach a head of {dead_at} output.*gradient vanishes"):
        check_gradient(make_term(compute), make_shapes(dead_at))
    check_gradient(make_term(compute), make_shapes(5))


@pytest.mark.parametrize("compute", [compute_detached, compute_not_finite])
def test_a_value_without_a_gradient_or_with_one_that_is_not_finite_is_refused(compute) -> None:
    with pytest.raises(UserError, match="'made_up'"):
        check_gradient(make_term(compute), TWO)


def test_a_value_for_the_whole_batch_is_refused_before_a_run_begins() -> None:
    with pytest.raises(ValueError, match=r"'made_up' must give one value for each of the 16 rows .* shape \(\)"):
        check_gradient(make_term(lambda *args: compute_soft_cross_entropy(*args).mean()), TWO)


def test_the_dead_lie_far_below_the_threshold_and_the_living_far_above() -> None:
    dead = [compute_gradient_share(make_term(compute), TWO) for compute in (compute_non_target_kd, compute_inter_class)]
    names = ("hard", "binary", "focal", "kd", "kd_sigmoid", "self")
    alive = [compute_gradient_share(build_one(name), TWO) for name in names]
    assert max(dead) < LEAST_SHARE / 10
    assert min(alive) > LEAST_SHARE * 100


DEAD_AT_TWO = {"dkd", "dist"}  # whose files say why; test_decoupled.py and test_relations.py check their messages


def test_every_registered_term_is_alive_at_two_classes_or_refused_there_with_its_reason() -> None:
    shapes = make_shapes(2, student={"a": (2, 3, 4, 4)}, teacher={"a": (2, 5, 8, 8)})
    example = make_batch(16)
    example = replace(example, targets={**example.targets, "heatmap": torch.rand(16, 7, 7)})
    shapes = replace(shapes, student={**shapes.student, "heatmap": (2, 7, 7), "clauses": (2, 5, 8)})
    for name in TERMS:
        section = TermSection(
            name=name,
            term=name,
            weight=constant(1.0),
            choices={"student_layer": "a", "teacher_layer": "a"} if name in ("features", "attention") else {},
        )
        if name in DEAD_AT_TWO:
            with pytest.raises(UserError, match=rf"term '{name}'.*"):
                build_criterion([section], shapes, example)
            section = section.model_copy(update={"numbers": {"inter_weight": constant(0.0)} if name == "dist" else {}})
            shapes_of_it = shapes if name == "dist" else make_shapes(3)
            assert build_criterion([section], shapes_of_it).terms[0].name == name
            continue
        assert [term.name for term in build_criterion([section], shapes, example).terms] == [name]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("name", ["kd", "kd_sigmoid", "self"])
def test_t_squared_keeps_the_soft_terms_alive_over_the_range_of_temperatures(name: str, temperature: float) -> None:
    assert compute_gradient_share(build_one(name, temperature=temperature), TWO) > 1e-3


@pytest.mark.parametrize("size", [(2, 8, 1, 1), (2, 512, 14, 14)], ids=str)
@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_feature_terms_are_alive_at_maps_of_any_size(size: tuple[int, ...], distance: str) -> None:
    shapes = make_shapes(2, student={"a": size}, teacher={"a": size})
    term = build_one("features", shapes, student_layer="a", teacher_layer="a", distance=distance)
    assert compute_gradient_share(term, shapes) > 1e-2


def test_the_check_draws_from_generators_of_its_own_and_leaves_no_gradient() -> None:
    shapes = make_shapes(2, student={"a": (2, 3, 4, 4)}, teacher={"a": (2, 5, 4, 4)})
    before = torch.get_rng_state()
    term = build_one("features", shapes, student_layer="a", teacher_layer="a")
    assert torch.equal(before, torch.get_rng_state())
    assert term.module is not None
    assert all(p.grad is None for p in term.module.parameters())


def test_all_refused_terms_are_reported_together() -> None:
    sections = [TermSection(name=n, term=n, weight=constant(1.0)) for n in ("hard", "kd", "binary")]
    with pytest.raises(UserError) as refused:
        build_criterion(sections, make_shapes(1))
    assert [problem.where for problem in refused.value.problems] == ["term 'hard'", "term 'kd'"]
