"""Half precision: what is computed in it and what is not, the loss scale at work, and learning rate 0."""

import copy
from dataclasses import replace

import pytest
import torch
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from sharpstudent.optim.build import LossScale
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    are_identical,
    make_batch,
    make_full_step,
    make_plain_student,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from torch import Tensor, nn

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def make_half_step(dtype: torch.dtype, *, scale: float = 1024.0, student: nn.Module | None = None) -> TrainStep:
    loss_scale = LossScale("cpu", initial=scale) if dtype == torch.float16 else None
    return make_step(student or make_plain_student(), teacher=make_teacher(), autocast=dtype, loss_scale=loss_scale)


# --- What is computed in which precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_layers_of_student_and_teacher_compute_in_half_and_the_loss_in_fp32(dtype: torch.dtype) -> None:
    step, seen, losses = make_half_step(dtype), [], []
    for model in (step.student, step.teacher.model.net):
        model.head.register_forward_hook(lambda _, args, out: seen.append(out.dtype))

    def compute(outputs, batch: Batch, teacher_outputs) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        losses.append(outputs["logits"].dtype)
        return nn.functional.cross_entropy(outputs["logits"], batch.targets["label"], reduction="none")

    step.criterion = WeightedSum([WeightedTerm("hard", compute, Constant(1.0), source="teacher")])
    assert step(make_batch(), START).ok
    assert seen == [dtype] * 3  # the teacher once, the student twice
    assert losses == [torch.float32] * 2


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_weights_gradients_and_momentum_stay_in_fp32(dtype: torch.dtype) -> None:
    step, grads = make_half_step(dtype), []
    step.optimizer.base_optimizer.register_step_pre_hook(
        lambda *_: grads.extend(p.grad.dtype for p in step.student.parameters())
    )
    assert step(make_batch(), START).ok
    state = [value for entry in step.optimizer.base_optimizer.state.values() for value in entry.values()]
    assert set(grads) == {p.dtype for p in step.student.parameters()} == {t.dtype for t in state} == {torch.float32}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=str)
def test_a_step_in_half_precision_is_close_to_that_in_fp32_and_not_the_same(
    dtype: torch.dtype, tolerance: float
) -> None:
    whole, half = make_step(make_plain_student(), teacher=make_teacher()), make_half_step(dtype)
    one, other = whole(make_batch(), START), half(make_batch(), START)
    assert other.loss == pytest.approx(one.loss, rel=tolerance)
    assert other.perturbed_loss == pytest.approx(one.perturbed_loss, rel=tolerance)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=5 * tolerance)
    assert other.loss != one.loss
    for p, q in zip(whole.student.parameters(), half.student.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1.0, 2.0**10, 2.0**14])
def test_the_loss_scale_shows_in_no_number_of_the_result(scale: float) -> None:
    wanted = make_half_step(torch.float16, scale=64.0)(make_batch(), START)
    result = make_half_step(torch.float16, scale=scale)(make_batch(), START)
    assert result.loss == wanted.loss
    assert result.perturbed_loss == pytest.approx(wanted.perturbed_loss, rel=1e-3)
    assert result.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-2)


def test_clipping_limits_the_true_gradient_and_not_the_scaled_one() -> None:
    step = make_half_step(torch.float16, scale=4096.0)
    step.clip_norm, norms = 0.01, []
    step.optimizer.base_optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.cat([p.grad.flatten() for p in step.student.parameters()]).norm().item())
    )
    result = step(make_batch(), START)
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    assert 0.01 < result.grad_norm < 10.0


# --- The loss scale -------------------------------------------------------------------------------------------------


def make_overflowing_step(scale: float) -> TrainStep:
    return make_half_step(torch.float16, scale=scale)


def test_a_scale_that_is_far_too_large_comes_down_step_by_step_and_then_the_step_learns() -> None:
    step, batch = make_overflowing_step(2.0**40), make_batch()
    before = take_snapshot(step)
    skipped = 0
    while not (result := step(batch, START)).ok:
        skipped += 1
        assert result.is_overflow
        assert step.loss_scale.value == 2.0 ** (40 - skipped)
        left = take_snapshot(step)
        left["loss_scale"] = before["loss_scale"]
        assert are_identical(left, before)
        assert skipped < 40
    assert skipped > 10
    results = [step(batch, START) for _ in range(30)]
    assert sum(not later.ok for later in results) <= 3  # it stands at the edge, and may have to come down once more
    assert results[-1].loss < 0.9 * result.loss
    assert step.loss_scale.value <= 2.0 ** (40 - skipped)


def test_the_scale_grows_after_2000_steps_that_were_taken() -> None:
    step = make_half_step(torch.float16, scale=8.0)
    step.loss_scale.load_state_dict({**step.loss_scale.state_dict(), "_growth_tracker": 1998})
    assert step(make_batch(0), START).ok
    assert step.loss_scale.value == 8.0
    assert step(make_batch(1), START).ok
    assert step.loss_scale.value == 16.0


@pytest.mark.parametrize("count", [0, 1999])
def test_an_input_that_is_not_finite_does_not_touch_the_scale(count: int) -> None:
    step, batch = make_half_step(torch.float16), make_batch()
    step.loss_scale.load_state_dict({**step.loss_scale.state_dict(), "_growth_tracker": count})
    before = step.loss_scale.state_dict()
    batch.inputs["image"][0] = float("inf")
    result = step(batch, START)
    assert (result.status, result.is_overflow) == ("skipped", False)
    assert step.loss_scale.state_dict() == before


def test_activations_out_of_range_are_no_matter_of_the_scale() -> None:
    """fp16 ends at 65504: a smaller loss scale would not help, so it stays."""
    student = make_plain_student()
    with torch.no_grad():
        student.head.weight.fill_(1e6)
    result = (step := make_half_step(torch.float16, student=student))(make_batch(), START)
    assert (result.reason, result.is_overflow) == ("the loss of pass 1 is not finite", False)
    assert step.loss_scale.value == 1024.0


# --- Learning rate 0 ------------------------------------------------------------------------------------------------


def run_at_zero(step: TrainStep, batches: list[Batch]) -> None:
    step.optimizer.set_lr(0.0)
    before = copy.deepcopy(dict(step.student.named_parameters()))
    for i in range(100):
        assert step(batches[i % len(batches)], START).ok
    assert are_identical(dict(step.student.named_parameters()), before)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("asam", [False, True])
def test_at_learning_rate_zero_a_hundred_steps_leave_the_weights_bit_identical(asam: bool, parts: int) -> None:
    run_at_zero(make_step(asam=asam, rho=0.5, parts=parts), [make_batch(i) for i in range(5)])


@pytest.mark.parametrize("asam", [False, True])
def test_at_learning_rate_zero_a_hundred_steps_of_a_bf16_model_leave_the_weights_bit_identical(asam: bool) -> None:
    student = make_student().to(torch.bfloat16)
    batches = [make_batch(i) for i in range(5)]
    halves = [replace(b, inputs={"image": b.inputs["image"].bfloat16()}) for b in batches]
    run_at_zero(make_step(student, asam=asam, rho=0.5, parts=2), halves)


def test_at_learning_rate_zero_a_hundred_steps_with_everything_on_leave_the_weights_bit_identical() -> None:
    run_at_zero(make_full_step(), [make_batch(i) for i in range(5)])
