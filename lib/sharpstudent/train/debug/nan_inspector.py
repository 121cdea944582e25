"""The NaN inspector: takes one step with hooks on every module and reports where values stop being finite.

Hooks on the models and wrappers of criterion and optimizer record values and change none. Legend: R rows of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import FEATURES, Batch, StepResult
from sharpstudent.criterion.weighted_sum import LossValue
from sharpstudent.models.forward import run_model
from sharpstudent.train.step import TrainStep, find_floats


@dataclass(frozen=True)
class Range:
    """The range of the values of some tensors.

    Attributes:
        low: The smallest finite value, nan where there is none.
        high: The largest finite value, nan where there is none.
        not_finite: How many values are not finite.
        count: How many values there are.
    """

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
    """A module whose output is not finite while its inputs were.

    Attributes:
        name: The name of the module in its model.
        kind: The name of its class.
        inputs: Range of its inputs.
        output: Range of its output.
    """

    name: str
    kind: str
    inputs: Range
    output: Range


@dataclass
class InspectedPass:
    """What was recorded in one of the two passes of a step.

    Attributes:
        name: `pass 1` or `pass 2`.
        fault: The first module of the student whose output is not finite.
        inputs: Range of the inputs of each of the student's modules, by name, in the last micro-batch.
        outputs: The outputs of the student, (R, values per row).
        values: The values of the criterion, one for each micro-batch.
        grad_norm: L2 norm of the gradient.
        gradients: Largest magnitude of each parameter's gradient; inf or nan where it is not finite.
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
        """Loss terms without their weights, summed over the micro-batches."""
        names = dict.fromkeys(name for value in self.values for name in value.terms)
        return {name: sum(float(value.terms[name]) for value in self.values) for name in names}

    @property
    def loss(self) -> float:
        """The weighted sum of the terms."""
        return sum(float(value.total) for value in self.values)


@dataclass
class InspectedStep:
    """What was recorded in a step. Outputs are as the models gave them, (R, values a row).

    Attributes:
        result: The result of the step.
        passes: What was recorded in each pass; SAM has two.
        teacher_outputs: The outputs of the teacher.
        teacher_fault: Its first module whose output is not finite.
        average_outputs: The outputs of the student's averaged weights, where the run keeps them.
        average_fault: Its first module whose output is not finite.
    """

    result: StepResult
    passes: list[InspectedPass]
    teacher_outputs: Tensor | None
    teacher_fault: Fault | None
    average_outputs: Tensor | None = None
    average_fault: Fault | None = None


def inspect_step(step: TrainStep, batch: Batch, progress: Progress) -> InspectedStep:
    """Take a step with hooks on every module.

    The hooks do not change its result. A compiled student runs uncompiled, which may round differently.

    Args:
        step: The step to take.
        batch: The batch of the step.
        progress: The epoch and step number, which schedules read.
    """
    student, passes = step.student, [InspectedPass("pass 1")]
    compiled, student._compiled_call_impl = student._compiled_call_impl, None  # compiled code would not call the hooks
    criterion: Any = _RecordedCriterion(step.criterion, passes)
    average = None if step.average is None else step.average.model
    try:
        with _recording(student) as ours, _recording(step.teacher) as teacher, _recording(average) as averaged:
            optimizer: Any = _RecordedOptimizer(step, passes, ours)
            if average is not None and "ema" not in step.criterion.sources:
                _run_alone(step, average, batch)
            result = replace(step, criterion=criterion, optimizer=optimizer, answers=None)(batch, progress)
    finally:
        student._compiled_call_impl = compiled
    optimizer.close_pass()
    return InspectedStep(result, passes, teacher.join(), teacher.fault, averaged.join(), averaged.fault)


@torch.no_grad()
def _run_alone(step: TrainStep, model: nn.Module, batch: Batch) -> None:
    """Run a model that the step itself did not run. Like a step, do not run it on inputs that are not finite."""
    if not find_bad_rows(find_floats(batch.inputs)):
        for part in batch.split(step.parts):
            with step.autocasting(part):
                run_model(model, part.inputs)


def measure(*tensors: Tensor) -> Range:
    """Find the range of all values of the tensors, those of integers included."""
    flat = [tensor.detach().flatten() for tensor in tensors if tensor.numel()]
    count = sum(len(values) for values in flat)
    if not flat:
        return Range(float("nan"), float("nan"), 0, 0)
    ends = torch.stack([end.float() for values in flat for end in values.aminmax()])  # NaN if any value is NaN
    if bool(torch.isfinite(ends).all()):
        return Range(float(ends.min()) + 0.0, float(ends.max()) + 0.0, 0, count)
    finite = torch.cat([values[torch.isfinite(values)].float() for values in flat])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"), float("nan"))
    return Range(low + 0.0, high + 0.0, count - len(finite), count)  # + 0.0 turns -0.0 into 0.0


def find_bad_rows(tensors: Sequence[Tensor]) -> list[int]:
    """Find the rows in which a value of one of the tensors (R, ...) is not finite."""
    bad = [(~torch.isfinite(tensor.detach().flatten(1))).any(1).nonzero().flatten().tolist() for tensor in tensors]
    return sorted({row for rows in bad for row in rows})


class _Recorder:
    """Records the outputs of a model, and the first module whose output is not finite while its inputs are."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.outputs: list[Tensor] = []  # one for each micro-batch
        self.inputs: dict[str, Range] = {}
        # A stack. Recomputation by gradient checkpointing may stop early and leave entries below; they are never read.
        self._inputs: list[Range] = []  # of the modules that are being computed, outermost first

    def join(self) -> Tensor | None:
        """Concatenate the outputs of all micro-batches, (R, values per row); None if the model did not run."""
        return torch.cat(self.outputs) if self.outputs else None

    def begin(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the inputs of a module; a forward pre-hook with keyword arguments.

        Args:
            _: The module.
            args: Its positional arguments.
            named: Its keyword arguments.
        """
        self._inputs.append(measure(*_find_floats((*args, *named.values()))))

    def end(self, name: str, module: nn.Module, output: Any) -> None:
        """Note the output of a module.

        Args:
            name: The name of the module, empty for the model itself.
            module: The module.
            output: The output of the module.
        """
        inputs = self.inputs[name] = self._inputs.pop()
        if not name and isinstance(output, Mapping):
            floats = find_floats({key: value for key, value in output.items() if not key.startswith(FEATURES)})
            self.outputs += [torch.cat([value.detach().float().flatten(1) for value in floats], 1)] if floats else []
        # A submodule ends before the module that contains it, so the first one with a fault is the innermost.
        if self.fault is None and not inputs.not_finite:
            outputs = measure(*_find_floats(output))
            if outputs.not_finite:
                self.fault = Fault(name or "the model itself", type(module).__name__, inputs, outputs)


class _RecordedCriterion:
    """A criterion whose values are recorded."""

    def __init__(self, wrapped: Any, passes: list[InspectedPass]) -> None:
        self._wrapped, self._passes = wrapped, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __call__(self, *args: Any, **named: Any) -> LossValue:
        value = self._wrapped(*args, **named)
        self._passes[-1].values.append(LossValue(value.total.detach(), value.terms))
        return value


class _RecordedOptimizer:
    """A SAM optimizer that records each gradient whose norm is computed, and the beginning of pass 2."""

    def __init__(self, step: TrainStep, passes: list[InspectedPass], recorder: _Recorder) -> None:
        self._wrapped, self._scale, self._passes, self._recorder = step.optimizer, step.loss_scale, passes, recorder
        self._names = dict(step.student.named_parameters())
        self._names |= {f"criterion.{name}": p for name, p in step.criterion.module.named_parameters()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def compute_grad_norm(self) -> Tensor:
        norm, now = self._wrapped.compute_grad_norm(), self._passes[-1]
        # With fp16, the first gradient in pass 1 is that of the scaled loss.
        is_scaled = len(self._passes) == 1 and now.grad_norm is None
        scale = self._scale.value if is_scaled and self._scale is not None else 1.0
        now.grad_norm = float(norm) / scale
        now.gradients = {
            name: float(p.grad.abs().max()) / scale for name, p in self._names.items() if p.grad is not None
        }
        return norm

    @contextlib.contextmanager
    def perturbed(self, *args: Any) -> Generator[None]:
        with self._wrapped.perturbed(*args):
            self.close_pass()
            self._passes.append(InspectedPass("pass 2"))
            yield

    def close_pass(self) -> None:
        """Move what was recorded of the student to the current pass."""
        now, seen = self._passes[-1], self._recorder
        now.fault, now.outputs, now.inputs = seen.fault, seen.join(), seen.inputs
        seen.fault, seen.outputs, seen.inputs = None, [], {}


@contextlib.contextmanager
def _recording(model: nn.Module | None) -> Iterator[_Recorder]:
    """Context manager: inside, every module of the model has hooks that record its values."""
    recorder, handles = _Recorder(), []
    for name, module in () if model is None else model.named_modules():
        handles.append(module.register_forward_pre_hook(recorder.begin, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda m, _, output, name=name: recorder.end(name, m, output)))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _find_floats(value: Any) -> list[Tensor]:
    """Find the floating-point tensors among the arguments or in the output of a module."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
