"""One update as a transaction: what it computes when all is well, and that nothing has happened when it is not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import (
    START,
    TinyStudent,
    are_identical,
    compute_weights_hash,
    make_batch,
    make_criterion,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from torch import Tensor, nn

from lib.criterion.weighted_sum import LossValue, WeightedSum, WeightedTerm
from lib.engine.step import TrainStep, batchnorm_statistics_frozen
from lib.schedules import Progress
from lib.types import Batch, Outputs


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


# --- What a step computes -------------------------------------------------------------------------------------------


def test_a_step_is_two_passes_at_w_and_at_w_plus_e_and_one_base_step() -> None:
    """Written out again in the fewest words, with torch's own clipping."""
    step = make_step(teacher=make_teacher())
    student, batch = copy.deepcopy(step.student), make_batch()
    sgd = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    logits = step.teacher(batch.inputs)
    before = torch.get_rng_state()

    def backward() -> Tensor:
        torch.set_rng_state(before)
        student.zero_grad()
        loss = step.criterion(student(batch.inputs), batch, logits, START).total
        loss.backward()
        return loss.detach()

    loss = backward()
    buffers = copy.deepcopy(dict(student.named_buffers()))
    weights = [p.detach().clone() for p in student.parameters()]
    norm = torch.cat([p.grad.flatten() for p in student.parameters()]).norm()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(p.grad * (0.05 / norm))
    backward()
    with torch.no_grad():
        for p, saved in zip(student.parameters(), weights, strict=True):
            p.copy_(saved)
    applied = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    sgd.step()

    torch.set_rng_state(before)
    result = step(batch, START)
    assert result.ok
    assert result.loss == pytest.approx(loss.item(), abs=1e-6)
    assert result.grad_norm == pytest.approx(applied.item(), rel=1e-5)
    for p, q in zip(step.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert are_identical(dict(step.student.named_buffers()), buffers)


def test_the_result_names_the_loss_of_pass_1_and_its_terms() -> None:
    result = make_step(teacher=make_teacher())(make_batch(), START)
    assert (result.status, result.reason) == ("ok", None)
    assert list(result.terms) == ["hard", "kd"]
    assert result.loss == pytest.approx(0.6 * result.terms["hard"] + 0.4 * result.terms["kd"], rel=1e-5)


def test_the_step_learns() -> None:
    step, batch = make_step(), make_batch()
    losses = [step(batch, START).loss for _ in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_the_same_steps_from_the_same_state_are_bit_identical(base: str, rho: float) -> None:
    results, states = [], []
    for _ in range(2):
        torch.manual_seed(7)
        step = make_step(teacher=make_teacher(), rho=rho, base=base)
        results.append([step(make_batch(i), START) for i in range(3)])
        states.append(take_snapshot(step))
    assert results[0] == results[1]
    assert are_identical(*states)


def test_at_rho_zero_there_is_one_pass() -> None:
    passes = []
    step = make_step(rho=0.0)
    step.student.register_forward_hook(lambda *_: passes.append(1))
    step(make_batch(), START)
    assert len(passes) == 1


def test_the_gradient_is_clipped_once_after_the_second_pass() -> None:
    step = make_step()
    clips: list[float] = []
    real = step.optimizer.clip
    step.optimizer.clip = lambda norm, limit: (clips.append(float(norm)), real(norm, limit))  # type: ignore
    result = step(make_batch(), START)
    assert clips == [pytest.approx(result.grad_norm)]


def test_a_teacher_whose_weight_is_zero_changes_no_bit_of_the_student() -> None:
    states = []
    for teacher in (None, make_teacher()):
        torch.manual_seed(7)
        step = make_step(teacher=teacher, criterion=make_criterion(hard=1.0, kd=None if teacher is None else 0.0))
        for i in range(3):
            assert step(make_batch(i), START).ok
        states.append(take_snapshot(step))
    assert are_identical(*states)


# --- The teacher ----------------------------------------------------------------------------------------------------


def test_the_teacher_is_asked_once_a_step_and_gets_the_students_very_tensor() -> None:
    teacher, seen = make_teacher(), []
    step = make_step(teacher=teacher)
    step.student.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for i in range(3):
        batch = make_batch(i)
        step(batch, START)
        assert len(teacher.model.seen) == i + 1
        assert len(seen) == 2 * (i + 1)
        assert all(tensor is batch.inputs for tensor in (teacher.model.seen[-1], *seen[-2:]))


def test_stage_1_asks_no_teacher() -> None:
    step = make_step(teacher=None)
    assert step.teacher is None
    assert "kd" not in step(make_batch(), START).terms


def test_the_teachers_answer_of_pass_1_is_what_pass_2_is_compared_with() -> None:
    answers: list[Outputs | None] = []

    class Spy(WeightedSum):
        def __call__(
            self, outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None, progress: Progress
        ) -> LossValue:
            answers.append(teacher_outputs)
            return super().__call__(outputs, batch, teacher_outputs, progress)

    step = make_step(teacher=make_teacher(), criterion=Spy(make_criterion().terms))
    step(make_batch(), START)
    assert len(answers) == 2
    assert answers[0] is answers[1]
    assert not answers[0].logits.requires_grad


def test_a_frozen_teacher_stays_in_evaluation_mode_whatever_is_asked_of_it() -> None:
    teacher = make_teacher()
    step = make_step(teacher=teacher)
    step.student.train()
    for ask in (teacher.train, lambda: teacher.train(True), lambda: nn.ModuleList([teacher]).train()):
        ask()
        assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_frozen_teacher_inside_a_student_survives_the_students_train() -> None:
    student = make_student()
    student.teacher = make_teacher()
    student.train()
    assert student.norm.training
    assert not any(module.training for module in student.teacher.modules())


def test_the_teacher_is_the_same_to_the_last_bit_after_training() -> None:
    teacher = make_teacher()
    step = make_step(teacher=teacher)
    before, buffers = compute_weights_hash(teacher), copy.deepcopy(dict(teacher.named_buffers()))
    for i in range(4):
        teacher.train()
        assert step(make_batch(i), START).ok
    assert compute_weights_hash(teacher) == before
    assert are_identical(dict(teacher.named_buffers()), buffers)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_hash_of_weights_notices_one_changed_bit_and_one_changed_counter() -> None:
    student = make_student()
    before = compute_weights_hash(student)
    assert compute_weights_hash(make_student()) == before
    with torch.no_grad():
        student.stem.weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    changed = compute_weights_hash(student)
    student.norm.num_batches_tracked += 1
    assert len({before, changed, compute_weights_hash(student)}) == 3


# --- BatchNorm and masks --------------------------------------------------------------------------------------------


class NormOf(nn.Module):
    """One BatchNorm kind on the input it wants, then a head."""

    def __init__(self, norm: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.norm = shape, norm
        self.stem, self.head = nn.Linear(243, shape[0] * int(torch.tensor(shape[1:]).prod())), nn.Linear(shape[0], 2)

    def forward(self, images: Tensor) -> Outputs:
        x = self.norm(self.stem(images.flatten(1)).view(-1, *self.shape))
        return Outputs(logits=self.head(x.flatten(2).mean(2) if x.ndim > 2 else x))


def make_timm_norm(channels: int) -> nn.Module:
    from timm.layers import BatchNormAct2d

    return BatchNormAct2d(channels)


NORMS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "1d": (nn.BatchNorm1d, (4,)),
    "1d of sequences": (nn.BatchNorm1d, (4, 5)),
    "2d": (nn.BatchNorm2d, (4, 3, 3)),
    "3d": (nn.BatchNorm3d, (4, 2, 2, 2)),
    "timm with activation": (make_timm_norm, (4, 3, 3)),
    "cumulative average": (lambda c: nn.BatchNorm2d(c, momentum=None), (4, 3, 3)),
    "without statistics": (lambda c: nn.BatchNorm2d(c, track_running_stats=False), (4, 3, 3)),
}


@pytest.mark.parametrize("kind", NORMS)
def test_batchnorm_statistics_after_a_step_are_those_of_pass_1_alone(kind: str) -> None:
    build, shape = NORMS[kind]
    model = NormOf(build(shape[0]), shape).train()
    alone = copy.deepcopy(model)
    step = make_step(model)
    for i in range(2):
        alone.load_state_dict(model.state_dict())
        alone(make_batch(i).inputs)
        assert step(make_batch(i), START).ok
        assert are_identical(dict(model.named_buffers()), dict(alone.named_buffers()))
    if kind != "without statistics":
        assert int(model.norm.num_batches_tracked) == 2


def test_a_batchnorm_layer_that_is_kept_in_evaluation_mode_keeps_its_statistics_and_its_function() -> None:
    student = make_student()
    student.norm.eval()
    outputs: list[tuple[Tensor, Tensor]] = []

    def record(norm: nn.Module, args: Any, out: Tensor) -> None:
        affine = args[0] * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        outputs.append((affine.detach(), out.detach()))

    student.norm.register_forward_hook(record)
    before = copy.deepcopy(dict(student.named_buffers()))
    assert make_step(student)(make_batch(), START).ok
    assert are_identical(dict(student.named_buffers()), before)
    assert len(outputs) == 2
    for affine, said in outputs:  # running mean 0 and variance 1, in both passes
        torch.testing.assert_close(said, affine, rtol=0, atol=1e-4)


def test_pass_2_normalises_by_its_own_batch_as_in_training() -> None:
    student = make_student()
    means: list[Tensor] = []
    student.norm.register_forward_hook(lambda norm, _, out: means.append((out.mean((0, 2, 3)) - norm.bias).detach()))
    assert make_step(student)(make_batch(), START).ok
    assert len(means) == 2
    for mean in means:
        torch.testing.assert_close(mean, torch.zeros(6), rtol=0, atol=1e-5)


def test_freezing_twice_and_leaving_by_an_error_does_not_lose_the_tracking() -> None:
    student = make_student()
    with pytest.raises(KeyError), batchnorm_statistics_frozen(student), batchnorm_statistics_frozen(student):
        raise KeyError
    assert student.norm.track_running_stats
    assert student.norm.momentum == 0.1
    student(make_batch().inputs)
    assert int(student.norm.num_batches_tracked) == 1


def record_masks(student: TinyStudent) -> list[Tensor]:
    masks: list[Tensor] = []
    student.dropout.register_forward_hook(lambda _, args, out: masks.append((out == 0) & (args[0] != 0)))
    return masks


def test_dropout_and_stochastic_depth_draw_the_same_masks_in_both_passes_and_others_in_the_next_step() -> None:
    step = make_step(teacher=make_teacher())
    masks = record_masks(step.student)
    for i in range(3):
        step(make_batch(i), START)
    for drawn in (masks, step.student.depth.kept):
        assert len(drawn) == 6
        for first, second in zip(drawn[::2], drawn[1::2], strict=True):
            assert torch.equal(first, second)
            assert first.any()
            assert not first.all()
    assert not torch.equal(masks[0], masks[2])


def test_a_real_student_draws_the_same_masks_and_keeps_the_statistics_of_pass_1() -> None:
    """timm's own drop path and BatchNorm, and our head."""
    import timm

    from lib.models.classifier import TimmClassifier

    student = TimmClassifier("test_resnet", classes=2, dropout=0.3)
    student.backbone = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5, zero_init_last=False)
    student.train()
    draws: list[tuple[str, Tensor, Tensor]] = []
    for name, module in student.named_modules():
        if type(module).__name__ in ("Dropout", "DropPath"):
            module.register_forward_hook(lambda _, args, out, name=name: draws.append((name, args[0] != 0, out == 0)))
    inputs = torch.rand(4, 3, 32, 32)
    batch = Batch(inputs, torch.tensor([0, 0, 1, 1]), ("a",) * 4, ("a",) * 4, ("a",) * 4)
    alone = copy.deepcopy(student)
    alone(inputs)
    draws.clear()
    torch.manual_seed(5)
    assert make_step(student)(batch, START).ok
    half = len(draws) // 2
    assert half >= 3
    for (name, alive, dropped), (same, still_alive, again) in zip(draws[:half], draws[half:], strict=True):
        assert name == same
        assert torch.equal((dropped & alive)[still_alive], (again & alive)[still_alive])
        assert (alive & still_alive).any()
    counters = [b for name, b in student.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(counter) for counter in counters} == {1}


def test_the_random_state_after_a_step_is_that_of_one_pass() -> None:
    states = []
    for rho in (0.0, 0.05):
        torch.manual_seed(3)
        make_step(make_student(), rho=rho)(make_batch(), START)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# --- Faults ---------------------------------------------------------------------------------------------------------


class Trap:
    """Does its mischief at the given call of something that is called once a pass."""

    def __init__(self, at: int, mischief: Callable[[Any], Any]) -> None:
        self.at, self.mischief, self.calls = at, mischief, 0

    def __call__(self, value: Any) -> Any:
        self.calls += 1
        return self.mischief(value) if self.calls == self.at else value


def to_nan(value: Tensor) -> Tensor:
    return value * float("nan")


def trap_loss(step: TrainStep, trap: Trap) -> None:
    """Replaces the criterion by one whose term passes through the trap."""
    terms = [
        WeightedTerm(
            t.name, lambda *args, t=t, **kw: trap(t.compute(*args, **kw)), t.weight, t.settings, t.needs_teacher
        )
        for t in step.criterion.terms[:1]
    ]
    step.criterion = WeightedSum([*terms, *step.criterion.terms[1:]])


def trap_gradient(step: TrainStep, trap: Trap) -> None:
    step.student.branch.weight.register_hook(trap)


def trap_forward(step: TrainStep, trap: Trap) -> None:
    step.student.depth.register_forward_hook(lambda _, args, out: trap(out))


def trap_teacher(step: TrainStep, trap: Trap) -> None:
    step.teacher.register_forward_hook(lambda _, args, out: Outputs(logits=trap(out.logits)))


def trap_buffer(step: TrainStep, trap: Trap) -> None:
    def poison(_: nn.Module, args: Any, out: Tensor) -> None:
        if trap(0) != 0:
            step.student.norm.running_var.data[0] = float("inf")  # behind the back of autograd

    step.student.norm.register_forward_hook(poison)


def trap_inputs(step: TrainStep, trap: Trap) -> None:
    """Nothing to set: the batch itself is bad, see `run_into`."""


NON_FINITE: dict[str, tuple[Callable[[TrainStep, Trap], None], Trap, str]] = {
    "input": (trap_inputs, Trap(1, to_nan), "the input batch is not finite"),
    "teacher": (trap_teacher, Trap(2, to_nan), "the teacher's logits is not finite"),
    "loss of pass 1": (trap_loss, Trap(3, to_nan), "the loss of pass 1 is not finite"),
    "loss of pass 2": (trap_loss, Trap(4, to_nan), "the loss of pass 2 is not finite"),
    "gradient of pass 1": (trap_gradient, Trap(3, to_nan), "the gradient of pass 1 is not finite"),
    "gradient of pass 2": (trap_gradient, Trap(4, to_nan), "the gradient of pass 2 is not finite"),
    "activation of pass 2": (trap_forward, Trap(4, to_nan), "the loss of pass 2 is not finite"),
    "buffer": (trap_buffer, Trap(3, lambda _: 1), "the buffer norm.running_var is not finite"),
}


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("fault", NON_FINITE)
def test_a_non_finite_value_skips_the_step_and_leaves_no_trace(fault: str, base: str) -> None:
    """One good step, the fault, another good step: as if the fault had never been."""
    set_trap, prototype, reason = NON_FINITE[fault]
    states = []
    for is_faulty in (True, False):
        torch.manual_seed(11)
        step = make_step(make_student(), teacher=make_teacher(), base=base)
        if is_faulty:
            set_trap(step, Trap(prototype.at, prototype.mischief))
        assert step(make_batch(0), START).ok
        if is_faulty:
            before = take_snapshot(step)
            batch = make_batch(1)
            if fault == "input":
                batch.inputs[3, 1, 4, 4] = float("nan")
            result = step(batch, START)
            assert (result.status, result.reason) == ("skipped", reason)
            assert not result.ok
            assert are_identical(take_snapshot(step), before)
            assert all(p.grad is None for p in step.student.parameters())
        result = step(make_batch(2), START)
        assert result.ok
        states.append((take_snapshot(step), result.loss, result.grad_norm))
    assert are_identical(*states)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_bad_pixel_of_any_kind_is_noticed_before_the_teacher_is_asked(value: float) -> None:
    teacher, batch = make_teacher(), make_batch()
    batch.inputs[0, 0, 0, 0] = value
    result = make_step(teacher=teacher)(batch, START)
    assert result.reason == "the input batch is not finite"
    assert teacher.model.seen == []


def test_the_very_first_step_may_be_the_bad_one() -> None:
    """The optimiser has no state yet, and must not get one."""
    step = make_step()
    before = take_snapshot(step)
    trap_loss(step, Trap(2, to_nan))
    assert not step(make_batch(), START).ok
    assert are_identical(take_snapshot(step), before)


def test_a_gradient_that_overflows_only_in_its_norm_is_skipped_too() -> None:
    step = make_step()
    trap_gradient(step, Trap(1, lambda g: torch.full_like(g, 3e38)))
    before = take_snapshot(step)
    assert step(make_batch(), START).reason == "the gradient of pass 1 is not finite"
    assert are_identical(take_snapshot(step), before)


def raise_from(error: type[BaseException]) -> Callable[[Any], Any]:
    def mischief(_: Any) -> Any:
        raise error("injected")

    return mischief


def trap_optimizer(step: TrainStep, trap: Trap) -> None:
    """Before the base step has moved anything."""
    step.optimizer.base_optimizer.register_step_pre_hook(lambda *_: trap(None))


PHASES: dict[str, tuple[Callable[[TrainStep, Trap], None], int]] = {
    "teacher": (trap_teacher, 2),
    "forward 1": (trap_forward, 3),
    "loss 1": (trap_loss, 3),
    "backward 1": (trap_gradient, 3),
    "forward 2": (trap_forward, 4),
    "loss 2": (trap_loss, 4),
    "backward 2": (trap_gradient, 4),
    "base step": (trap_optimizer, 2),
}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("phase", PHASES)
def test_an_exception_in_any_phase_passes_through_and_leaves_no_trace(phase: str, error: type[BaseException]) -> None:
    set_trap, at = PHASES[phase]
    states = []
    for is_faulty in (True, False):
        torch.manual_seed(11)
        step = make_step(make_student(), teacher=make_teacher())
        if is_faulty:
            set_trap(step, Trap(at, raise_from(error)))
        assert step(make_batch(0), START).ok
        if is_faulty:
            before = take_snapshot(step)
            with pytest.raises(error):
                step(make_batch(1), START)
            assert are_identical(take_snapshot(step), before)
            assert step.student.norm.track_running_stats
        assert step(make_batch(2), START).ok
        states.append(take_snapshot(step))
    assert are_identical(*states)


def test_buffers_that_are_not_saved_are_rolled_back_too() -> None:
    class Counting(TinyStudent):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, images: Tensor) -> Outputs:
            self.calls += 1
            return super().forward(images)

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


def test_the_teachers_answer_carries_no_graph() -> None:
    teacher = make_teacher()
    assert teacher(make_batch().inputs).logits.grad_fn is None
