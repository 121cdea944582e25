"""What one update computes when all is well."""

import copy

import pytest
import torch
from tiny_models import (
    START,
    are_identical,
    make_batch,
    make_criterion,
    make_step,
    make_teacher,
    take_snapshot,
)
from torch import Tensor


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def test_a_step_is_two_passes_at_w_and_at_w_plus_e_and_one_base_step() -> None:
    """Written out again in the fewest words, with torch's own clipping."""
    step = make_step(teacher=make_teacher())
    student, batch = copy.deepcopy(step.student), make_batch()
    sgd = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    logits = step.teacher(**batch.inputs)
    before = torch.get_rng_state()

    def backward() -> Tensor:
        torch.set_rng_state(before)
        student.zero_grad()
        loss = step.criterion(student(batch.inputs["image"]), batch, {"teacher": logits}, START).total
        loss.backward()
        return loss.detach()

    loss = backward()
    buffers = copy.deepcopy(dict(student.named_buffers()))
    weights = [p.detach().clone() for p in student.parameters()]
    norm = torch.cat([p.grad.flatten() for p in student.parameters()]).norm()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(p.grad * (0.05 / norm))
    backward()
    with torch.no_grad():
        for p, saved in zip(student.parameters(), weights, strict=True):
            p.copy_(saved)
    applied = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    sgd.step()

    torch.set_rng_state(before)
    result = step(batch, START)
    assert result.ok
    assert result.loss == pytest.approx(loss.item(), abs=1e-6)
    assert result.grad_norm == pytest.approx(applied.item(), rel=1e-5)
    for p, q in zip(step.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert are_identical(dict(step.student.named_buffers()), buffers)


def test_the_result_names_the_loss_of_pass_1_and_its_terms() -> None:
    result = make_step(teacher=make_teacher())(make_batch(), START)
    assert (result.status, result.reason) == ("ok", None)
    assert list(result.terms) == ["hard", "kd"]
    assert result.loss == pytest.approx(0.6 * result.terms["hard"] + 0.4 * result.terms["kd"], rel=1e-5)


def test_the_step_learns() -> None:
    step, batch = make_step(), make_batch()
    losses = [step(batch, START).loss for _ in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_the_same_steps_from_the_same_state_are_bit_identical(base: str, rho: float) -> None:
    results, states = [], []
    for _ in range(2):
        torch.manual_seed(7)
        step = make_step(teacher=make_teacher(), rho=rho, base=base)
        results.append([step(make_batch(i), START) for i in range(3)])
        states.append(take_snapshot(step))
    assert results[0] == results[1]
    assert are_identical(*states)


def test_at_rho_zero_there_is_one_pass() -> None:
    passes = []
    step = make_step(rho=0.0)
    step.student.register_forward_hook(lambda *_: passes.append(1))
    step(make_batch(), START)
    assert len(passes) == 1


def test_the_gradient_is_clipped_once_after_the_second_pass() -> None:
    step = make_step()
    clips: list[float] = []
    real = step.optimizer.clip
    step.optimizer.clip = lambda norm, limit: (clips.append(float(norm)), real(norm, limit))  # type: ignore
    result = step(make_batch(), START)
    assert clips == [pytest.approx(result.grad_norm)]


def test_a_teacher_whose_weight_is_zero_changes_no_bit_of_the_student() -> None:
    states = []
    for teacher in (None, make_teacher()):
        torch.manual_seed(7)
        step = make_step(teacher=teacher, criterion=make_criterion(hard=1.0, kd=None if teacher is None else 0.0))
        for i in range(3):
            assert step(make_batch(i), START).ok
        states.append(take_snapshot(step))
    assert are_identical(*states)
