"""The alarm for a training that collapses: it goes off once, clears, and stays quiet in a healthy run."""

import json
import random
from collections.abc import Iterable
from dataclasses import asdict

import pytest
from sharpstudent.core.types import StepResult
from sharpstudent.metrics.metric import Metric
from sharpstudent.train.alarms import CHANCE_EPOCHS, WINDOW, CollapseWatch
from tiny_runs import make_config

CONFIG = make_config()


def take(loss: float, perturbed: float | None) -> StepResult:
    return StepResult(status="ok", loss=loss, perturbed_loss=perturbed)


def see(watch: CollapseWatch, results: Iterable[StepResult], rho: float = 0.05) -> list[int]:
    """The steps, counted from 0, in which it said something."""
    return [i for i, result in enumerate(results) if watch.see_step(result, CONFIG, rho)]


# --- Steps ----------------------------------------------------------------------------------------------------------


def test_a_healthy_run_never_hears_of_it() -> None:
    rng = random.Random(0)
    losses = [0.7 * 0.995**i * rng.uniform(0.3, 2.0) for i in range(1500)]
    assert see(CollapseWatch(), [take(loss, loss * rng.uniform(1.0, 2.5)) for loss in losses]) == []


def test_a_model_that_has_learnt_may_have_a_large_ratio_of_small_losses() -> None:
    assert see(CollapseWatch(), [take(0.01, 0.9)] * 300) == []


def test_a_single_step_out_of_line_is_no_collapse() -> None:
    steps = [take(0.5, 0.7)] * 100 + [take(0.5, 20.0)] + [take(0.5, 0.7)] * 100
    assert see(CollapseWatch(), steps) == []


def test_a_lasting_jump_is_said_once_and_not_before_there_are_enough_steps() -> None:
    assert see(CollapseWatch(), [take(0.6, 4.0)] * 400) == [WINDOW - 1]


def test_a_jump_that_comes_later_is_found_too() -> None:
    said = see(CollapseWatch(), [take(0.6, 0.8)] * 200 + [take(0.6, 9.0)] * 200)
    assert len(said) == 1
    assert 200 < said[0] < 200 + WINDOW


def test_after_it_has_cleared_it_is_said_again() -> None:
    bad, good = [take(0.6, 9.0)] * 100, [take(0.6, 0.8)] * 300
    said = see(CollapseWatch(), bad + good + bad + good)
    assert len(said) == 2
    assert said[1] >= 400


def test_the_ratio_counts_from_three_on() -> None:
    assert see(CollapseWatch(), [take(1.0, 2.99)] * 200) == []
    assert see(CollapseWatch(), [take(1.0, 3.01)] * 200) == [WINDOW - 1]


def test_skipped_and_plain_steps_are_ignored() -> None:
    watch = CollapseWatch()
    steps = [StepResult(status="skipped", reason="the loss of pass 1 is not finite"), take(0.6, None)] * 100
    assert see(watch, steps) == []
    assert watch == CollapseWatch()
    assert see(watch, [take(0.6, 4.0)] * WINDOW) == [WINDOW - 1]


def test_the_advice_names_the_radius_the_rise_and_plain_steps() -> None:
    watch = CollapseWatch()
    said = [watch.see_step(take(0.6, 4.0), CONFIG, 0.05) for _ in range(WINDOW)][-1]
    assert "4.00 against 0.60" in said[0]
    assert [line.split("--set ")[1].split("  ")[0] for line in said[1:]] == [
        "stage2.rho=0.025",
        "stage2.rho_warmup=0.1",
        "stage2.rho=0",
    ]
    watch = CollapseWatch()
    rising = make_config(rho_warmup=0.2, stage=1)
    said = [watch.see_step(take(0.6, 4.0), rising, 0.01) for _ in range(WINDOW)][-1]
    assert "stage1.rho=0.025  (now 0.01)" in said[1]
    assert not any("rho_warmup" in line for line in said)


# --- Epochs ---------------------------------------------------------------------------------------------------------


def make_metric(chance: float | None = 0.5, perfect: float | None = 1.0) -> Metric:
    return Metric(lambda table, counts: float("nan"), chance=chance, perfect=perfect)


def see_epochs(watch: CollapseWatch, values: list[float], metric: Metric = make_metric()) -> list[int]:  # noqa: B008
    return [i for i, value in enumerate(values) if watch.see_epoch("auc", metric, value, CONFIG)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5] * 10, [2]),
        ([0.46, 0.54, 0.5, 0.51], [2]),
        ([0.5, 0.5, 0.6, 0.5, 0.5], []),
        ([0.5, 0.5, 0.44, 0.5, 0.5, 0.5], [5]),
        ([0.5, 0.5, 0.5, 0.7, 0.5, 0.5, 0.5, 0.5], [2, 6]),
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], []),
        ([0.2, 0.1, 0.05], []),  # far from chance, on the wrong side: another mistake
        ([float("nan")] * 5, []),
    ],
)
def test_epochs_at_chance_are_said_once_in_a_row_of_three(values: list[float], said: list[int]) -> None:
    assert CHANCE_EPOCHS == 3
    assert see_epochs(CollapseWatch(), values) == said


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        (make_metric(), 0.5, [2]),
        (make_metric(chance=0.1), 0.5, []),  # the accuracy of ten classes
        (make_metric(chance=0.1), 0.12, [2]),
        (make_metric(chance=0.5, perfect=0.0), 0.46, [2]),  # an error rate, where lower is better
        (make_metric(chance=0.5, perfect=0.0), 0.44, []),
        (make_metric(chance=None), 0.5, []),
        (make_metric(perfect=None), 0.5, []),
    ],
)
def test_a_metric_is_at_chance_where_it_says_so(metric: Metric, value: float, said: list[int]) -> None:
    assert see_epochs(CollapseWatch(), [value] * 5, metric) == said


def test_the_advice_on_epochs_names_the_radius_only_where_there_is_one() -> None:
    for rho, has_rho in ((0.05, True), (0.0, False)):
        watch, config = CollapseWatch(), make_config(rho=rho)
        said = [watch.see_epoch("auc", make_metric(), 0.5, config) for _ in range(3)][-1]
        assert any(".rho=" in line for line in said) is has_rho
        assert any("stage2.lr=0.033" in line for line in said)


# --- State ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored_at", [1, 30, WINDOW - 1, WINDOW, 120])
def test_a_watch_that_was_stored_says_what_it_would_have_said(stored_at: int) -> None:
    steps = [take(0.6, 0.8)] * 40 + [take(0.6, 9.0)] * 100
    whole, first = CollapseWatch(), CollapseWatch()
    wanted = see(whole, steps)
    said = see(first, steps[:stored_at])
    second = CollapseWatch(**json.loads(json.dumps(asdict(first))))
    said += [stored_at + i for i in see(second, steps[stored_at:])]
    assert said == wanted
    assert len(wanted) == 1
    assert second == whole


def test_a_stored_row_of_epochs_goes_on() -> None:
    watch = CollapseWatch()
    assert see_epochs(watch, [0.5, 0.5]) == []
    assert see_epochs(CollapseWatch(**json.loads(json.dumps(asdict(watch)))), [0.5, 0.5]) == [0]
