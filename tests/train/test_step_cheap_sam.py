"""The variants of SAM in a step: the same transaction, state and teacher, and fewer gradients."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import StepResult
from sharpstudent.optim.cheap_sam import CheapSAM, SamVariant, find_norm_parameters
from sharpstudent.train.build import build_step
from sharpstudent.train.debug.nan_inspector import inspect_step
from sharpstudent.train.logger import build_epoch_row, collect_metrics
from sharpstudent.train.state import capture_step, restore_step
from sharpstudent.train.step import TrainStep
from step_traps import Trap, raise_from, to_nan, trap_after_update, trap_forward, trap_gradient, trap_loss
from tiny_models import are_identical, make_batch, make_full_step, make_step, make_student, make_teacher, take_snapshot
from tiny_runs import TinyTask, make_config

VARIANTS: dict[str, dict[str, Any]] = {
    "every": {"every": 3},
    "norm_only": {"only": True},
    "subset": {"share": 0.5},
    "adaptive": {"is_adaptive": True},
    "friendly": {"is_friendly": True},
    "norm_only, subset, friendly": {"only": True, "share": 0.5, "is_friendly": True},
}
CPU = torch.device("cpu")


def at(step: int) -> Progress:
    return Progress(epoch=1, step=step, epochs=1, steps_per_epoch=12)


def with_variant(step: TrainStep, variant: dict[str, Any]) -> TrainStep:
    """The step with a variant over its base optimiser."""
    plain = step.optimizer
    chosen = SamVariant(**{**variant, "only": find_norm_parameters(step.student) if variant.get("only") else None})
    sam = CheapSAM(plain.base_optimizer, chosen, rho=plain.rho, adaptive=[p for p in plain.parameters if p.ndim > 1])
    return replace(step, optimizer=sam)


def start(name: str, *, base: str = "sgd") -> TrainStep:
    torch.manual_seed(11)
    return with_variant(make_full_step(base=base), VARIANTS[name])


def snapshot(step: TrainStep) -> dict[str, Any]:
    return {**take_snapshot(step), "requires": [p.requires_grad for p in step.student.parameters()]}


def run(step: TrainStep, first: int, last: int) -> list[StepResult]:
    return [step(make_batch(number), at(number)) for number in range(first, last)]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_step_is_bit_identical(name: str) -> None:
    step = start(name)
    assert all(result.ok for result in run(step, 0, 4))
    state = copy.deepcopy(capture_step(step, CPU))
    expected = run(step, 4, 8)
    torch.manual_seed(5)
    resumed = with_variant(make_full_step(student=make_student(seed=3)), VARIANTS[name])
    restore_step(resumed, state)
    assert run(resumed, 4, 8) == expected
    assert are_identical(snapshot(resumed), snapshot(step))


FAULTS: dict[str, tuple[Callable[[TrainStep, Trap], None], Callable[[Any], Any]]] = {
    "loss": (trap_loss, to_nan),
    "gradient": (trap_gradient, to_nan),
    "exception": (trap_forward, raise_from(ValueError)),
    "interrupt in the update": (trap_after_update, raise_from(KeyboardInterrupt)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_that_fails_leaves_no_trace_and_the_next_is_that_of_a_run_without_it(name: str, fault: str) -> None:
    set_trap, mischief = FAULTS[fault]
    wanted = start(name)
    run(wanted, 0, 3)
    probe, step = Trap(10**6, mischief), start(name)
    set_trap(step, probe)
    run(step, 0, 3)
    before, per_step = snapshot(step), probe.calls
    probe.at = per_step + 1  # the next call is one of the failing step, in its first pass unless it has one call only
    if mischief is to_nan:
        assert step(make_batch(7), at(3)).status == "skipped"
    else:
        with pytest.raises((ValueError, KeyboardInterrupt)):
            step(make_batch(7), at(3))
    after = snapshot(step)
    before.pop("loss_scale"), after.pop("loss_scale")  # an overflow halves it
    assert are_identical(after, before)
    if fault in ("exception", "interrupt in the update"):
        rng = torch.get_rng_state()
        results, state = run(step, 3, 5), snapshot(step)
        torch.set_rng_state(rng)
        assert run(wanted, 3, 5) == results
        assert are_identical(snapshot(wanted), state)


@pytest.mark.parametrize("name", VARIANTS)
def test_inspecting_a_step_changes_nothing(name: str) -> None:
    states = []
    for look in (False, True):
        step = start(name)
        run(step, 0, 2)
        result = inspect_step(step, make_batch(2), at(2)).result if look else step(make_batch(2), at(2))
        assert result.ok
        states.append(snapshot(step))
    assert are_identical(*states)


def test_pass_1_of_a_subset_reads_the_first_samples_and_pass_2_all_with_one_teacher_pass() -> None:
    torch.manual_seed(3)
    teacher = make_teacher()
    step = with_variant(make_step(teacher=teacher, parts=2), {"share": 0.4})
    plain = make_step(student=copy.deepcopy(step.student), teacher=make_teacher())
    sizes: list[int] = []
    step.student.head.register_forward_hook(lambda m, args, out: sizes.append(len(out)))  # type: ignore[union-attr]
    rng = torch.get_rng_state()
    result = step(make_batch(images=8), at(0))
    assert result.ok
    assert sizes == [4, 4, 4]  # of 8 rows ceil(3.2) = 4: the first part; then both parts
    assert len(teacher.model.seen) == 2  # type: ignore[union-attr]
    torch.set_rng_state(rng)
    first = plain(make_batch(images=8)[:4], at(0))
    assert result.loss == first.loss


def test_the_statistics_of_batchnorm_are_of_the_pass_that_reads_the_whole_batch() -> None:
    for share, expected in ((1.0, [True, False]), (0.5, [False, True])):
        torch.manual_seed(3)
        step = with_variant(make_step(teacher=make_teacher()), {"share": share})
        norm = next(layer for layer in step.student.modules() if isinstance(layer, torch.nn.BatchNorm2d))
        counted: list[bool] = []
        norm.register_forward_hook(lambda layer, args, out, counted=counted: counted.append(layer.track_running_stats))
        assert step(make_batch(images=8), at(0)).ok
        assert counted == expected
        assert norm.track_running_stats
        assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_share_of_1_and_steps_with_a_pass_in_every_one_are_plain_sam_bit_for_bit() -> None:
    states = []
    for variant in (None, {}):
        torch.manual_seed(7)
        step = make_step(teacher=make_teacher())
        step = step if variant is None else with_variant(step, variant)
        if variant is not None:
            step.optimizer._adaptive = set()
        run(step, 0, 3)
        states.append(take_snapshot(step))
    assert are_identical(*states)


def test_the_log_takes_the_mean_over_steps_with_a_second_pass_and_shows_their_share() -> None:
    step, sums = start("every"), dict[str, float]()
    results = run(step, 0, 6)
    assert [result.perturbed_loss is not None for result in results] == [True, False, False] * 2
    for result in results:
        for name, value in {**collect_metrics(result), "steps": 1.0}.items():
            sums[name] = sums.get(name, 0.0) + value
    row = build_epoch_row(1, sums, {}, (), {}, lr=0.1, rho=0.5, skipped=0, chooses_ascents=True)
    seen = [result.perturbed_loss for result in results if result.perturbed_loss is not None]
    assert row["train_perturbed_loss"] == pytest.approx(sum(seen) / 2)
    assert row["train_ascents"] == pytest.approx(1 / 3)
    row = build_epoch_row(1, sums, {}, (), {}, lr=0.1, rho=0.5, skipped=0)
    assert "train_ascents" not in row


def test_a_config_builds_the_variant_that_it_names() -> None:
    keys = {"sam_every": 4, "sam_friendly": True}
    step = build_step(make_config(**keys), make_student(), None, CPU, task=TinyTask())
    assert isinstance(step.optimizer, CheapSAM)
    assert [step(make_batch(number), at(number)).perturbed_loss is not None for number in range(5)] == [
        number % 4 == 0 for number in range(5)
    ]
    assert math.isfinite(step(make_batch(9), at(5)).loss)
