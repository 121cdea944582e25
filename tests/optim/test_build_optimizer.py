"""From the optimiser section to SAM: which base, which groups, which learning rate."""

import pytest
import torch
from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.core.schedules import Progress
from sharpstudent.optim.build import build_lr_schedule, build_optimizer, build_rho_schedule, group_parameters
from torch import nn

SECTION = OptimizerSection(
    base="sgd", lr=0.2, momentum=0.8, weight_decay=0.1, rho=0.03, clip_norm=1.0, flat=0.75, warmup=0.0
)


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weights_are_decayed_and_biases_and_norm_layers_are_not() -> None:
    model = make_model()
    decayed, plain = group_parameters(model, weight_decay=0.1)
    assert [p.shape for p in decayed["params"]] == [model[0].weight.shape, model[3].weight.shape]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(p) for p in plain["params"]}
    assert names == {id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[3].bias)}


def test_frozen_parameters_are_in_no_group_and_an_empty_group_is_left_out() -> None:
    model = make_model()
    model[0].requires_grad_(False)
    model[3].weight.requires_grad_(False)
    groups = group_parameters(model, weight_decay=0.1)
    assert len(groups) == 1
    assert len(groups[0]["params"]) == 3


def test_weight_decay_shrinks_weights_only() -> None:
    model = make_model()
    optimizer = build_optimizer(SECTION, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        shrunk = before[name] * (1 - 0.2 * 0.1) if p.ndim > 1 else before[name]
        torch.testing.assert_close(p.detach(), shrunk)


def test_every_parameter_that_learns_is_reached() -> None:
    model = make_model()
    assert {id(p) for p in build_optimizer(SECTION, model).parameters} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(("base", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_section_chooses_the_base_its_settings_and_the_radius(base: str, kind: type) -> None:
    optimizer = build_optimizer(SECTION.model_copy(update={"base": base}), make_model())
    assert isinstance(optimizer.base_optimizer, kind)
    assert optimizer.rho == 0.03
    for group in optimizer.base_optimizer.param_groups:
        assert group["lr"] == 0.2
        if base == "sgd":
            assert group["momentum"] == 0.8


def test_the_learning_rate_of_the_schedule_reaches_every_group_and_the_step() -> None:
    model = make_model()
    schedule = build_lr_schedule(SECTION)
    optimizer = build_optimizer(SECTION.model_copy(update={"weight_decay": 0.0, "momentum": 0.0}), model)
    rates = []
    for epoch in (1, 3, 4):
        lr = schedule(Progress(epoch=epoch, step=5, epochs=4, steps_per_epoch=10))
        optimizer.set_lr(lr)
        assert {group["lr"] for group in optimizer.base_optimizer.param_groups} == {lr}
        before = model[3].weight.detach().clone()
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        torch.testing.assert_close(before - model[3].weight.detach(), torch.full((2, 4), lr))
        rates.append(lr)
    assert rates == pytest.approx([0.2, 0.2, 0.2 * (1 - 35 / 40) / 0.25])


def test_the_learning_rate_rises_over_the_warmup() -> None:
    schedule = build_lr_schedule(SECTION.model_copy(update={"warmup": 0.5}))
    rates = [schedule(Progress(1, step, 1, 4)) for step in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("changes", "radii"),
    [
        ({}, [0.03] * 4),
        ({"rho_warmup": 0.5}, [0.015, 0.03, 0.03, 0.03]),
        ({"rho_end": 0.0}, [0.03, 0.0225, 0.015, 0.0075]),
        ({"rho_end": 0.05, "rho_warmup": 0.5}, [0.015, 0.03, 0.03, 0.04]),
    ],
)
def test_the_radius_follows_the_section(changes: dict[str, float], radii: list[float]) -> None:
    schedule = build_rho_schedule(SECTION.model_copy(update=changes))
    assert [schedule(Progress(1, step, 1, 4)) for step in range(4)] == pytest.approx(radii)


def test_asam_is_switched_on_by_the_section() -> None:
    """Seen in the ascent: under a gradient of ones the elements of a bias move alike, those of weights do not."""
    for asam in (False, True):
        model = make_model()
        optimizer = build_optimizer(SECTION.model_copy(update={"asam": asam}), model)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        before = [p.detach().clone() for p in model.parameters()]
        with optimizer.perturbed(optimizer.compute_grad_norm()):
            moved = [(p.detach() - q).std() for p, q in zip(model.parameters(), before, strict=True)]
        names = [name for name, _ in model.named_parameters()]
        uneven = {name for name, spread in zip(names, moved, strict=True) if spread > 1e-5}
        assert uneven == ({"0.weight", "3.weight"} if asam else set())
