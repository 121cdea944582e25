"""The figures of an epoch: the same columns each time, means over the steps taken, the balance of the terms."""

from __future__ import annotations

import pytest
from sharpstudent.config.terms import build_constant_term
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import StepResult
from sharpstudent.train.logger import build_training_columns, compare_terms, join_row, mean_of, name_figures

HALF = Constant(0.5)
HARD, KD, SELF = (build_constant_term(name, HALF) for name in ("hard", "kd", "self"))


def test_the_figures_of_a_step_leave_out_what_it_did_not_measure() -> None:
    result = StepResult(status="ok", loss=1.0, terms={"hard": 2.0}, grad_norm=3.0)
    assert name_figures(result) == {"loss": 1.0, "grad_norm": 3.0, "hard": 2.0}
    fuller = StepResult(status="ok", loss=1.0, perturbed_loss=4.0, agreement=0.5, grad_norm=3.0)
    assert name_figures(fuller) == {"loss": 1.0, "perturbed_loss": 4.0, "agreement": 0.5, "grad_norm": 3.0}


def test_columns_are_there_even_when_no_step_was_taken() -> None:
    wanted = ["train_loss", "train_perturbed_loss", "train_hard", "train_kd", "train_grad_norm", "train_agreement"]
    assert build_training_columns({}, (HARD, KD), with_second_pass=True) == dict.fromkeys(wanted)
    assert list(build_training_columns({"loss": 1.0}, (HARD,), with_second_pass=False)) == [
        "train_loss",
        "train_hard",
        "train_grad_norm",
    ]


def test_means_are_over_the_steps_that_were_taken() -> None:
    assert mean_of({"loss": 6.0, "steps": 3.0}) == ({"loss": 2.0}, 3)
    assert mean_of({}) == ({}, 0)


def test_the_balance_is_that_of_the_weighted_losses() -> None:
    numbers = {"hard/weight": 0.8, "kd/weight": 0.2, "self/weight": 0.1}
    ratio = compare_terms({"hard": 0.5, "kd": 2.0, "self": 1.0}, (HARD, KD, SELF), numbers)
    assert ratio == {"kd_hard_ratio": pytest.approx((0.2 * 2.0 + 0.1 * 1.0) / (0.8 * 0.5))}
    assert compare_terms({"kd": 2.0}, (HARD, KD), numbers) == {"kd_hard_ratio": None}
    assert compare_terms({"hard": 0.5}, (HARD,), numbers) == {}


def test_two_figures_of_one_name_are_a_defect() -> None:
    assert join_row({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="'a'"):
        join_row({"a": 1}, {"a": 2})
