"""The promises of a step on a GPU. `SHARPSTUDENT_TEST_DEVICE=cpu` runs the same checks where there is none."""

import copy
import os

import pytest
import torch
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch
from sharpstudent.optim.build import LossScale
from sharpstudent.train.oom import MemoryRetry
from sharpstudent.train.state import capture_step, restore_step
from sharpstudent.train.step import TrainStep
from step_traps import Trap, raise_from, to_nan, trap_after_update, trap_gradient, trap_loss
from tiny_models import START, are_identical, make_batch, make_full_step, make_student, make_teacher, take_snapshot
from tiny_runs import make_config, make_run

DEVICE = torch.device(os.environ.get("SHARPSTUDENT_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
]


def start(**settings: object) -> TrainStep:
    torch.manual_seed(11)
    student, teacher = make_student().to(DEVICE), make_teacher().to(DEVICE)
    scale = LossScale(DEVICE.type, initial=1024.0)
    return make_full_step(student=student, **{"teacher": teacher, "loss_scale": scale, **settings})


def draw(seed: int) -> Batch:
    return make_batch(seed).to(DEVICE)


def test_steps_in_fp16_are_taken_and_those_from_the_same_state_are_bit_identical() -> None:
    states = []
    for _ in range(2):
        step = start()
        assert all(step(draw(seed), START).ok for seed in range(3))
        states.append(take_snapshot(step))
    assert are_identical(*states)


def test_a_value_that_is_not_finite_skips_the_step_and_leaves_no_trace() -> None:
    step, trap = start(), Trap(5, to_nan)  # four parts a step: the first of the second step
    trap_loss(step, trap)
    assert step(draw(0), START).ok
    before = take_snapshot(step)
    result = step(draw(1), START)
    assert (result.status, result.reason) == ("skipped", "the loss of pass 1 is not finite")
    assert are_identical(take_snapshot(step), before)


def test_an_overflow_of_fp16_halves_the_scale_and_changes_nothing_else() -> None:
    step, trap = start(), Trap(7, to_nan)
    trap_gradient(step, trap)
    assert step(draw(0), START).ok
    before = take_snapshot(step)
    result = step(draw(1), START)
    assert result.is_overflow
    assert step.loss_scale is not None
    assert step.loss_scale.value == 512.0
    after = take_snapshot(step)
    before.pop("loss_scale"), after.pop("loss_scale")
    assert are_identical(after, before)


def test_an_interrupt_within_the_update_is_undone() -> None:
    step, trap = start(), Trap(2, raise_from(KeyboardInterrupt))
    trap_after_update(step, trap)
    assert step(draw(0), START).ok
    before = take_snapshot(step)
    with pytest.raises(KeyboardInterrupt):
        step(draw(1), START)
    assert are_identical(take_snapshot(step), before)


def test_a_resumed_run_goes_on_bit_for_bit_on_the_same_device() -> None:
    step = start()
    assert all(step(draw(seed), Progress(1, seed, 1, 8)).ok for seed in range(2))
    state = copy.deepcopy(capture_step(step, DEVICE))
    expected = [step(draw(seed), Progress(1, seed, 1, 8)) for seed in (2, 3)]
    resumed = start()
    restore_step(resumed, state)
    assert [resumed(draw(seed), Progress(1, seed, 1, 8)) for seed in (2, 3)] == expected
    assert are_identical(take_snapshot(resumed), take_snapshot(step))


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    config = make_config(halve_on_out_of_memory=True, batch_size=4)  # four samples of two pictures
    step, sizes = start(parts=1, loss_scale=None), []

    def allocate(_: object, args: tuple[()], given: dict[str, torch.Tensor]) -> None:
        sizes.append(len(given["image"]))
        if len(given["image"]) > 2:
            torch.empty(10**15, device=DEVICE)  # more than any device has: its allocator refuses

    step.student.register_forward_pre_hook(allocate, with_kwargs=True)
    retry = MemoryRetry(make_run(config, device=DEVICE.type), step, items=4)
    before = take_snapshot(step)
    assert retry(draw(0), START).ok
    assert sizes == [8, 4, *[2] * 8]  # two tries, then four parts in each of two passes
    assert retry.raised_parts == 4
    assert not are_identical(take_snapshot(step), before)
