"""The weight average in a step, and the snapshot of a whole step, restored."""

import copy
from typing import Any

import pytest
import torch
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.train.state import TrainState, capture_step, restore_step
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    are_identical,
    make_batch,
    make_full_step,
    make_step,
    make_student,
    take_snapshot,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def make_averaging_step(**settings: Any) -> TrainStep:
    student = make_student()
    return make_step(student, average=WeightAverage(student, decay=0.9), **settings)


def through_file(state: dict[str, Any], folder: Any) -> dict[str, Any]:
    torch.save(state, folder / "state.pth")
    return torch.load(folder / "state.pth", weights_only=True)


def test_each_step_takes_the_updated_weights_and_statistics_into_the_average() -> None:
    step = make_averaging_step()
    wanted = {name: t.clone() for name, t in step.student.state_dict().items()}
    for k in range(1, 6):
        assert step(make_batch(k), START).ok
        d = min(0.9, 1.0 - k ** (-2.0 / 3.0))
        for name, t in step.student.state_dict().items():
            wanted[name] = d * wanted[name] + (1 - d) * t if t.is_floating_point() else t.clone()
        for name, t in step.average.model.state_dict().items():
            torch.testing.assert_close(t, wanted[name], rtol=0, atol=1e-6)
    assert step.average.updates == 5


def test_the_average_changes_no_bit_of_the_student() -> None:
    states = []
    for step in (make_averaging_step(), make_step()):
        torch.manual_seed(7)
        for i in range(3):
            assert step(make_batch(i), START).ok
        states.append({**take_snapshot(step), "average": None})
    assert are_identical(*states)


def test_a_skipped_step_is_not_taken_into_the_average() -> None:
    step, bad = make_averaging_step(), make_batch()
    assert step(make_batch(), START).ok
    before = copy.deepcopy(step.average.state_dict())
    bad.inputs["image"][0] = float("nan")
    assert not step(bad, START).ok
    assert are_identical(step.average.state_dict(), before)


# --- The state of a step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_step_that_was_put_back_from_a_file_goes_on_bit_for_bit(tmp_path, base: str) -> None:
    step = make_full_step(base=base)
    for i in range(3):
        assert step(make_batch(i), START).ok
    state = through_file(capture_step(step, CPU), tmp_path)
    torch.manual_seed(99)
    other = make_full_step(make_student(5), base=base, scale=2.0)
    restore_step(other, state)
    captured = capture_step(step, CPU)
    results = [other(make_batch(7), START)]
    restore_step(step, captured)
    results.append(step(make_batch(7), START))
    assert results[0] == results[1]
    assert results[0].ok
    assert are_identical(take_snapshot(other), take_snapshot(step))


def test_an_average_that_is_switched_on_at_a_resume_begins_with_the_resumed_weights(tmp_path) -> None:
    step = make_step()
    for i in range(3):
        assert step(make_batch(i), START).ok
    state = through_file(capture_step(step, CPU), tmp_path)
    assert "average" not in state
    other = make_full_step(make_student(5))
    restore_step(other, state)
    assert are_identical(dict(other.average.model.state_dict()), dict(step.student.state_dict()))
    assert other.average.updates == 1
    assert other(make_batch(7), START).ok
    assert other.average.updates == 2


def test_an_average_and_a_scale_that_are_switched_off_at_a_resume_are_left_behind(tmp_path) -> None:
    step = make_full_step()
    assert step(make_batch(), START).ok
    state = through_file(capture_step(step, CPU), tmp_path)
    other = make_step(make_student(5))
    restore_step(other, state)
    assert are_identical(dict(other.student.state_dict()), dict(step.student.state_dict()))
    assert other(make_batch(1), START).ok


def test_a_loss_scale_that_is_switched_on_at_a_resume_begins_anew() -> None:
    state = capture_step(make_step(), CPU)
    other = make_step(make_student(5), autocast=torch.float16, loss_scale=LossScale("cpu", initial=32.0))
    restore_step(other, state)
    assert other.loss_scale.value == 32.0


def test_a_captured_state_is_a_plain_step_where_nothing_is_switched_on() -> None:
    assert set(capture_step(make_step(), CPU)) == {"model", "optimizer", "rng"}
    assert set(capture_step(make_full_step(), CPU)) == {"model", "optimizer", "rng", "average", "loss_scale"}


def test_a_train_state_survives_json() -> None:
    import json

    state = TrainState(epoch=3, step=4, skipped=2, skipped_in_a_row=1, start={"auc": 0.7}, parts=4)
    state.sums["loss"] = 1.5
    state.watch.steps, state.watch.loss, state.watch.is_jumping = 7, 0.25, True
    again = TrainState.from_json(json.loads(json.dumps(state.to_json())))
    assert again == state
    again.sums["new"] = 1.0
