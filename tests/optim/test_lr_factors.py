"""The key `lr_factors`: a learning rate of their own for some parameters."""

from __future__ import annotations

import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.optim.build import group_parameters
from sharpstudent.optim.sam import SAM
from torch import nn, optim


def build_model() -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, 1)})


def test_a_factor_multiplies_the_learning_rate_of_the_parameters_that_its_pattern_fits() -> None:
    model = build_model()
    groups = group_parameters(model, weight_decay=0.1, factors={"head.*": 10.0})
    sam = SAM(optim.SGD(groups, lr=1.0), rho=0.0)
    sam.set_lr(0.5)
    rates = {id(p): group["lr"] for group in sam.base_optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in model.named_parameters()} == {
        "body.weight": 0.5,
        "body.bias": 0.5,
        "head.weight": 5.0,
        "head.bias": 5.0,
    }
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0.0, 0.1, 0.0]


def test_without_factors_the_groups_are_what_they_were() -> None:
    model = build_model()
    assert [sorted(group) for group in group_parameters(model, weight_decay=0.1)] == [["params", "weight_decay"]] * 2


def test_a_pattern_that_fits_nothing_is_refused_with_names_that_exist() -> None:
    with pytest.raises(UserError, match=r"(?s)'tail\.\*' fits no parameter.*head\.bias"):
        group_parameters(build_model(), weight_decay=0.0, factors={"tail.*": 2.0})
