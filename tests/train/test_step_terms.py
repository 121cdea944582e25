"""Terms beyond hard and kd in a step: which models run, what the criterion itself learns, and where its state goes."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.checkpoint.store import Checkpoint
from sharpstudent.config.run_config import RunConfig, TermSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import capture_rng_state
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Outputs
from sharpstudent.criterion.build import build_criterion
from sharpstudent.criterion.section import Shapes
from sharpstudent.models.hooks import find_feature_hooks
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble
from sharpstudent.models.vision import Classifier
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import build_optimizer
from sharpstudent.train.build import build_step, hook_layers
from sharpstudent.train.debug.nan_inspector import inspect_step
from sharpstudent.train.state import capture_step, refuse_other_model, restore_step
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    RecordingSum,
    are_identical,
    make_batch,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from tiny_runs import TinyTask, make_config
from torch import Tensor, nn

CPU = torch.device("cpu")
TWO = Shapes(student={"logits": (2, 2)}, teacher={"logits": (2, 2)})
LAYERS = {"student_layer": "stem", "teacher_layer": "branch"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def constant(value: float) -> Constant:
    return Constant(value)


def make_section(term: str, weight: float = 0.5, **choices: str) -> TermSection:
    return TermSection(name=term, term=term, weight=constant(weight), choices=choices)


class TappedStudent(Classifier):
    """Two layers that can be tapped, BatchNorm, dropout and a head."""

    def __init__(self, width: int = 6, *, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.branch = nn.Conv2d(width, width, 2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, classes)

    def compute_logits(self, image: Tensor) -> Tensor:
        x = self.branch(torch.relu(self.norm(self.stem(image))))
        return self.head(self.dropout(torch.relu(x).mean((2, 3))))

    def get_features(self, image: Tensor) -> Tensor:
        return self.branch(torch.relu(self.norm(self.stem(image))))

    def enable_gradient_checkpointing(self) -> None:
        raise AssertionError("no test of this file needs it")


class FakeTeacher(FrozenTeacher):
    """Returns the features of its layers, in evaluation mode."""

    def __init__(self, width: int = 5) -> None:
        super().__init__(TappedStudent(width))
        self.poison: float = 1.0

    def forward(self, **inputs: Tensor) -> Outputs:
        outputs = super().forward(**inputs)
        return {name: value * (1.0 if name == "logits" else self.poison) for name, value in outputs.items()}


def make_config_of(*sections: TermSection, **keys: Any) -> RunConfig:
    return make_config(**keys).model_copy(update={"criterion": sections})


def build(*sections: TermSection, seed: int = 3, teacher: nn.Module | None = None, **keys: Any) -> TrainStep:
    """A step as a script builds it, on tapped models."""
    torch.manual_seed(seed)
    student = TappedStudent().train()
    teacher = FakeTeacher() if teacher is None else teacher
    return build_step(make_config_of(*sections, **keys), student, teacher, CPU, task=TinyTask())


def make_self_step(student: nn.Module | None = None, weight: float = 0.4, **settings: Any) -> TrainStep:
    student = make_student() if student is None else student
    average = WeightAverage(student, decay=0.9)
    with torch.no_grad():  # not the student's own weights, or there is nothing to learn
        for tensor in average.tensors[:3]:
            tensor.add_(0.3)
    criterion = build_criterion([make_section("hard", 0.6), make_section("self", weight)], TWO)
    return make_step(student, criterion=criterion, average=average, **settings)


def make_numbered(term: str, *, numbers: dict[str, float] | None = None, **choices: str) -> TermSection:
    section = make_section(term, **choices)
    return section.model_copy(update={"numbers": {name: constant(value) for name, value in (numbers or {}).items()}})


NEW_TERMS = {
    "dist": make_numbered("dist", numbers={"inter_weight": 0.0}),
    "rkd": make_numbered("rkd", on="features/branch", of="features/stem"),
    "supcon": make_numbered("supcon", on="features/stem"),
    "embedding": make_numbered("embedding", on="features/branch"),
    "attention": make_numbered("attention", student_layer="branch", teacher_layer="stem"),
}


@pytest.mark.parametrize("name", NEW_TERMS)
def test_a_term_on_layers_learns_within_the_transaction_and_its_step_can_be_resumed(name: str) -> None:
    step = build(make_section("hard"), NEW_TERMS[name])
    assert step(make_batch(0), START).terms[name] > 0.0
    state = copy.deepcopy(capture_step(step, CPU))
    expected = step(make_batch(1), START)
    resumed = build(make_section("hard"), NEW_TERMS[name], seed=99, teacher=step.teacher)
    restore_step(resumed, state)
    assert resumed(make_batch(1), START) == expected
    assert are_identical(take_snapshot(resumed), take_snapshot(step))


@pytest.mark.parametrize("name", ["dist", "rkd", "supcon"])
def test_a_batch_of_too_few_rows_for_a_term_is_refused_with_a_size_that_works(name: str) -> None:
    with pytest.raises(UserError) as refused:
        build(make_section("hard"), NEW_TERMS[name], batch_size=2)
    text = refused.value.as_text()
    assert all(part in text for part in (f"'{name}'", "3 rows or more", "--set stage2.batch_size=3"))
    build(make_section("hard"), NEW_TERMS[name], batch_size=3)


# --- Who is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
def test_the_average_runs_once_a_micro_batch_in_evaluation_mode_without_a_graph(parts: int) -> None:
    step = make_self_step(parts=parts)
    assert step.average is not None
    seen: list[tuple[bool, bool, bool]] = []
    step.average.model.register_forward_hook(
        lambda module, _, out: seen.append(
            (any(m.training for m in module.modules()), out["logits"].requires_grad, torch.is_grad_enabled())
        )
    )
    buffers = copy.deepcopy(dict(step.average.model.named_buffers()))
    step.average.update = lambda student: None  # type: ignore[method-assign]
    assert step(make_batch(), START).ok
    assert seen == [(False, False, False)] * parts
    assert are_identical(dict(step.average.model.named_buffers()), buffers)


def test_both_passes_learn_from_the_averages_outputs_before_the_step() -> None:
    step = make_self_step()
    assert step.average is not None
    expected = step.average.model(**make_batch().inputs)["logits"]
    criterion = step.criterion = RecordingSum(step.criterion.terms, "ema")
    result = step(make_batch(), START)
    assert list(result.terms) == ["hard", "self"]
    first, second = criterion.recorded
    assert first is second
    torch.testing.assert_close(first["logits"], expected)


def test_the_average_draws_no_random_number_and_does_not_run_at_a_weight_of_0() -> None:
    states = []
    for weight in (0.0, None):
        torch.manual_seed(7)
        step = make_self_step(weight=weight) if weight is not None else make_self_step()
        if weight is None:
            step.criterion = build_criterion([make_section("hard", 0.6)], TWO)
        step.average.model.register_forward_hook(lambda *_: pytest.fail("asked"))  # type: ignore[union-attr]
        for i in range(3):
            assert step(make_batch(i), START).ok
        states.append(take_snapshot(step))
    assert are_identical(*states)
    torch.manual_seed(7)
    asked = make_self_step()
    for i in range(3):
        assert asked(make_batch(i), START).ok
    assert are_identical(capture_rng_state(), states[0]["rng"])
    assert not are_identical(asked.student.state_dict(), states[0]["student"])


def test_an_average_with_outputs_that_are_not_finite_skips_the_step_and_is_named() -> None:
    step = make_self_step()
    assert step.average is not None
    step.average.model.register_forward_hook(lambda _, args, out: {**out, "logits": out["logits"] / 0})
    before = take_snapshot(step)
    result = step(make_batch(), START)
    assert (result.status, result.reason) == ("skipped", "the averaged student's logits are not finite")
    assert are_identical(take_snapshot(step), before)


def test_a_missing_average_is_named() -> None:
    step = make_self_step()
    step.average = None
    with pytest.raises(ValueError, match=r"'self' has weight 0\.4, but there are no outputs of the averaged student"):
        step(make_batch(), START)


def test_teacher_and_average_both_run_where_terms_read_both() -> None:
    sections = [make_section("hard"), make_section("kd"), make_section("self")]
    step = replace(make_self_step(), teacher=make_teacher(), criterion=build_criterion(sections, TWO))
    assert list(step(make_batch(), START).terms) == ["hard", "kd", "self"]
    assert len(step.teacher.model.seen) == 1  # type: ignore[union-attr]


def test_inspecting_a_step_shows_the_averages_logits_and_changes_nothing() -> None:
    results, states = [], []
    for look in (False, True):
        torch.manual_seed(7)
        step = make_self_step()
        if look:
            seen = inspect_step(step, make_batch(), START)
            assert seen.average_outputs.shape == (8, 2)
            assert seen.average_fault is None
            results.append(seen.result)
        else:
            results.append(step(make_batch(), START))
        states.append(take_snapshot(step))
    assert results[0] == results[1]
    assert are_identical(*states)


# --- What the criterion itself learns -------------------------------------------------------------------------------


def test_the_projection_learns_in_a_group_of_its_own_and_is_no_part_of_the_student() -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS))
    plain = build(make_section("hard"))
    assert step.student.state_dict().keys() == plain.student.state_dict().keys()
    sizes = [[len(g["params"]) for g in s.optimizer.state_dict()["base"]["param_groups"]] for s in (plain, step)]
    assert sizes == [[3, 5], [3, 5, 1, 1]]
    weight = step.criterion.module["features"].weight
    assert tuple(weight.shape) == (5, 6, 1, 1)
    before = weight.detach().clone()
    result = step(make_batch(), START)
    assert result.ok
    assert list(result.terms) == ["hard", "features"]
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("asam", [False, True])
def test_sam_moves_the_projection_with_the_student(asam: bool) -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS), asam=asam, rho=0.5)
    weight = step.criterion.module["features"].weight
    seen: list[Tensor] = []
    step.criterion.module["features"].register_forward_hook(lambda m, *_: seen.append(m.weight.detach().clone()))
    before = weight.detach().clone()
    assert step(make_batch(), START).ok
    assert torch.equal(seen[0], before)
    assert not torch.equal(seen[1], before)


def test_a_step_that_fails_restores_the_projection() -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS), lr=3e38)
    step.clip_norm = 1e9
    step.criterion.module["features"].weight.register_hook(lambda gradient: gradient * 1e6)
    weight = step.criterion.module["features"].weight
    before = weight.detach().clone()
    state = take_snapshot(step)
    result = step(make_batch(), START)
    assert result.reason == "the updated weights are not finite"
    assert torch.equal(weight, before)
    assert are_identical(take_snapshot(step), state)


def test_feature_maps_of_the_teacher_that_are_not_finite_skip_the_step_with_the_reason() -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS))
    step.teacher.poison = float("inf")  # type: ignore[union-attr]
    assert step(make_batch(), START).reason == "the teacher's feature maps are not finite"


def test_a_feature_term_of_weight_0_changes_no_bit_of_the_student() -> None:
    states = []
    for extra in ([], [make_section("features", 0.0, **LAYERS)]):
        step = build(make_section("hard", 1.0), *extra)
        for i in range(3):
            assert step(make_batch(i), START).ok
        states.append((step.student.state_dict(), capture_rng_state()))
    assert are_identical(*states)


def test_micro_batches_and_half_precision_reach_the_projection() -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS), precision="bf16")
    step.parts = 3
    kinds: list[torch.dtype] = []
    step.criterion.module["features"].register_forward_hook(lambda _, args, out: kinds.append(out.dtype))
    assert step(make_batch(), START).ok
    assert kinds == [torch.float32] * 6


# --- How it is built ------------------------------------------------------------------------------------------------


def test_measuring_the_layers_of_the_models_changes_nothing() -> None:
    student, teacher = TappedStudent().train(), FakeTeacher()
    student.dropout.eval()  # a mode of its own, to be left as it is
    before = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    rng, modes = capture_rng_state(), [m.training for m in student.modules()]
    shapes = hook_layers([make_section("features", **LAYERS)], student, teacher, TinyTask().example_batch(2))
    assert shapes == Shapes(
        student={"logits": (2, 2), "features/stem": (2, 6, 4, 4)},
        teacher={"logits": (2, 2), "features/branch": (2, 5, 3, 3)},
        rows=2,
    )
    assert are_identical((student.state_dict(), teacher.state_dict()), before)
    assert are_identical(capture_rng_state(), rng)
    assert [m.training for m in student.modules()] == modes


def test_feature_hooks_fit_the_teachers_of_this_project() -> None:
    for count, layer in ((1, "branch"), (2, "2.branch")):
        teacher = TeacherEnsemble([FrozenTeacher(TappedStudent(5)) for _ in range(count)])
        step = build(
            make_section("hard"), make_section("features", student_layer="stem", teacher_layer=layer), teacher=teacher
        )
        assert list(step(make_batch(), START).terms) == ["hard", "features"]


def test_a_run_without_feature_terms_hooks_no_layer() -> None:
    step = build(make_section("hard"), make_section("kd"))
    assert find_feature_hooks(step.student) is None
    assert find_feature_hooks(step.teacher.model) is None


def test_terms_that_cannot_teach_the_students_head_are_refused_when_the_step_is_built() -> None:
    with pytest.raises(UserError, match="always 1"):
        build_step(make_config_of(make_section("hard")), TappedStudent(classes=1), None, CPU, task=TinyTask())
    build_step(make_config_of(make_section("binary")), TappedStudent(classes=1), None, CPU, task=TinyTask())


# --- Its state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_run_that_goes_on_from_its_state_is_bit_identical(base: str) -> None:
    sections = make_section("hard"), make_section("features", **LAYERS), make_section("self")
    whole = build(*sections, base=base, ema_decay=0.9)
    assert whole(make_batch(0), START).ok
    state = copy.deepcopy(capture_step(whole, CPU))
    assert list(state["criterion"]) == ["features.weight", "features.bias"]
    other = build(*sections, base=base, ema_decay=0.9)
    other.student.train()
    other.teacher.load_state_dict(whole.teacher.state_dict())  # type: ignore[union-attr]
    restore_step(other, state)
    torch.set_rng_state(state["rng"]["torch"])
    results = []
    for step in (whole, other):
        restore_step(step, copy.deepcopy(state))
        results.append([step(make_batch(i), START) for i in (1, 2)])
    assert results[0] == results[1]
    assert are_identical(capture_step(whole, CPU), capture_step(other, CPU))


def test_without_projections_the_state_has_no_such_part() -> None:
    step = build(make_section("hard"), make_section("kd"))
    assert set(capture_step(step, CPU)) == {"model", "optimizer", "rng"}


def test_a_state_of_another_projection_is_refused() -> None:
    step = build(make_section("hard"), make_section("features", **LAYERS))
    other = build(make_section("hard"), make_section("features", **LAYERS), teacher=FakeTeacher(width=8))
    about = {"architecture": "tiny", "classes": 2}
    state = Checkpoint(capture_step(other, CPU), about, ())
    with pytest.raises(UserError, match=r"projection features\.weight: \(8, 6, 1, 1\) in the file, \(5, 6, 1, 1\)"):
        refuse_other_model(state, step, about, Path("run"))
    refuse_other_model(Checkpoint(capture_step(step, CPU), about, ()), step, about, Path("run"))


def test_the_groups_of_the_extra_module_follow_those_of_the_model() -> None:
    config = make_config(weight_decay=0.1, asam=True).optimizer
    model, extra = nn.Linear(3, 2), nn.Conv2d(3, 4, 1)
    optimizer = build_optimizer(config, model, extra=extra)
    expected = [[model.weight], [model.bias], [extra.weight], [extra.bias]]
    groups = optimizer.base_optimizer.param_groups
    assert [[id(p) for p in g["params"]] for g in groups] == [[id(p) for p in g] for g in expected]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0, 0.1, 0.0]
    for p in optimizer.parameters:
        p.grad = torch.ones_like(p)
    before = extra.weight.detach().clone()
    with optimizer.perturbed(optimizer.compute_grad_norm()):
        assert (extra.weight.detach() - before).std() > 1e-5  # relative to its size: ASAM reaches it


def test_an_extra_module_without_parameters_adds_no_group() -> None:
    config = make_config().optimizer
    groups = build_optimizer(config, nn.Linear(3, 2), extra=nn.ModuleDict()).base_optimizer.param_groups
    assert len(groups) == 2
