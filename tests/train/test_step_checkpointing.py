"""Gradient checkpointing: activations are computed again, nothing else is."""

import copy

import pytest
import timm
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch
from sharpstudent.models.vision import Classifier, EfficientNetClassifier, TimmClassifier
from sharpstudent.train.step import TrainStep
from tiny_models import START, are_identical, build_batch, make_step, take_snapshot
from torch import Tensor, nn


def make_pictures(seed: int, size: int = 32, images: int = 4) -> Batch:
    inputs = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return build_batch(inputs, torch.arange(images) % 2)


def make_timm(name: str) -> Classifier:
    student = TimmClassifier(name, classes=2, dropout=0.3)
    student.backbone = timm.create_model(name, num_classes=0, drop_path_rate=0.4)
    return student


def make_student(name: str) -> Classifier:
    torch.manual_seed(5)
    if name.startswith("efficientnet-"):
        student: Classifier = EfficientNetClassifier(name, classes=2, dropout=0.3)
        student.net._blocks = student.net._blocks[:6]  # enough of them, and a head of their width
        width = student.net._blocks[-1]._bn2.num_features
        student.net._conv_head = nn.Conv2d(width, student.net._conv_head.out_channels, 1, bias=False)
        return student.train()
    return make_timm(name).train()


STUDENTS = ["test_efficientnet", "test_resnet", "tf_efficientnet_lite0", "efficientnet-b0"]


def take_steps(student: Classifier, *, parts: int = 1, rho: float = 0.05, steps: int = 2) -> tuple[TrainStep, list]:
    step = make_step(student, rho=rho, lr=0.01, parts=parts)
    torch.manual_seed(7)
    results = []
    for seed in range(steps):
        results.append(step(make_pictures(seed), START))
        assert results[-1].ok
    return step, results


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(("parts", "rho"), [(1, 0.05), (2, 0.05), (1, 0.0)])
def test_steps_with_checkpointing_are_bit_for_bit_those_without(name: str, parts: int, rho: float) -> None:
    """Losses, gradient norms, weights, statistics, momentum, random states; dropout and stochastic depth are on."""
    student = make_student(name)
    again = copy.deepcopy(student)
    again.enable_gradient_checkpointing()
    whole, results = take_steps(student, parts=parts, rho=rho)
    step = make_step(again, rho=rho, lr=0.01, parts=parts, recomputes=True)
    torch.manual_seed(7)
    assert [step(make_pictures(seed), START) for seed in range(2)] == results
    assert are_identical(take_snapshot(step), take_snapshot(whole))
    counters = {int(b) for key, b in again.named_buffers() if key.endswith("num_batches_tracked")}
    assert counters == {2 * parts}


@pytest.mark.parametrize("name", ["test_efficientnet", "efficientnet-b0"])
def test_blocks_are_really_computed_again(name: str) -> None:
    student = make_student(name)
    student.enable_gradient_checkpointing()
    first = next(
        module for path, module in student.named_modules() if "blocks" in path and isinstance(module, nn.Conv2d)
    )
    calls: list[Tensor] = []
    first.register_forward_hook(lambda *_: calls.append(1))
    assert make_step(student, recomputes=True)(make_pictures(0), START).ok
    assert len(calls) == 4  # two passes, each in forward and in backward


def test_a_step_that_does_not_know_of_the_recomputation_moves_the_statistics_twice() -> None:
    """What the tests above would miss if the second computation moved nothing by itself."""
    student = make_student("test_efficientnet")
    student.enable_gradient_checkpointing()
    take_steps(student, steps=1)
    counters = {int(b) for key, b in student.named_buffers() if key.endswith("num_batches_tracked")}
    assert counters == {1, 2}


def test_an_architecture_that_cannot_is_a_users_mistake() -> None:
    student = TimmClassifier("test_resnet", classes=2, dropout=0.0)
    student.backbone.set_grad_checkpointing = None
    with pytest.raises(UserError, match="gradient_checkpointing"):
        student.enable_gradient_checkpointing()
