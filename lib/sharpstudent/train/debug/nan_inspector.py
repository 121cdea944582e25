"""A look into one step from outside: hooks and two stand-ins note what passes through it, and change none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import FEATURES, Batch, StepResult
from sharpstudent.criterion.weighted_sum import LossValue
from sharpstudent.models.forward import run_model
from sharpstudent.train.step import TrainStep, find_floats


@dataclass(frozen=True)
class Range:
    """Smallest and largest finite value of some tensors (nan where there is none), and how many are not finite."""

    low: float
    high: float
    not_finite: int
    count: int

    def __str__(self) -> str:
        if self.not_finite == self.count:
            return "not one finite value"
        values = f"{self.low:.4g} .. {self.high:.4g}"
        return f"{values}, {self.not_finite} of {self.count} not finite" if self.not_finite else values


@dataclass(frozen=True)
class Fault:
    """A module whose output is not finite; `inputs` as it met them."""

    name: str
    kind: str
    inputs: Range
    output: Range


@dataclass
class Pass:
    """What was seen of one pass. inputs: of each module by name, over all micro-batches the last; gradients: by
    parameter, the largest magnitude (inf or nan where it is not finite).
    """

    name: str
    fault: Fault | None = None
    inputs: dict[str, Range] = field(default_factory=dict[str, Range])
    outputs: Tensor | None = None
    values: list[LossValue] = field(default_factory=list[LossValue])
    grad_norm: float | None = None
    gradients: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def terms(self) -> dict[str, float]:
        """Loss terms without their weights: sums over the micro-batches that were seen."""
        names = dict.fromkeys(name for value in self.values for name in value.terms)
        return {name: sum(float(value.terms[name]) for value in self.values) for name in names}

    @property
    def loss(self) -> float:
        """Their weighted sum."""
        return sum(float(value.total) for value in self.values)


@dataclass
class Look:
    """What was seen of a step. Outputs as the models gave them, (R, values a row). average: of the
    student's averaged weights, where the run keeps them.
    """

    result: StepResult
    passes: list[Pass]
    teacher_outputs: Tensor | None
    teacher_fault: Fault | None
    average_outputs: Tensor | None = None
    average_fault: Fault | None = None


def look_at_step(step: TrainStep, batch: Batch, progress: Progress) -> Look:
    """Take the step with every module watched. Its result is that of the step alone, but for a compiled student, which
    is computed as it was written.
    """
    student, passes = step.student, [Pass("pass 1")]
    compiled, student._compiled_call_impl = student._compiled_call_impl, None  # it would leave the hooks out
    watched: Any = _WatchedOptimizer(step, passes)
    criterion: Any = _WatchedCriterion(step.criterion, passes)
    average = None if step.average is None else step.average.model
    try:
        with _watching(student) as seen, _watching(step.teacher) as taught, _watching(average) as averaged:
            watched.seen = seen
            if average is not None and "ema" not in step.criterion.asked:
                _ask(step, average, batch)
            result = replace(step, criterion=criterion, optimizer=watched)(batch, progress)
    finally:
        student._compiled_call_impl = compiled
    watched.close_pass()
    return Look(result, passes, taught.join(), taught.fault, averaged.join(), averaged.fault)


@torch.no_grad()
def _ask(step: TrainStep, model: nn.Module, batch: Batch) -> None:
    """Show the batch to a model that the step itself does not ask; nothing is moved. Inputs that are not finite are
    shown to nobody, as in a step.
    """
    if not find_bad_rows(find_floats(batch.inputs)):
        for part in batch.split(step.parts):
            with step.autocasting(part):
                run_model(model, part.inputs)


def measure(*tensors: Tensor) -> Range:
    """The range of all values; tensors of whole numbers count, too."""
    flat = [tensor.detach().flatten() for tensor in tensors if tensor.numel()]
    count = sum(len(values) for values in flat)
    if not flat:
        return Range(float("nan"), float("nan"), 0, 0)
    ends = torch.stack([end.float() for values in flat for end in values.aminmax()])  # NaN wins
    if bool(torch.isfinite(ends).all()):
        return Range(float(ends.min()) + 0.0, float(ends.max()) + 0.0, 0, count)
    finite = torch.cat([values[torch.isfinite(values)].float() for values in flat])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"), float("nan"))
    return Range(low + 0.0, high + 0.0, count - len(finite), count)  # no -0


def find_bad_rows(tensors: Sequence[Tensor]) -> list[int]:
    """The rows that hold a value that is not finite in any of the tensors (R, ...)."""
    bad = {
        int(row)
        for tensor in tensors
        for row in (~torch.isfinite(tensor.detach().flatten(1))).any(1).nonzero().flatten()
    }
    return sorted(bad)


class _Watch:
    """Notes a model's outputs and the module in which its values stop being finite."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.outputs: list[list[Tensor]] = []  # of each micro-batch
        self.inputs: dict[str, Range] = {}
        # A stack: what gradient checkpointing leaves half-way in `backward` lies below and harms none.
        self._inputs: list[Range] = []  # of the modules that are being computed, outermost first

    def join(self) -> Tensor | None:
        """All outputs of all rows that were seen, (R, values a row); None where the model gave none."""
        parts = [torch.cat([value.float().flatten(1) for value in part], 1) for part in self.outputs if part]
        return torch.cat(parts) if parts else None

    def begin(self, values: tuple[Any, ...]) -> None:
        self._inputs.append(measure(*_find_tensors(values)))

    def end(self, name: str, module: nn.Module, output: Any) -> None:
        inputs = self.inputs[name] = self._inputs.pop()
        if not name and isinstance(output, Mapping):
            said = find_floats({key: value for key, value in output.items() if not key.startswith(FEATURES)})
            self.outputs.append([value.detach() for value in said])
        # A module ends before the one it is part of: the first that turns finite into not finite is the innermost.
        if self.fault is None and not inputs.not_finite:
            outputs = measure(*_find_tensors(output))
            if outputs.not_finite:
                self.fault = Fault(name or "the model itself", type(module).__name__, inputs, outputs)


class _WatchedCriterion:
    """A criterion that notes what it answers."""

    def __init__(self, wrapped: Any, passes: list[Pass]) -> None:
        self._wrapped, self._passes = wrapped, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __call__(self, *words: Any, **more: Any) -> LossValue:
        value = self._wrapped(*words, **more)
        self._passes[-1].values.append(LossValue(value.total.detach(), value.terms))
        return value


class _WatchedOptimizer:
    """SAM, noting each gradient whose norm is asked for, and where pass 2 begins."""

    def __init__(self, step: TrainStep, passes: list[Pass]) -> None:
        self._wrapped, self._scale, self._passes = step.optimizer, step.loss_scale, passes
        self._names = dict(step.student.named_parameters())
        self._names |= {f"criterion.{name}": p for name, p in step.criterion.module.named_parameters()}
        self.seen = _Watch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def compute_grad_norm(self) -> Tensor:
        norm, now = self._wrapped.compute_grad_norm(), self._passes[-1]
        # fp16: the first gradient of pass 1 is still that of the scaled loss.
        is_scaled = self._scale is not None and len(self._passes) == 1 and now.grad_norm is None
        scale = self._scale.value if is_scaled and self._scale is not None else 1.0
        now.grad_norm = float(norm) / scale
        now.gradients = {
            name: float(p.grad.abs().max()) / scale for name, p in self._names.items() if p.grad is not None
        }
        return norm

    @contextlib.contextmanager
    def perturbed(self, *words: Any) -> Generator[None]:
        with self._wrapped.perturbed(*words):
            self.close_pass()
            self._passes.append(Pass("pass 2"))
            yield

    def close_pass(self) -> None:
        """What the student showed belongs to the pass under way."""
        now = self._passes[-1]
        now.fault, now.outputs, now.inputs = self.seen.fault, self.seen.join(), self.seen.inputs
        self.seen.fault, self.seen.outputs, self.seen.inputs = None, [], {}


@contextlib.contextmanager
def _watching(model: nn.Module | None) -> Iterator[_Watch]:
    """Hooks on every module of the model, taken off at the end."""
    watch, handles = _Watch(), []
    for name, module in () if model is None else model.named_modules():
        begin = lambda _, values, named: watch.begin((*values, *named.values()))  # noqa: E731
        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda m, _, output, name=name: watch.end(name, m, output)))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _find_tensors(value: Any) -> list[Tensor]:
    """The tensors of floating point in what a module takes or gives."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [tensor for inner in value.values() for tensor in _find_tensors(inner)]
    if isinstance(value, list | tuple):
        return [tensor for inner in value for tensor in _find_tensors(inner)]
    return []
