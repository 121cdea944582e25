"""The teacher in a step: one forward pass, weights unchanged, always in evaluation mode."""

import copy

import pytest
import torch
from tiny_models import (
    START,
    RecordingSum,
    are_identical,
    compute_weights_hash,
    make_batch,
    make_criterion,
    make_step,
    make_student,
    make_teacher,
)
from torch import nn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def test_the_teacher_runs_once_a_step_on_the_students_very_tensor() -> None:
    teacher, seen = make_teacher(), []
    step = make_step(teacher=teacher)
    step.student.register_forward_pre_hook(lambda _, args, given: seen.append(given["image"]), with_kwargs=True)
    for i in range(3):
        batch = make_batch(i)
        step(batch, START)
        assert len(teacher.model.seen) == i + 1
        assert len(seen) == 2 * (i + 1)
        assert all(tensor is batch.inputs["image"] for tensor in (teacher.model.seen[-1], *seen[-2:]))


def test_stage_1_runs_no_teacher() -> None:
    step = make_step(teacher=None)
    assert step.teacher is None
    assert "kd" not in step(make_batch(), START).terms


def test_pass_2_is_compared_with_the_teachers_outputs_of_pass_1() -> None:
    criterion = RecordingSum(make_criterion().terms, "teacher")
    step = make_step(teacher=make_teacher(), criterion=criterion)
    step(make_batch(), START)
    first, second = criterion.recorded
    assert first is second
    assert not first["logits"].requires_grad


def test_a_frozen_teacher_stays_in_evaluation_mode_whatever_is_called() -> None:
    teacher = make_teacher()
    step = make_step(teacher=teacher)
    step.student.train()
    for ask in (teacher.train, lambda: teacher.train(True), lambda: nn.ModuleList([teacher]).train()):
        ask()
        assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_frozen_teacher_inside_a_student_survives_the_students_train() -> None:
    student = make_student()
    student.teacher = make_teacher()
    student.train()
    assert student.norm.training
    assert not any(module.training for module in student.teacher.modules())


def test_the_teacher_is_the_same_to_the_last_bit_after_training() -> None:
    teacher = make_teacher()
    step = make_step(teacher=teacher)
    before, buffers = compute_weights_hash(teacher), copy.deepcopy(dict(teacher.named_buffers()))
    for i in range(4):
        teacher.train()
        assert step(make_batch(i), START).ok
    assert compute_weights_hash(teacher) == before
    assert are_identical(dict(teacher.named_buffers()), buffers)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_hash_of_weights_notices_one_changed_bit_and_one_changed_counter() -> None:
    student = make_student()
    before = compute_weights_hash(student)
    assert compute_weights_hash(make_student()) == before
    with torch.no_grad():
        student.stem.weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    changed = compute_weights_hash(student)
    student.norm.num_batches_tracked += 1
    assert len({before, changed, compute_weights_hash(student)}) == 3


def test_the_result_says_in_how_many_images_student_and_teacher_prefer_the_same_class() -> None:
    """At the weights of pass 1, whatever the number of micro-batches; None without a teacher."""
    teacher, batch = make_teacher(), make_batch()
    student = make_student()
    student.dropout.p = 0.0
    student.depth.eval()
    wanted = None
    for parts in (1, 2):
        step = make_step(copy.deepcopy(student), teacher=teacher)
        step.student.norm.eval()  # else the parts are normalised by themselves
        step.parts = parts
        if wanted is None:
            said, taught = (model(**batch.inputs)["logits"].argmax(1) for model in (step.student, teacher))
            wanted = float((said == taught).float().mean())
        assert step(batch, START).agreement == pytest.approx(wanted)
    assert make_step(make_student())(batch, START).agreement is None
