"""A model is held near its start: the pull is the gradient of a / 2 ||w - w0||^2, the average (1 - s) w + s w0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sharpstudent.optim.sam import SAM
from sharpstudent.optim.start_weights import StartWeights
from tiny_models import are_identical, make_student
from torch import Tensor, nn


def make_scalar(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, value)
    return layer


def step_on_quadratic(
    layer: nn.Module, start: StartWeights, optimizer: SAM, *, curvature: float, target: float
) -> None:
    """One step on c / 2 (w - b)^2."""
    (weight,) = layer.parameters()
    weight.grad = curvature * (weight.detach() - target)
    start.pull_back(optimizer)
    optimizer.step()


def sgd(layer: nn.Module, lr: float, momentum: float = 0.0) -> SAM:
    return SAM(torch.optim.SGD(layer.parameters(), lr=lr, momentum=momentum), rho=0.0)


def test_one_step_of_sgd_follows_the_gradient_of_both_quadratics() -> None:
    """w - lr (c (w - b) + a (w - w0)), by hand: 2 - .1 (3 (2 - 5) + 4 (2 - 1)) = 2.5."""
    layer = make_scalar(1.0)
    start = StartWeights(layer, pull=4.0)
    nn.init.constant_(layer.weight, 2.0)  # type: ignore[arg-type]
    step_on_quadratic(layer, start, sgd(layer, 0.1), curvature=3.0, target=5.0)
    assert layer.weight.item() == pytest.approx(2.5, abs=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_ends_where_both_gradients_cancel(momentum: float) -> None:
    """The minimum of c / 2 (w - b)^2 + a / 2 (w - w0)^2 is (c b + a w0) / (c + a)."""
    layer = make_scalar(1.0)
    start, optimizer = StartWeights(layer, pull=4.0), sgd(layer, 0.01, momentum)
    for _ in range(2000):
        step_on_quadratic(layer, start, optimizer, curvature=3.0, target=5.0)
    assert layer.weight.item() == pytest.approx((3 * 5 + 4 * 1) / 7, abs=1e-9)  # type: ignore[arg-type]


def test_the_pull_is_the_gradient_of_the_declared_penalty_over_all_weights_that_learn() -> None:
    student = make_student()
    student.stem.weight.requires_grad_(False)
    start = StartWeights(student, pull=0.3)
    learn = [p for p in student.parameters() if p.requires_grad]
    old = [p.detach().clone() for p in learn]
    torch.manual_seed(1)
    with torch.no_grad():
        for p in learn:
            p.add_(torch.randn_like(p))
    penalty: Tensor = sum(0.15 * (p - w0).square().sum() for p, w0 in zip(learn, old, strict=True))  # type: ignore[assignment]
    wanted = torch.autograd.grad(penalty, learn)
    for p in learn:
        p.grad = torch.zeros_like(p)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    start.pull_back(sgd(student, 0.1))
    for p, gradient in zip(learn, wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    assert student.stem.weight.grad is None
    assert are_identical(before, dict(student.state_dict()))  # the statistics of BatchNorm among them


@pytest.mark.parametrize(("pull", "left"), [(5.0, 0.5), (1000.0, 0.0)])
def test_with_adamw_the_pull_is_decoupled_and_never_passes_the_start(pull: float, left: float) -> None:
    """w - lr a (w - w0), whatever the gradients were before; with lr a above 1 the weight is back at w0."""
    layer = make_scalar(1.0)
    start = StartWeights(layer, pull=pull)
    nn.init.constant_(layer.weight, 3.0)  # type: ignore[arg-type]
    optimizer = SAM(torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0), rho=0.0)
    step_on_quadratic(layer, start, optimizer, curvature=0.0, target=0.0)
    assert layer.weight.item() == pytest.approx(1.0 + 2.0 * left, abs=1e-12)  # type: ignore[arg-type]


def test_a_pull_of_zero_touches_nothing() -> None:
    layer = make_scalar(1.0)
    start = StartWeights(layer, share=0.5)
    nn.init.constant_(layer.weight, 3.0)  # type: ignore[arg-type]
    (weight,) = layer.parameters()
    weight.grad = torch.full_like(weight, 0.25)
    start.pull_back(sgd(layer, 0.1))
    assert float(weight.grad) == 0.25


def test_the_average_is_of_weights_and_statistics_and_changes_neither_of_the_two() -> None:
    student = make_student()
    start = StartWeights(student, share=0.25)
    old: dict[str, Any] = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor.add_(1)
    new: dict[str, Any] = copy.deepcopy(student.state_dict())
    mixed = start.mix(student)
    for name, tensor in mixed.state_dict().items():
        wanted = 0.75 * new[name] + 0.25 * old[name] if tensor.is_floating_point() else new[name]
        torch.testing.assert_close(tensor, wanted)
    assert "norm.running_var" in old
    assert "norm.num_batches_tracked" in old
    assert not mixed.training
    assert are_identical(dict(student.state_dict()), new)
    assert are_identical(dict(start.state_dict()), old)


def test_without_a_share_the_model_itself_is_kept() -> None:
    student = make_student()
    assert StartWeights(student, pull=1.0).mix(student) is student


@pytest.mark.parametrize("settings", [{"pull": -1.0}, {"share": 1.0}, {"share": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a start pulls"):
        StartWeights(make_student(), **settings)
