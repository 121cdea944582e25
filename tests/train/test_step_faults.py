"""A step that fails has not happened: weights, buffers, optimiser, average, loss scale and random states are those
before it, bit for bit, and the next step is that of a run which never saw the fault. Everything is switched on.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.models.vision import TimmClassifier
from sharpstudent.train.step import TrainStep
from step_traps import (
    Trap,
    raise_from,
    to_nan,
    trap_after_average,
    trap_after_update,
    trap_average_copies,
    trap_before_update,
    trap_buffer,
    trap_clip,
    trap_forward,
    trap_gradient,
    trap_inputs,
    trap_inside_average,
    trap_inside_update,
    trap_loss,
    trap_scale_update,
    trap_teacher,
    trap_unscale,
    trap_updated_weight,
    trap_weight_copies,
)
from tiny_models import (
    START,
    TinyStudent,
    are_identical,
    build_batch,
    make_batch,
    make_criterion,
    make_full_step,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from torch import Tensor, nn

SetTrap = Callable[[TrainStep, Trap], None]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def start(base: str, **settings: Any) -> TrainStep:
    torch.manual_seed(11)
    return make_full_step(base=base, **settings)


@functools.cache
def run_without_fault(base: str, *, first: bool, halved: bool = False) -> tuple[dict[str, Any], Any]:
    """State and result after the good steps alone; halved: with the loss scale that an overflow leaves."""
    with torch.random.fork_rng():  # it may run in the middle of another run
        step = start(base)
        if not first:
            assert step(make_batch(0), START).ok
        if halved:
            step.loss_scale.back_off()
        result = step(make_batch(2), START)
        assert result.ok
        return take_snapshot(step), result


def check_the_next_step(step: TrainStep, base: str, *, first: bool, halved: bool = False) -> None:
    wanted, wanted_result = run_without_fault(base, first=first, halved=halved)
    assert step(make_batch(2), START) == wanted_result
    assert are_identical(take_snapshot(step), wanted)


def begin(base: str, set_trap: SetTrap, trap: Trap, *, first: bool) -> tuple[TrainStep, dict[str, Any]]:
    """A step with its trap set, a good step behind it unless the fault comes first; and its state."""
    step = start(base)
    set_trap(step, trap)
    if not first:
        assert step(make_batch(0), START).ok
    return step, take_snapshot(step)


# --- Values that are not finite -------------------------------------------------------------------------------------

# What to spoil, how often that is called in a step, in which call, and the reason given. With two micro-batches calls 1
# and 2 are those of pass 1.
NON_FINITE: dict[str, tuple[SetTrap, int, int, str]] = {
    "input": (trap_inputs, 0, 0, "the input batch is not finite"),
    "teacher": (trap_teacher, 2, 1, "the teacher's logits are not finite"),
    "teacher, second part": (trap_teacher, 2, 2, "the teacher's logits are not finite"),
    "loss of pass 1": (trap_loss, 4, 1, "the loss of pass 1 is not finite"),
    "loss of pass 1, second part": (trap_loss, 4, 2, "the loss of pass 1 is not finite"),
    "activation of pass 2": (trap_forward, 4, 3, "the loss of pass 2 is not finite"),
    "loss of pass 2, second part": (trap_loss, 4, 4, "the loss of pass 2 is not finite"),
    "buffer": (trap_buffer, 4, 1, "the buffer norm.running_var is not finite"),
    "updated weights": (trap_updated_weight, 1, 1, "the updated weights are not finite"),
}
OVERFLOWS: dict[str, tuple[int, str]] = {
    "pass 1": (1, "the gradient of pass 1 is not finite"),
    "pass 1, second part": (2, "the gradient of pass 1 is not finite"),
    "pass 2": (3, "the gradient of pass 2 is not finite"),
    "pass 2, second part": (4, "the gradient of pass 2 is not finite"),
}


@pytest.mark.parametrize("first", [False, True], ids=["second step", "first step"])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("fault", NON_FINITE)
def test_a_non_finite_value_skips_the_step_and_leaves_no_trace(fault: str, base: str, first: bool) -> None:
    set_trap, per_step, call, reason = NON_FINITE[fault]
    mischief = (lambda _: 1) if fault in ("buffer", "updated weights") else to_nan
    trap = Trap(call + (0 if first else per_step), mischief)
    step, before = begin(base, set_trap, trap, first=first)
    batch = make_batch(1)
    if fault == "input":
        batch.inputs["image"][3, 1, 4, 4] = float("nan")
    result = step(batch, START)
    assert (result.status, result.reason, result.is_overflow) == ("skipped", reason, False)
    assert are_identical(take_snapshot(step), before)
    assert all(p.grad is None for p in step.student.parameters())
    check_the_next_step(step, base, first=first)


@pytest.mark.parametrize("first", [False, True], ids=["second step", "first step"])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("where", OVERFLOWS)
def test_an_overflow_halves_the_loss_scale_once_and_changes_nothing_else(where: str, base: str, first: bool) -> None:
    call, reason = OVERFLOWS[where]
    step, before = begin(base, trap_gradient, Trap(call + (0 if first else 4), to_nan), first=first)
    result = step(make_batch(1), START)
    assert (result.status, result.is_overflow) == ("skipped", True)
    assert result.reason == f"{reason}; loss scale 1024 -> 512"
    before["loss_scale"] = {**before["loss_scale"], "scale": 512.0, "_growth_tracker": 0}
    assert are_identical(take_snapshot(step), before)
    check_the_next_step(step, base, first=first, halved=True)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_learning_rate_that_takes_the_weights_out_of_range_skips_the_step(base: str) -> None:
    """Found in the updated weights alone: losses and gradients were fine."""
    step = make_step(base=base, lr=3e38, clip_norm=1e9, criterion=make_criterion(hard=1e6, kd=None), rho=1e-3)
    before = take_snapshot(step)
    if base == "adamw":  # its first step is the learning rate itself, whatever the gradient
        with torch.no_grad():
            step.student.head.weight.copy_(torch.sign(step.student.head.weight) * 3e37)
            step.student.head.weight[:, 1:] = 0
        step.optimizer.base_optimizer.param_groups[0]["weight_decay"] = 1.0
        before = take_snapshot(step)
    result = step(make_batch(), START)
    assert result.status == "skipped"
    assert are_identical(take_snapshot(step), before)
    if base == "sgd":
        assert result.reason == "the updated weights are not finite"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_bad_pixel_of_any_kind_is_noticed_before_the_teacher_runs(value: float) -> None:
    teacher, batch = make_teacher(), make_batch()
    batch.inputs["image"][0, 0, 0, 0] = value
    result = make_step(teacher=teacher)(batch, START)
    assert result.reason == "the input batch is not finite"
    assert teacher.model.seen == []


def test_a_gradient_that_overflows_only_in_its_norm_is_skipped_too() -> None:
    step = make_step()
    trap_gradient(step, Trap(1, lambda g: torch.full_like(g, 3e38)))
    before = take_snapshot(step)
    assert step(make_batch(), START).reason == "the gradient of pass 1 is not finite"
    assert are_identical(take_snapshot(step), before)


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_without_a_loss_scale_a_gradient_that_is_not_finite_is_no_overflow(rho: float) -> None:
    step = make_step(rho=rho)
    trap_gradient(step, Trap(1 if rho == 0.0 else 2, to_nan))
    before = take_snapshot(step)
    result = step(make_batch(), START)
    assert (result.status, result.is_overflow) == ("skipped", False)
    assert result.reason == f"the gradient of pass {1 if rho == 0.0 else 2} is not finite"
    assert are_identical(take_snapshot(step), before)


# --- Exceptions -----------------------------------------------------------------------------------------------------

# What to break, how often that is called in a step, and in which call.
PHASES: dict[str, tuple[SetTrap, int, int]] = {
    "teacher": (trap_teacher, 2, 1),
    "teacher, second part": (trap_teacher, 2, 2),
    "forward 1": (trap_forward, 4, 1),
    "forward 1, second part": (trap_forward, 4, 2),
    "loss 1": (trap_loss, 4, 1),
    "backward 1": (trap_gradient, 4, 1),
    "backward 1, second part": (trap_gradient, 4, 2),
    "copies of the weights": (trap_weight_copies, 1, 1),
    "forward 2": (trap_forward, 4, 3),
    "forward 2, second part": (trap_forward, 4, 4),
    "loss 2": (trap_loss, 4, 3),
    "backward 2": (trap_gradient, 4, 3),
    "backward 2, second part": (trap_gradient, 4, 4),
    "unscaling": (trap_unscale, 1, 1),
    "clipping": (trap_clip, 1, 1),
    "copies of the average": (trap_average_copies, 1, 1),
    "before the update": (trap_before_update, 1, 1),
    "inside the update": (trap_inside_update, 1, 1),
    "after the update": (trap_after_update, 1, 1),
    "after the scale's update": (trap_scale_update, 1, 1),
    "inside the average": (trap_inside_average, 1, 1),
    "after the average": (trap_after_average, 1, 1),
}
ERRORS = [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError]


def check_exception(phase: str, error: type[BaseException], base: str, *, first: bool) -> None:
    set_trap, per_step, call = PHASES[phase]
    trap = Trap(call + (0 if first else per_step), raise_from(error))
    step, before = begin(base, set_trap, trap, first=first)
    with pytest.raises(error, match="injected"):
        step(make_batch(1), START)
    assert are_identical(take_snapshot(step), before)
    assert all(p.grad is None for p in step.student.parameters())
    check_the_next_step(step, base, first=first)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("phase", PHASES)
def test_an_exception_in_any_phase_passes_through_and_leaves_no_trace(phase: str, error: type[BaseException]) -> None:
    check_exception(phase, error, "sgd", first=False)


@pytest.mark.parametrize("first", [False, True], ids=["second step", "first step"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_exception_leaves_no_trace_with_adamw_either_nor_in_the_very_first_step(phase: str, first: bool) -> None:
    """Before the first step the optimiser has no state, and must not get one."""
    check_exception(phase, KeyboardInterrupt, "adamw", first=first)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if "average" not in phase and "scal" not in phase])
def test_an_exception_leaves_no_trace_in_a_plain_step_without_extras(phase: str) -> None:
    """fp32, one batch, no average: what is not there cannot help."""
    set_trap, per_step, call = PHASES[phase]
    if "second part" in phase:
        pytest.skip("there is one part")
    call = 2 if per_step == 4 and call > 2 else 1  # passes 1 and 2, once each
    step = make_step(teacher=make_teacher())
    set_trap(step, Trap(call, raise_from(RuntimeError)))
    before = take_snapshot(step)
    with pytest.raises(RuntimeError, match="injected"):
        step(make_batch(), START)
    assert are_identical(take_snapshot(step), before)


# --- With activations computed again --------------------------------------------------------------------------------


def make_checkpointed_step() -> TrainStep:
    """A real student with dropout and stochastic depth, everything switched on."""
    import timm

    torch.manual_seed(3)
    student = TimmClassifier("test_efficientnet", classes=2, dropout=0.3)
    student.backbone = timm.create_model("test_efficientnet", num_classes=0, drop_path_rate=0.3)
    student.train().enable_gradient_checkpointing()
    return make_full_step(student, teacher=None, recomputes=True, rho=0.05, scale=8.0)


def make_pictures(seed: int) -> Batch:
    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return build_batch(inputs, torch.tensor([0, 0, 1, 1]))


def trap_block(step: TrainStep, trap: Trap) -> None:
    """This layer runs twice a micro-batch and pass: in forward, and again in backward."""
    step.student.backbone.blocks[1][0].bn1.register_forward_hook(lambda _, args, out: trap(out))


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
@pytest.mark.parametrize("call", range(1, 9), ids=lambda call: f"{'forward' if call % 2 else 'backward'} {call}")
def test_a_fault_in_a_forward_or_in_what_backward_computes_again_leaves_no_trace(
    call: int, error: type[BaseException] | None
) -> None:
    """Two passes of two parts, forward and again in backward: eight calls of a layer."""
    calls, step = [], make_checkpointed_step()
    step.student.backbone.blocks[1][0].bn1.register_forward_hook(lambda *_: calls.append(1))
    assert step(make_pictures(0), START).ok
    assert len(calls) == 8
    trap_block(step, Trap(call, to_nan if error is None else raise_from(error)))
    before = take_snapshot(step)
    if error is None:
        result = step(make_pictures(1), START)
        assert result.status == "skipped"
        if result.is_overflow:
            before["loss_scale"] = {**before["loss_scale"], "scale": 4.0, "_growth_tracker": 0}
    else:
        with pytest.raises(error):
            step(make_pictures(1), START)
    assert are_identical(take_snapshot(step), before)
    assert step(make_pictures(2), START).ok


# --- What else a step may touch -------------------------------------------------------------------------------------


def test_buffers_that_are_not_saved_are_rolled_back_too() -> None:
    class Counting(TinyStudent):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, image: Tensor) -> Outputs:
            self.calls += 1
            return super().forward(image)

    student = Counting().train()
    step = make_step(student)
    trap_loss(step, Trap(1, to_nan))
    assert not step(make_batch(), START).ok
    assert student.calls.item() == 0


def test_an_unused_parameter_is_no_fault() -> None:
    student = make_student()
    student.unused = nn.Linear(3, 3)
    before = student.unused.weight.detach().clone()
    assert make_step(student)(make_batch(), START).ok
    assert torch.equal(student.unused.weight, before)


def test_the_comparison_of_these_tests_notices_each_thing_that_a_step_moves() -> None:
    """A snapshot that forgot something would prove nothing."""
    step = start("adamw")
    before = take_snapshot(step)
    assert step(make_batch(0), START).ok
    after = take_snapshot(step)
    moved = {name for name in before if not are_identical(before[name], after[name])}
    assert moved == {"student", "optimizer", "rng", "hidden", "average", "loss_scale"}
    assert before["average"]["updates"] + 1 == after["average"]["updates"]
