"""One update of the student as a transaction: it happens as a whole, or weights, buffers, optimiser and random states
are bit for bit as before.

With SAM (rho > 0) a step is: teacher forward (once), pass 1 at w, pass 2 at w + e on the same batch with the same
dropout masks, restore, clip, base step. BatchNorm statistics are those of pass 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.criterion.weighted_sum import WeightedSum
from lib.optim.sam import SAM
from lib.random import capture_rng_state, restore_rng_state
from lib.schedules import Progress
from lib.types import Batch, Outputs, StepResult


class _NotFinite(Exception):
    """Leaves the transaction; its text is the reason in the result."""


@dataclass
class TrainStep:
    """Everything one update needs. `teacher` is a frozen model, or None in stage 1."""

    student: nn.Module
    teacher: nn.Module | None
    criterion: WeightedSum
    optimizer: SAM
    clip_norm: float

    def __call__(self, batch: Batch, progress: Progress) -> StepResult:
        """Take one step on `batch`. Non-finite values give a `skipped` result; exceptions pass through, after the
        rollback.
        """
        device_type = batch.inputs.device.type
        buffers = [b.detach().clone() for b in self.student.buffers()]
        rng_before = capture_rng_state(device_type=device_type)
        try:
            return self._update(batch, progress, rng_before)
        except _NotFinite as fault:
            self._roll_back(buffers, rng_before)
            return StepResult(status="skipped", reason=str(fault))
        except BaseException:
            self._roll_back(buffers, rng_before)
            raise

    def _update(self, batch: Batch, progress: Progress, rng_before: dict[str, object]) -> StepResult:
        _check_finite(batch.inputs, "the input batch")
        teacher_outputs = self._ask_teacher(batch)
        self.optimizer.zero_grad()
        loss, terms = self._forward_backward(batch, teacher_outputs, progress, "pass 1")
        grad_norm = self.optimizer.compute_grad_norm()
        _check_finite(grad_norm, "the gradient of pass 1")
        if self.optimizer.rho > 0.0:
            rng_after = capture_rng_state(device_type=batch.inputs.device.type)
            with self.optimizer.perturbed(grad_norm), batchnorm_statistics_frozen(self.student):
                restore_rng_state(rng_before)  # the same dropout and stochastic-depth masks as in pass 1
                self._forward_backward(batch, teacher_outputs, progress, "pass 2")
            restore_rng_state(rng_after)
            grad_norm = self.optimizer.compute_grad_norm()
            _check_finite(grad_norm, "the gradient of pass 2")
        _check_buffers(self.student)
        self.optimizer.clip(grad_norm, self.clip_norm)
        self.optimizer.step()
        return StepResult(
            status="ok",
            loss=loss.item(),
            terms={name: value.item() for name, value in terms.items()},
            grad_norm=grad_norm.item(),
        )

    def _ask_teacher(self, batch: Batch) -> Outputs | None:
        if self.teacher is None or not self.criterion.needs_teacher:
            return None
        outputs: Outputs = self.teacher(batch.inputs)
        _check_finite(outputs.logits, "the teacher's logits")
        return outputs

    def _forward_backward(
        self, batch: Batch, teacher_outputs: Outputs | None, progress: Progress, which: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value = self.criterion(self.student(batch.inputs), batch, teacher_outputs, progress)
        _check_finite(value.total, f"the loss of {which}")
        value.total.backward()
        return value.total.detach(), dict(value.terms)

    def _roll_back(self, buffers: list[Tensor], rng_before: dict[str, object]) -> None:
        """Weights and optimiser have not moved (SAM restores, the base step comes last): buffers and random states
        have.
        """
        self.optimizer.zero_grad()
        with torch.no_grad():
            for buffer, saved in zip(self.student.buffers(), buffers, strict=True):
                buffer.copy_(saved)
        restore_rng_state(rng_before)


def _check_finite(value: Tensor, what: str) -> None:
    if not bool(torch.isfinite(value).all()):
        raise _NotFinite(f"{what} is not finite")


def _check_buffers(model: nn.Module) -> None:
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            _check_finite(buffer, f"the buffer {name}")


@contextlib.contextmanager
def batchnorm_statistics_frozen(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm layers normalise by the batch as in training but leave their running statistics alone.

    Switching to `eval()` would change the function that is differentiated. Nesting is harmless.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracking = [layer.track_running_stats for layer in layers]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, tracks in zip(layers, tracking, strict=True):
            layer.track_running_stats = tracks
