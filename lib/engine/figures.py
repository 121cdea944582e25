"""The figures of an epoch: which ones a step adds to, and the row of metrics.csv that they become. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.config.sections import TermSection
from lib.config.terms import TERMS
from lib.types import StepResult


def name_figures(result: StepResult) -> dict[str, float]:
    """The figures of a step whose means make up an epoch's."""
    others = {"perturbed_loss": result.perturbed_loss, "agreement": result.agreement}
    there = {name: value for name, value in others.items() if value is not None}
    return {"loss": result.loss, **there, "grad_norm": result.grad_norm, **result.terms}


def build_training_columns(
    means: Mapping[str, float], terms: Sequence[TermSection], *, with_second_pass: bool
) -> dict[str, float | None]:
    """`train_*` of an epoch, the same columns in each: None where no step was taken or a term had no weight."""
    names = ["loss", *(["perturbed_loss"] if with_second_pass else []), *(term.name for term in terms), "grad_norm"]
    if any(TERMS[term.term].asks == "teacher" for term in terms):
        names.append("agreement")
    return {f"train_{name}": means.get(name) for name in names}


def compare_terms(
    means: Mapping[str, float], terms: Sequence[TermSection], numbers: Mapping[str, float]
) -> dict[str, float | None]:
    """`kd_hard_ratio`: the weighted losses of the terms that ask somebody over those of the terms that do not; None
    where the latter weigh nothing. No column where no term asks.

    numbers: the weight of each term, as the criterion describes itself.
    """
    sides = {True: 0.0, False: 0.0}
    for term in terms:
        weighted = numbers[f"{term.name}/weight"] * means.get(term.name, 0.0)
        sides[TERMS[term.term].asks is not None] += weighted
    if all(TERMS[term.term].asks is None for term in terms):
        return {}
    return {"kd_hard_ratio": sides[True] / sides[False] if sides[False] > 0.0 else None}


def mean_of(sums: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """Means of what steps have summed up, and how many steps those were (`sums["steps"]`)."""
    steps = sums.get("steps", 0.0)
    return {name: total / steps for name, total in sums.items() if name != "steps" and steps}, int(steps)


def build_epoch_row(
    epoch: int,
    sums: Mapping[str, float],
    metrics: Mapping[str, Any],
    terms: Sequence[TermSection],
    numbers: Mapping[str, float],
    *,
    lr: float,
    rho: float | None,
    skipped: int,
) -> dict[str, Any]:
    """An epoch's row of metrics.csv. sums: of its steps; numbers: those of the terms at its last step; lr and rho: of
    that step, None without a second pass.
    """
    means, steps = mean_of(sums)
    return join_row(
        {"epoch": epoch},
        build_training_columns(means, terms, with_second_pass=rho is not None),
        metrics,
        {"lr": lr},
        {} if rho is None else {"rho": rho},
        compare_terms(means, terms, numbers),
        numbers,
        {"steps": steps, "skipped": skipped},
    )


def join_row(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One row out of its parts; ValueError where two of them have a column in common."""
    row: dict[str, Any] = {}
    for part in parts:
        clash = sorted(set(row) & set(part))
        if clash:
            raise ValueError(f"two figures of an epoch are called {clash}")
        row |= part
    return row
