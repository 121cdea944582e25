"""Early stopping: a rule of three numbers of the train state."""

from __future__ import annotations

import pytest
from sharpstudent.train.state import TrainState, explain_early_stop, is_over
from tiny_runs import make_config


def run_through(values: list[float], patience: int | None, epochs: int = 100) -> tuple[int, str | None]:
    """The epoch after which a run with these values ends, and the reason; a new best is a larger value."""
    training = make_config(epochs=epochs, patience=patience).training
    state, best, best_epoch = TrainState(), float("-inf"), None
    while not is_over(training, state, best_epoch):
        value = values[state.epoch - 1]
        if value > best:
            best, best_epoch = value, state.epoch
        state.epoch += 1
    return state.epoch - 1, explain_early_stop(training, state, best_epoch)


@pytest.mark.parametrize(
    ("values", "patience", "last"),
    [
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.9], 2, 5),
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.9], 3, 6),
        ([0.9, 0.8, 0.9], 1, 2),
        ([0.9, 0.9, 0.9, 0.9], 3, 4),
        ([0.1, 0.2, 0.3, 0.4], None, 4),
        ([0.4, 0.3, 0.2, 0.1], None, 4),
    ],
)
def test_a_stage_ends_after_so_many_epochs_without_a_new_best(
    values: list[float], patience: int | None, last: int
) -> None:
    assert run_through(values, patience, epochs=len(values))[0] == last


def test_the_reason_names_epoch_metric_and_patience() -> None:
    _, reason = run_through([0.5, 0.4, 0.3, 0.2], 2, epochs=100)
    assert reason == "stopped early after epoch 3 of 100: no new best auc in 2 epochs (patience 2)"
    assert run_through([0.5, 0.4], 1)[1] == (
        "stopped early after epoch 2 of 100: no new best auc in 1 epoch (patience 1)"
    )


def test_a_run_that_has_all_its_epochs_has_not_been_stopped() -> None:
    assert run_through([0.5, 0.4, 0.3], 2, epochs=3) == (3, None)


def test_a_run_without_any_epoch_goes_on() -> None:
    assert not is_over(make_config(patience=1).training, TrainState(), None)


def test_an_epoch_that_has_been_begun_is_finished() -> None:
    """As where a resumed run is given less patience than it had."""
    training = make_config(patience=1, epochs=9).training
    assert is_over(training, TrainState(epoch=5, step=0), 2)
    assert not is_over(training, TrainState(epoch=5, step=1), 2)
