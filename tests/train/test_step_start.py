"""The pull towards the start in a step: once, outside the loss, undone with the step, and resumed with the run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.optim.start_weights import StartWeights
from sharpstudent.train.state import capture_step, list_misfits, restore_step
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    are_identical,
    make_batch,
    make_full_step,
    make_plain_student,
    make_step,
    take_snapshot,
)

CPU = torch.device("cpu")
PULL = 0.5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def make_pair(**settings: Any) -> tuple[TrainStep, TrainStep]:
    """Two steps at the same weights, away from the same start; the second one is not pulled."""
    steps: list[TrainStep] = []
    for pull in (PULL, None):
        student = make_plain_student(dtype=torch.float64)
        start = None if pull is None else StartWeights(student, pull=pull)
        with torch.no_grad():
            for p in student.parameters():
                p.mul_(1.5)
        steps.append(make_step(student, **{**settings, "start": start}))
    return steps[0], steps[1]


def make_doubles() -> Any:
    batch = make_batch(3)
    batch.inputs["image"] = batch.inputs["image"].double()
    return batch


def measure_pull(base: str, **settings: Any) -> list[torch.Tensor]:
    """What a pull of PULL adds to a step, in units of lr PULL (w - w0)."""
    lr = 0.1
    pulled, plain = make_pair(base=base, lr=lr, **settings)
    for step in (pulled, plain):
        for group in step.optimizer.base_optimizer.param_groups:
            group["weight_decay"] = 0.0  # AdamW's own comes after the pull, and would shrink it by a thousandth
    ways = [p.detach() / 3 for p in pulled.optimizer.parameters]  # w - w0 of w = 1.5 w0
    results = [step(make_doubles(), START) for step in (pulled, plain)]
    assert results[0].loss == results[1].loss
    assert results[0].perturbed_loss == results[1].perturbed_loss
    assert results[0].grad_norm == results[1].grad_norm
    pairs = zip(pulled.optimizer.parameters, plain.optimizer.parameters, strict=True)
    return [(a - b).detach() / (-lr * PULL) - way for (a, b), way in zip(pairs, ways, strict=True)]


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("settings", [{}, {"parts": 4}, {"rho": 0.0}, {"clip_norm": 1e-6}])
def test_a_step_is_pulled_once_after_clipping_and_whatever_the_passes_and_micro_batches_are(
    base: str, settings: dict[str, Any]
) -> None:
    for difference in measure_pull(base, **settings):
        torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-9)


def test_the_pull_is_not_multiplied_by_the_loss_scale_of_fp16() -> None:
    moved: list[list[torch.Tensor]] = []
    for scale in (2.0**4, 2.0**10):
        student = make_plain_student()
        start = StartWeights(student, pull=PULL)
        with torch.no_grad():
            for p in student.parameters():
                p.mul_(1.5)
        step = make_step(
            student, start=start, autocast=torch.float16, loss_scale=LossScale("cpu", initial=scale), clip_norm=1e-6
        )
        assert step(make_batch(3), START).ok
        moved.append([p.detach().clone() for p in step.optimizer.parameters])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_pulled_step_that_fails_is_undone_bit_for_bit(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_plain_student()
    step = make_step(student, base=base, start=StartWeights(student, pull=PULL))
    assert step(make_batch(), START).ok
    before = take_snapshot(step)

    def pull_and_spoil(optimizer: Any) -> None:
        StartWeights.pull_back(start, optimizer)
        with torch.no_grad():
            optimizer.parameters[0].fill_(float("nan"))

    start = step.start
    assert start is not None
    monkeypatch.setattr(start, "pull_back", pull_and_spoil)
    assert not step(make_batch(1), START).ok
    assert are_identical(before, take_snapshot(step))


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_step_with_a_start_goes_on_bit_for_bit_from_its_state_and_needs_no_other_file(
    base: str, tmp_path: Any
) -> None:
    def build(seed: int) -> TrainStep:
        student = make_plain_student(seed)
        average = WeightAverage(student, decay=0.9)
        return make_full_step(student, base=base, average=average, start=StartWeights(student, pull=PULL, share=0.3))

    step, other = build(0), build(5)  # the second one has started elsewhere, as a resumed run has
    for number in range(2):
        assert step(make_batch(number), START).ok
    torch.save(capture_step(step, CPU), tmp_path / "state.pth")
    restore_step(other, torch.load(tmp_path / "state.pth", weights_only=True))
    for number in range(2, 5):
        assert step(make_batch(number), START).ok
        assert other(make_batch(number), START).ok
    assert are_identical(capture_step(step, CPU), capture_step(other, CPU))
    assert step.start is not None
    assert other.start is not None
    assert are_identical(*(dict(one.start.mix(one.student).state_dict()) for one in (step, other)))  # type: ignore[union-attr]


def test_a_state_without_the_start_is_no_state_of_a_run_that_is_held_near_it() -> None:
    from sharpstudent.checkpoint.store import Checkpoint
    from sharpstudent.train.state import refuse_other_model

    student = make_plain_student()
    step = make_step(student)
    state = Checkpoint(copy.deepcopy(capture_step(step, CPU)), {})
    assert list_misfits(state.tensors, step) == []
    step.start = StartWeights(student, pull=PULL)
    with pytest.raises(UserError, match="the weights that the run started from: absent in the file"):
        refuse_other_model(state, step, {}, CPU)  # type: ignore[arg-type]
