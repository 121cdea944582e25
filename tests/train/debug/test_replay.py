"""A skipped step taken again: it ends as it ended, and what is said of it is where its values stopped being finite."""

from __future__ import annotations

import copy
import functools
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from sharpstudent.config.load import validate_keys
from sharpstudent.config.resolve import resolve
from sharpstudent.config.run_config import Stage
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.debug.nan_inspector import find_bad_rows, inspect_step, measure
from sharpstudent.train.debug.replay import describe_batch, replay_step
from sharpstudent.train.debug.skipped import SkippedSteps, load_skipped
from sharpstudent.train.run import Run
from sharpstudent.train.state import capture_step
from sharpstudent.train.step import TrainStep
from tiny_models import are_identical, make_batch, make_step, make_student, make_teacher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CPU = torch.device("cpu")
AT = Progress(epoch=1, step=3, epochs=2, steps_per_epoch=5)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


class Blows(nn.Module):
    """Passes on what it gets, times a factor that tests set; `on` says in which of a step's calls."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.on, self.calls = 1.0, (1, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (self.factor if self.calls in self.on else 1.0)


def make_blowing(factor: float = float("inf"), on: tuple[int, ...] = (1, 2)) -> Any:
    """A student whose branch blows up: in the n-th calls since `calls` was 0."""
    student: Any = make_student()
    student.branch = nn.Sequential(student.branch, Blows())
    student.branch[1].factor, student.branch[1].on = factor, on
    return student


def make_run(stage: Stage = 1, **keys: Any) -> Run:
    weights = {"teacher_weights": "t.tar", "pretrained_student_weights": "s.pth"}
    config = resolve(
        validate_keys(weights | keys, DeepfakeTask),
        stage=stage,
        name="run",
        config_name="config",
        task=DeepfakeTask,
        allow=(),
    )
    return Run(config, CPU, Console(file=io.StringIO()), resumed_from=None, dry_run=True)


def skip(step: TrainStep, folder: Path, batch: Batch | None = None, *, parts: int = 1) -> Path:
    """Take a step that is skipped, and keep it."""
    batch, step.parts = make_batch(4) if batch is None else batch, parts
    result = step(batch, AT)
    assert not result.ok
    lr = step.optimizer.base_optimizer.param_groups[0]["lr"]
    line = SkippedSteps(folder, 1).keep(
        batch,
        AT,
        result,
        settings={"lr": lr, "rho": step.optimizer.rho, "parts": parts},
        capture_state=lambda: capture_step(step, CPU),
    )
    assert "--replay" in line
    return folder / "skipped/epoch_1_step_3.pth"


@pytest.fixture(autouse=True)
def counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of a `Blows` are counted from the beginning of each step."""
    take = TrainStep.__call__

    def take_counted(self: TrainStep, batch: Batch, progress: Progress) -> Any:
        for module in self.student.modules():
            if isinstance(module, Blows):
                module.calls = 0
        return take(self, batch, progress)

    monkeypatch.setattr(TrainStep, "__call__", take_counted)


def replay(step: TrainStep, path: Path, run: Run | None = None) -> str:
    run = make_run() if run is None else run
    replay_step(run, step, path)
    return "\n".join(run.notes)


def poison(batch: Batch, *images: int) -> Batch:
    inputs = batch.inputs["image"].clone()
    inputs[list(images), 0, 2, 2] = float("nan")
    return replace(batch, inputs={"image": inputs})


# --- Taken again ----------------------------------------------------------------------------------------------------

CASES: dict[str, Callable[[], tuple[TrainStep, Batch]]] = {
    "image": lambda: (make_step(), poison(make_batch(4), 2)),
    "pass 1": lambda: (make_step(make_blowing()), make_batch(4)),
    "pass 2": lambda: (make_step(make_blowing(on=(2,)), base="adamw"), make_batch(4)),
    "rho": lambda: (make_step(rho=1e38), make_batch(4)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_step_ends_as_it_ended_and_leaves_the_state_that_it_met(case: str, tmp_path: Path) -> None:
    step, batch = CASES[case]()
    path = skip(step, tmp_path, batch)
    kept = load_skipped(path)
    torch.manual_seed(99)
    other, _ = CASES[case]()  # another process: nothing is as it was
    other.student.eval()
    with torch.no_grad():
        for p in other.student.parameters():
            p.add_(1.0)
    output = replay(other, path)
    assert f"epoch 1 step 3, taken again: the same, skipped because {kept.reason}" in output
    assert are_identical(dict(capture_step(other, CPU)), dict(kept.state))


def test_learning_rate_radius_and_parts_are_those_of_the_step(tmp_path: Path) -> None:
    step = make_step(make_blowing(on=(1, 2, 3)), rho=0.03)
    step.optimizer.set_lr(0.007)
    path = skip(step, tmp_path, parts=3)
    other = make_step(make_blowing(on=(1, 2, 3)), rho=0.5)
    output = replay(other, path)
    assert "settings: lr 0.007, rho 0.03, hard weight 0.6, 3 micro-batches" in output
    assert [group["lr"] for group in other.optimizer.base_optimizer.param_groups] == [0.007]
    assert (other.optimizer.rho, other.parts) == (0.03, 3)


def test_dropout_draws_the_same_masks(tmp_path: Path) -> None:
    """The step fails or not by what dropout draws: the replay must draw it again, whatever was drawn meanwhile."""

    class Unlucky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (float("nan") if self.training and torch.rand(()) < 0.5 else 1.0)

    outcomes = set()
    for seed in range(6):
        torch.manual_seed(seed)
        student: Any = make_student()
        student.branch = nn.Sequential(student.branch, Unlucky())
        step = make_step(student)
        if step(make_batch(4), AT).ok:
            outcomes.add("ok")
            continue
        torch.manual_seed(seed)
        path = skip(step, tmp_path / str(seed))
        for _ in range(3):
            torch.rand(5)
            step.student.eval()
            assert "the same, skipped because" in replay(step, path)
        outcomes.add("skipped")
    assert outcomes == {"ok", "skipped"}


def test_a_step_that_succeeds_now_is_reported_with_what_differs(tmp_path: Path) -> None:
    path = skip(make_step(make_blowing()), tmp_path)
    output = replay(make_step(make_blowing(factor=1.0)), path)
    taken = re.search(r"taken again: not the same\. Now: taken, with loss (0\.\d{4})\.", output)
    inspected = re.search(r"^  loss (0\.\d+) ", output, re.MULTILINE)
    assert taken is not None
    assert inspected is not None
    assert float(taken[1]) == pytest.approx(
        float(inspected[1]), abs=1e-4
    )  # the inspected step is this one, not at the next
    assert "In the run: skipped because the loss of pass 1 is not finite" in output
    assert "the teacher's file or this program may have changed" in output
    assert "nothing to fix here" in output
    assert "--set" not in output


def test_a_step_that_is_skipped_for_another_reason_is_not_the_same(tmp_path: Path) -> None:
    path = skip(make_step(make_blowing()), tmp_path)
    output = replay(make_step(make_blowing(on=(2,))), path)
    assert "not the same. Now: skipped because the loss of pass 2 is not finite. In the run: skipped because" in output


def test_another_kind_of_computer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "sharpstudent.train.debug.skipped.describe_computer",
            lambda device: {"device": "NVIDIA H100", "torch": torch.__version__},
        )
        path = skip(make_step(make_blowing()), tmp_path)
    output = replay(make_step(make_blowing(factor=1.0)), path)
    assert "computed differently from the run: device NVIDIA H100 -> cpu, threads None" in output


def test_random_states_of_another_device_are_left_aside(tmp_path: Path) -> None:
    from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
    from sharpstudent.core.io import compute_sha256

    path = skip(make_step(make_blowing()), tmp_path)
    (state,) = path.parent.glob("state_*.pth")
    stored = load_checkpoint(state)
    stored.tensors["rng"] |= {"cuda": [torch.zeros(16, dtype=torch.uint8)], "mps": torch.zeros(16, dtype=torch.uint8)}
    save_checkpoint(state, stored.tensors, about={})
    batch = load_checkpoint(path)
    save_checkpoint(path, batch.tensors, about={**batch.about, "state_sha256": compute_sha256(state)})
    assert "the same, skipped because" in replay(make_step(make_blowing()), path)


def test_running_out_of_memory_is_reported_with_the_remedy(tmp_path: Path) -> None:
    path = skip(make_step(make_blowing()), tmp_path)
    other = make_step(make_blowing())

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    other.student.register_forward_hook(refuse)
    with pytest.raises(UserError, match="memory ran out"):
        replay(other, path)


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_other", "words"),
    [
        (lambda: make_step(make_student(width=9)), "stem.weight: (6, 3, 3, 3) in the file, (9, 3, 3, 3) in the model"),
        (lambda: make_step(make_student(norm=lambda n: nn.GroupNorm(2, n))), "absent in the model"),
        (lambda: make_step(base="adamw"), "its stored state is that of another kind"),
    ],
)
def test_another_model_or_optimiser_is_refused(make_other: Callable[[], TrainStep], words: str, tmp_path: Path) -> None:
    path = skip(make_step(), tmp_path, poison(make_batch(), 0))
    other = make_other()
    before = copy.deepcopy(capture_step(other, CPU))
    with pytest.raises(UserError) as caught:
        replay(other, path)
    assert words in caught.value.as_text()
    assert "another model or optimiser" in caught.value.as_text()
    assert are_identical(dict(capture_step(other, CPU)), before)


# --- What is said ---------------------------------------------------------------------------------------------------


def test_images_that_are_not_finite_are_named_as_what_to_fix(tmp_path: Path) -> None:
    output = replay(make_step(), skip(make_step(), tmp_path, poison(make_batch(4), 2, 5)))
    assert "batch: 8 rows, image (8, 3, 9, 9), values 0." in output
    assert "2 of 1944 not finite" in output
    assert "inputs not finite: image 2, image 5" in output
    assert output.splitlines()[-1].startswith("to fix: the samples named above")
    assert "pass 1" not in output  # it was never computed


def test_the_layer_where_it_begins_is_named_with_its_finite_input(tmp_path: Path) -> None:
    output = replay(make_step(make_blowing()), skip(make_step(make_blowing()), tmp_path))
    assert "pass 1, at the weights:\n  first output that is not finite: branch.1 (Blows), " in output
    assert "its input was finite: " in output
    assert "loss nan (hard nan)" in output
    assert "gradient" not in output
    assert "pass 2" not in output
    assert "--set stage1.lr=1e-05  (now 0.0001; a lower learning rate)" in output
    assert "--set stage1.warmup=0.05" in output
    assert "rho=" not in output


def test_a_fault_of_pass_2_alone_advises_a_smaller_radius(tmp_path: Path) -> None:
    step = make_step(make_blowing(on=(2,)))
    output = replay(make_step(make_blowing(on=(2,))), skip(step, tmp_path))
    first, second = output.split("pass 2, at the weights moved by rho:")
    assert "the output of every layer is finite" in first
    assert "gradient: norm " in first
    assert "first output that is not finite: branch.1 (Blows)" in second
    assert "--set stage1.rho=0.025  (now 0.05; a smaller SAM radius)" in second
    assert "--set stage1.rho_warmup=0.1" in second
    assert ".lr=" not in output


def test_gradients_that_are_not_finite_are_named_from_the_loss_on(tmp_path: Path) -> None:
    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * float("nan")

    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Slope.apply(x)  # type: ignore[no-any-return]

    def make() -> TrainStep:
        student: Any = make_student()
        student.norm = nn.Sequential(student.norm, Steep())
        return make_step(student)

    output = replay(make(), skip(make(), tmp_path))
    assert "skipped because the gradient of pass 1 is not finite" in output
    # Behind the steep place, the branch and the head are reached before it.
    assert "gradient: norm nan; not finite in 3 of 7 weights, nearest to the loss norm.0.bias, norm.0.weight" in output
    assert "the output of every layer is finite" in output


def test_the_largest_gradients_are_named_where_all_are_finite(tmp_path: Path) -> None:
    step = make_step(make_blowing(on=(2,)))
    path = skip(step, tmp_path)
    other = make_step(make_blowing(on=(2,)))
    output = replay(other, path)
    kept = load_skipped(path)
    torch.set_rng_state(kept.state["rng"]["torch"])
    other.student.branch[1].on = ()
    other.criterion(other.student(kept.batch.inputs["image"]), kept.batch, {}, AT).total.backward()
    sizes = {name: float(p.grad.abs().max()) for name, p in other.student.named_parameters() if p.grad is not None}
    expected = [f"{name} {sizes[name]:.4g}" for name in sorted(sizes, key=lambda name: -sizes[name])[:3]]
    assert f"largest in {', '.join(expected)}" in output


def test_a_teacher_with_outputs_that_are_not_finite_is_reported_by_layer_weight_and_file(tmp_path: Path) -> None:
    def make() -> TrainStep:
        teacher: Any = make_teacher()
        teacher.model.net.branch.weight.data[0] = float("nan")
        return make_step(teacher=teacher)

    output = replay(make(), skip(make(), tmp_path), make_run(stage=2))
    assert "teacher: outputs not one finite value" in output
    assert "not finite for all 8 rows" in output
    assert "first output that is not finite: model.net.branch (Conv2d)" in output
    assert "weights not finite: model.net.branch.weight" in output
    assert output.splitlines()[-1] == "to fix: the weights of the teacher, teacher_weights = 't.tar'"


def make_averaging(*, factor: float = 1.0, parts: int = 1, **settings: Any) -> TrainStep:
    """A step whose averaged weights are others than the student's. factor: of one layer of them."""
    student = make_blowing(on=(2,))
    average = WeightAverage(make_student(7), decay=0.9)
    average.update(make_student(7))
    average._average.module.head.weight.data.mul_(factor)  # type: ignore[union-attr]
    student.branch = student.branch[0]
    step = make_step(student, average=average, **{"rho": 1e38, **settings})
    step.parts = parts
    return step


@pytest.mark.parametrize("parts", [1, 3])
def test_the_outputs_of_the_averaged_weights_are_shown_where_the_run_has_them(parts: int, tmp_path: Path) -> None:
    step = make_averaging()
    path = skip(step, tmp_path, parts=parts)
    assert step.average is not None
    with torch.no_grad():
        logits = step.average.model(**make_batch(4).inputs)["logits"]
    output = replay(make_averaging(), path)
    assert f"averaged weights: outputs {measure(logits)}\n" in output
    assert "averaged weights" not in replay(make_step(rho=1e38), skip(make_step(rho=1e38), tmp_path / "without"))


def test_averaged_weights_with_outputs_that_are_not_finite_are_reported_by_layer_and_weight(tmp_path: Path) -> None:
    output = replay(make_averaging(), skip(make_averaging(factor=float("inf")), tmp_path))
    shown = output.split("averaged weights: ")[1].split("pass 1")[0]
    assert "not finite for all 8 rows" in shown
    assert "first output that is not finite: head (Linear)" in shown
    assert "weights not finite: head.weight" in shown


def test_no_model_runs_on_images_that_are_not_finite(tmp_path: Path) -> None:
    output = replay(make_averaging(), skip(make_averaging(), tmp_path, poison(make_batch(4), 2)))
    assert "inputs not finite: image 2" in output
    assert "averaged weights" not in output


def test_weights_that_were_not_finite_before_are_named_as_what_to_fix(tmp_path: Path) -> None:
    def make() -> TrainStep:
        step = make_step()
        step.student.head.bias.data[0] = float("nan")  # type: ignore[union-attr]
        return step

    output = replay(make(), skip(make(), tmp_path), make_run(stage=2))
    assert "student: weights not finite before the step: head.bias" in output
    assert "it began with pretrained_student_weights = 's.pth'" in output


def test_statistics_that_overflow_are_reported_with_the_input_of_their_layer(tmp_path: Path) -> None:
    def make() -> TrainStep:
        student: Any = make_student()
        student.stem = nn.Sequential(student.stem, Blows())
        student.stem[1].factor = 1e20
        return make_step(student)

    output = replay(make(), skip(make(), tmp_path))
    assert "skipped because the buffer norm.running_var is not finite" in output
    assert "  norm took in -" in output


def test_stage_2_gets_the_guides_advice_too(tmp_path: Path) -> None:
    step = make_step(make_blowing(), teacher=make_teacher())
    output = replay(make_step(make_blowing(), teacher=make_teacher()), skip(step, tmp_path), make_run(stage=2))
    assert "--set stage2.lr=5e-06" in output
    assert "the stage-1 checkpoint exists and is the one loaded (here: s.pth" in output
    assert "kd temperature 3" in output


def test_half_precision_is_the_first_suspect(tmp_path: Path) -> None:
    output = replay(make_step(make_blowing()), skip(make_step(make_blowing()), tmp_path), make_run(precision="bf16"))
    assert "to try, one at a time, in a new run:\n  --set precision=fp32  (now bf16)" in output


@pytest.mark.parametrize("case", CASES)
def test_all_of_it_is_short(case: str, tmp_path: Path) -> None:
    step, batch = CASES[case]()
    assert len(replay(CASES[case]()[0], skip(step, tmp_path, batch)).splitlines()) < 20


# --- The NaN inspector ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_an_inspected_step_is_the_step_bit_for_bit_and_leaves_no_hook(rho: float, parts: int, averages: bool) -> None:
    results, states, steps = [], [], []
    for take in (lambda step: step(make_batch(), AT), lambda step: inspect_step(step, make_batch(), AT).result):
        torch.manual_seed(5)
        step = make_step(teacher=make_teacher(), rho=rho, base="adamw")
        step.parts = parts
        if averages:
            step.average = WeightAverage(step.student, decay=0.9)
        results.append(take(step))
        states.append(copy.deepcopy(capture_step(step, CPU)))
        steps.append(step)
    assert results[0].ok
    assert results[0] == results[1]
    assert are_identical(*states)
    hooked = [m for model in (steps[1].student, steps[1].teacher) for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hooked)


def test_the_inspector_reports_the_numbers_of_a_good_step() -> None:
    step = make_step(teacher=make_teacher())
    step.parts = 3
    inspection = inspect_step(step, make_batch(), AT)
    first, second = inspection.passes
    assert first.loss == pytest.approx(inspection.result.loss)
    assert first.terms == pytest.approx(dict(inspection.result.terms))
    assert second.loss == pytest.approx(inspection.result.perturbed_loss)
    assert second.grad_norm == pytest.approx(inspection.result.grad_norm)
    assert first.outputs.shape == (8, 2)
    assert (first.fault, second.fault, inspection.teacher_fault) == (None, None, None)


def test_a_fault_between_the_parts_of_a_module_is_the_modules_own() -> None:
    class Divides(nn.Module):
        """As timm's norm layers, which compute themselves and then call their activation."""

        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x / 0.0)

    student: Any = make_student()
    student.branch = nn.Sequential(student.branch, Divides())
    fault = inspect_step(make_step(student), make_batch(), AT).passes[0].fault
    assert fault is not None
    assert (fault.name, fault.kind) == ("branch.1", "Divides")
    assert fault.inputs.not_finite == 0
    assert fault.output.not_finite > 0


def test_a_module_that_changes_its_input_in_place_is_reported_with_the_input_it_received() -> None:
    class Spoils(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(float("inf"))

    student: Any = make_student()
    student.branch = nn.Sequential(student.branch, Spoils())
    fault = inspect_step(make_step(student), make_batch(), AT).passes[0].fault
    assert fault is not None
    assert (fault.name, fault.inputs.not_finite) == ("branch.1", 0)


def test_the_layers_of_a_compiled_student_are_seen_and_it_stays_compiled() -> None:
    student, graphs = make_blowing(), []
    student.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward)
    compiled = student._compiled_call_impl
    fault = inspect_step(make_step(student), make_batch(), AT).passes[0].fault
    assert fault is not None
    assert fault.name == "branch.1"
    assert student._compiled_call_impl is compiled is not None
    assert graphs == []  # compiling the hooks in would take minutes


def test_layers_that_are_computed_again_in_backward_confuse_nothing() -> None:
    inspections = []
    for recomputes in (False, True):
        student: Any = make_student()
        student.branch = nn.Sequential(student.branch, nn.Tanh(), nn.Conv2d(6, 6, 1, bias=False))
        student.branch[2].weight.data.fill_(0.1)
        if recomputes:
            inner = student.branch.forward
            student.branch.forward = functools.partial(checkpoint, inner, use_reentrant=False)
        step = make_step(student, rho=1e38)
        step.recomputes = recomputes
        torch.manual_seed(1)
        inspections.append(inspect_step(step, make_batch(), AT))
    plain, found = inspections
    assert found.result.reason == "the loss of pass 2 is not finite"
    assert found.passes[0].fault is None
    assert found.passes[1].fault is not None
    assert str(found.passes[1].fault) == str(plain.passes[1].fault)  # as text: nan is not nan
    assert found.passes[0].inputs == plain.passes[0].inputs


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_gradients_of_a_scaled_loss_are_reported_as_those_of_the_loss(rho: float) -> None:
    plain, scaled = make_step(rho=rho), make_step(rho=rho)
    scaled.loss_scale = LossScale("cpu", initial=1024.0)
    torch.manual_seed(3)
    expected = inspect_step(plain, make_batch(), AT)
    torch.manual_seed(3)
    found = inspect_step(scaled, make_batch(), AT)
    assert [p.grad_norm for p in found.passes] == pytest.approx([p.grad_norm for p in expected.passes], rel=1e-4)
    assert found.passes[0].gradients == pytest.approx(expected.passes[0].gradients, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("parts", [1, 3, 8, 20])
def test_images_are_named_whatever_parts_they_passed_in(parts: int) -> None:
    batch = poison(make_batch(), 1, 6)
    joined = torch.cat([piece.inputs["image"] for piece in batch.split(parts)])
    assert find_bad_rows([joined]) == [1, 6]
    other = torch.zeros(8, 2)
    other[3, 1] = float("inf")
    assert find_bad_rows([joined, other]) == [1, 3, 6]


def test_a_shared_input_that_is_not_finite_names_the_rows_that_read_it() -> None:
    pictures = torch.tensor([[0.0], [float("nan")]])
    batch = Batch(
        inputs={"image": pictures, "place": torch.tensor([0, 1, 0, 1])},
        targets={},
        rows={"id": ("a", "b", "c", "d")},
        shared={"image": "place"},
    )
    assert describe_batch(batch)[1] == "  inputs not finite: b, d"


def test_a_range_counts_what_is_not_finite_and_spans_the_rest() -> None:
    nan, inf = float("nan"), float("inf")
    assert str(measure(torch.tensor([1.0, -2.5]), torch.tensor([[3.0]]))) == "-2.5 .. 3"
    assert str(measure(torch.tensor([1.0, nan, -inf, 4.0]))) == "1 .. 4, 2 of 4 not finite"
    assert str(measure(torch.tensor([nan, inf]))) == "not one finite value"
    assert str(measure(torch.tensor([-0.0]))) == "0 .. 0"
    assert measure(torch.tensor([7])).high == 7
    assert measure().count == 0
