"""The numbers of an epoch: the same columns each time, means over the steps taken, the balance of the terms."""

from __future__ import annotations

from typing import Any

import pytest
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import build_constant_term
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import StepResult
from sharpstudent.train.logger import build_epoch_row, collect_metrics, compare_sizes, compare_terms

HALF = Constant(0.5)
HARD, KD, SELF = (build_constant_term(name, HALF) for name in ("hard", "kd", "self"))


def build_row(sums: dict[str, float], *terms: TermSection, rho: float | None = None, **metrics: Any) -> dict[str, Any]:
    numbers = {f"{term.name}/weight": 0.5 for term in terms}
    return build_epoch_row(3, sums, metrics, terms, numbers, lr=0.1, rho=rho, skipped=2)


def test_the_numbers_of_a_step_leave_out_what_it_did_not_measure() -> None:
    result = StepResult(status="ok", loss=1.0, terms={"hard": 2.0}, grad_norm=3.0)
    assert collect_metrics(result) == {"loss": 1.0, "grad_norm": 3.0, "hard": 2.0}
    fuller = StepResult(status="ok", loss=1.0, perturbed_loss=4.0, agreement=0.5, grad_norm=3.0)
    measured = {"loss": 1.0, "perturbed_loss": 4.0, "ascents": 1.0, "agreement": 0.5, "grad_norm": 3.0}
    assert collect_metrics(fuller) == measured


def test_columns_are_there_even_when_no_step_was_taken() -> None:
    wanted = ["train_loss", "train_perturbed_loss", "train_hard", "train_kd", "train_grad_norm", "train_agreement"]
    row = build_row({}, HARD, KD, rho=0.05, val_auc=0.5)
    assert list(row) == [
        "epoch", *wanted, "val_auc", "lr", "rho", "kd_hard_ratio", "hard/weight", "kd/weight", "steps", "skipped"
    ]  # fmt: skip
    assert [row[name] for name in wanted] == [None] * 6
    plain = build_row({"loss": 1.0, "steps": 1.0}, HARD)
    assert list(plain) == [
        "epoch",
        "train_loss",
        "train_hard",
        "train_grad_norm",
        "lr",
        "hard/weight",
        "steps",
        "skipped",
    ]


def test_means_are_over_the_steps_that_were_taken() -> None:
    row = build_row({"loss": 6.0, "steps": 3.0}, HARD)
    assert (row["train_loss"], row["steps"]) == (2.0, 3)


def test_the_balance_is_that_of_the_weighted_losses() -> None:
    numbers = {"hard/weight": 0.8, "kd/weight": 0.2, "self/weight": 0.1}
    ratio = compare_terms({"hard": 0.5, "kd": 2.0, "self": 1.0}, (HARD, KD, SELF), numbers)
    assert ratio == {"kd_hard_ratio": pytest.approx((0.2 * 2.0 + 0.1 * 1.0) / (0.8 * 0.5))}
    assert compare_sizes(ratio | numbers, (HARD, KD, SELF)) == pytest.approx((0.2 * 2.0 + 0.1 * 1.0) / 0.3 / 0.5)
    assert compare_sizes(ratio | numbers | {"hard/weight": 0.0}, (HARD, KD, SELF)) is None
    assert compare_terms({"kd": 2.0}, (HARD, KD), numbers) == {"kd_hard_ratio": None}
    assert compare_terms({"hard": 0.5}, (HARD,), numbers) == {}


def test_two_numbers_of_one_name_are_a_defect() -> None:
    with pytest.raises(ValueError, match="'train_loss'"):
        build_row({}, HARD, train_loss=1.0)
