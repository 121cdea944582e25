"""One update of the student as a transaction: it takes effect as a whole, or not at all.

After a step that fails, weights, buffers, optimiser, average, loss scale and random states are bit for bit as before;
only an overflow of fp16 leaves a smaller loss scale.

With SAM (rho > 0) a step is: one forward of the teacher and of the average, pass 1 at w, pass 2 at w + e on the same
batch with the same dropout masks, restore w, clip, base step. BatchNorm statistics are those of pass 1, or of pass 2
where pass 1 reads a part of the batch only. A batch may be divided into micro-batches. These are the same in both
passes, and so are the outputs of the teacher and the average.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sharpstudent.config.terms import TargetSource
from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import FEATURES, Batch, Outputs, StepResult
from sharpstudent.criterion.weighted_sum import SOURCES, LossValue, WeightedSum
from sharpstudent.models.forward import run_model
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.optim.sam import SAM
from sharpstudent.optim.start_weights import StartWeights
from sharpstudent.train.transaction import Transaction, find_norm_layers

if TYPE_CHECKING:
    from sharpstudent.models.teacher_answers import TeacherAnswers
    from sharpstudent.train.rank_step import RankStep


class _NotFinite(Exception):
    """Raised inside the transaction for a value that is not finite; its text becomes the reason in the result."""


class _Overflow(_NotFinite):
    """Raised when the scaled gradient overflows fp16; the loss scale is reduced after the rollback."""


@dataclass(frozen=True)
class _Part:
    """A micro-batch with the outputs of the teacher, and of the average, for it."""

    batch: Batch
    source_outputs: Mapping[TargetSource, Outputs]


@dataclass
class TrainStep:
    """Everything one update needs.

    Attributes:
        student: The model that learns.
        teacher: A frozen model, None in stage 1.
        criterion: The loss. Its own parameters, if it has any, are among those of the optimizer.
        optimizer: SAM over the base optimiser.
        clip_norm: Largest L2 norm of the gradient that is applied.
        average: The average of the student's weights, updated with each step; a term may learn from it.
        start: The weights that the stage started from, where the student is held near them.
        autocast: The dtype to compute in (bf16, fp16), None for that of the weights.
        loss_scale: Needed for fp16.
        parts: The number of micro-batches in a batch.
        recomputes: Whether the student computes activations again during `backward` (gradient checkpointing), which
            must not update BatchNorm's statistics a second time.
        answers: The teacher's outputs that runs share; None where it answers every batch itself.
        others: The other ranks that share each batch; None in a run of one process. `use_ranks` sets it.
    """

    student: nn.Module
    teacher: nn.Module | None
    criterion: WeightedSum
    optimizer: SAM
    clip_norm: float
    average: WeightAverage | None = None
    start: StartWeights | None = None
    autocast: torch.dtype | None = None
    loss_scale: LossScale | None = None
    parts: int = 1
    recomputes: bool = False
    answers: TeacherAnswers | None = None
    others: RankStep | None = None

    def __call__(self, batch: Batch, progress: Progress) -> StepResult:
        """Take one step.

        Args:
            batch: The batch, on the device of the models.
            progress: The epoch and number of the step, which schedules read.

        Returns:
            The losses and norms of the step. After a value that is not finite and the rollback, its status is
            `skipped`.

        Raises:
            Exception: Any exception that is raised in the step, unchanged, after the rollback.
        """
        device_type = batch.device.type
        snapshot = Transaction(self.student, self.optimizer, self.average, self.loss_scale, device_type)
        try:
            try:
                return self._update(batch, progress, snapshot)
            except _NotFinite as fault:
                snapshot.roll_back()
                return self._skip(fault)
        except BaseException:  # also when an interrupt breaks off the rollback above: it is then repeated
            snapshot.roll_back()
            raise

    def _skip(self, fault: _NotFinite) -> StepResult:
        """Build the result of a step that was rolled back; after an overflow, reduce the loss scale."""
        if not isinstance(fault, _Overflow):
            return StepResult(status="skipped", reason=str(fault))
        assert self.loss_scale is not None
        scale = self.loss_scale.value
        reason = f"{fault}; loss scale {scale:g} -> {self.loss_scale.back_off():g}"
        return StepResult(status="skipped", reason=reason, is_overflow=True)

    def _update(self, batch: Batch, progress: Progress, snapshot: Transaction) -> StepResult:
        parts: list[_Part] = []
        with self._agreeing():
            _check_finite(find_floats(batch.inputs), "the input batch")
            # Computed once in a step: both passes have the same rows and the same outputs of teacher and average.
            parts += [_Part(part, self._run_sources(part)) for part in batch.split(self.parts)]
        self.optimizer.zero_grad()
        share = self.optimizer.choose_share(progress)
        # BatchNorm statistics are those of the first pass that reads the whole batch.
        with self.optimizer.first_pass(), self._freezing_statistics(share < 1.0):
            first = _take_share(parts, share)
            loss, terms, agreement = self._forward_backward(first, progress, "pass 1")
        grad_norm = self.optimizer.compute_grad_norm()
        self._check_gradient(grad_norm, "pass 1")
        perturbed_loss = None
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        ascends = self.optimizer.ascends(progress, grad_norm, scale)
        if ascends:
            weights = snapshot.copy_weights()
            rng_after = capture_rng_state(device_type=batch.device.type)
            with self.optimizer.perturbed(grad_norm, weights), self._freezing_statistics(share >= 1.0):
                restore_rng_state(snapshot.rng_before)  # the same dropout and stochastic-depth masks as in pass 1
                perturbed_loss, _, _ = self._forward_backward(parts, progress, "pass 2")
            restore_rng_state(rng_after)
        self.optimizer.complete_gradient(progress, ascended=ascends)
        if self.others is not None:
            self.others.average_buffers()
        self._check_buffers()
        result = StepResult(
            status="ok",
            loss=float(loss),
            perturbed_loss=None if perturbed_loss is None else float(perturbed_loss),
            terms={name: float(value) for name, value in terms.items()},
            grad_norm=self._unscale_and_clip("pass 2" if ascends else "pass 1"),
            agreement=None if agreement is None else float(agreement),
        )
        snapshot.copy_update()
        if self.start is not None:
            self.start.pull_back(self.optimizer)
        if self.loss_scale is None:
            self.optimizer.step()
        else:
            self.loss_scale.step(self.optimizer)
        _check_finite(self.optimizer.parameters, "the updated weights")
        if self.average is not None:
            self.average.update(self.student)
        return result

    def _freezing_statistics(self, is_frozen: bool) -> contextlib.AbstractContextManager[object]:
        return batchnorm_statistics_frozen(self.student) if is_frozen else contextlib.nullcontext()

    def _run_sources(self, part: Batch) -> dict[TargetSource, Outputs]:
        """Compute the outputs of teacher and average, in evaluation mode, if a term reads them.

        A missing model is no error here: the criterion raises one that names the term.
        """
        average = None if self.average is None else self.average.model
        models: dict[TargetSource, nn.Module | None] = {"teacher": self.teacher, "ema": average}
        source_outputs: dict[TargetSource, Outputs] = {}
        for source, model in models.items():
            if model is None or source not in self.criterion.sources:
                continue
            with torch.no_grad(), self.autocasting(part):
                run = functools.partial(run_model, model, part.inputs)
                shared = self.answers if source == "teacher" and not self.criterion.teacher_layers else None
                outputs = run() if shared is None else shared.recall(part.inputs, run)
            checked = {name: value for name, value in outputs.items() if not name.startswith(FEATURES)}
            _check_finite(find_floats(checked), f"the {SOURCES[source]}'s {' and '.join(checked)}")
            source_outputs[source] = outputs
        read = [f"{FEATURES}{layer}" for layer in self.criterion.teacher_layers if "teacher" in source_outputs]
        _check_finite([source_outputs["teacher"][name] for name in read], "the teacher's feature maps")
        return source_outputs

    def _forward_backward(
        self, parts: list[_Part], progress: Progress, which: str
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Accumulate the gradient of the whole batch's loss.

        Returns the loss, its terms, and the share of rows in which student and teacher predict the same class.
        """
        loss: Tensor | None = None
        agreement: Tensor | None = None
        terms: dict[str, Tensor] = {}
        totals = self.criterion.count([part.batch for part in parts])
        rows = sum(len(part.batch) for part in parts)
        if self.others is not None:
            totals, rows = self.others.count(totals, rows)
        is_finite = True
        for part in parts:
            is_last = part is parts[-1]
            with self._exchanging(which, is_last):
                value, outputs = self._compute(part, progress, totals)
                total = value.total
                is_finite = is_finite and _are_finite([total.detach()])
                if is_last or self.others is None:
                    self._check_loss(is_finite, which)
                if is_finite:
                    with batchnorm_statistics_kept(self.student) if self.recomputes else contextlib.nullcontext():
                        (total if self.loss_scale is None else self.loss_scale.scale(total)).backward()
            loss = total.detach() if loss is None else loss + total.detach()
            for name, term in value.terms.items():
                terms[name] = terms.get(name, 0.0) + term
            agreed = _compare_choices(outputs, part.source_outputs.get("teacher"))
            if agreed is not None:
                share = agreed / rows
                agreement = share if agreement is None else agreement + share
        assert loss is not None
        return (loss, terms, agreement) if self.others is None else self.others.add_up(loss, terms, agreement)

    def compute_loss(self, part: _Part, progress: Progress, totals: Mapping[str, float]) -> tuple[LossValue, Outputs]:
        """Compute the criterion on a micro-batch; returns it with the student's outputs."""
        with self.autocasting(part.batch):
            outputs = to_precise(run_model(self.student, part.batch.inputs))
        return self.criterion(outputs, part.batch, part.source_outputs, progress, totals=totals), outputs

    def _compute(self, part: _Part, progress: Progress, totals: Mapping[str, float]) -> tuple[LossValue, Outputs]:
        return (self if self.others is None else self.others).compute_loss(part, progress, totals)

    def _check_loss(self, is_finite: bool, which: str) -> None:
        with self._agreeing():
            if not is_finite:
                raise _NotFinite(f"the loss of {which} is not finite")

    def _keeps_own(self, which: str) -> bool:
        """Whether the gradient of this pass stays with its rank: pass 1 of local SAM, where a second pass follows."""
        return self.others is not None and self.others.is_local and which == "pass 1" and self.optimizer.rho > 0.0

    def _exchanging(self, which: str, is_last: bool) -> contextlib.AbstractContextManager[object]:
        """Open the context in which gradients of ranks are added up after the last micro-batch of a pass."""
        if self.others is None:
            return contextlib.nullcontext()
        return self.others.exchanging(is_last and not self._keeps_own(which))

    @contextlib.contextmanager
    def _agreeing(self, kind: type[_NotFinite] = _NotFinite) -> Generator[None]:
        """Context manager: what one rank finds not finite, all ranks raise, after they have all come to its end."""
        fault: str | None = None
        try:
            yield
        except _NotFinite as found:
            if self.others is None:
                raise
            fault = str(found)
        if self.others is not None:
            agreed = self.others.ranks.agree(fault)
            if agreed is not None:
                raise kind(agreed)

    def _unscale_and_clip(self, which: str) -> float:
        """Unscale the gradients and clip their norm to `clip_norm`; returns the norm before clipping."""
        if self.loss_scale is not None:
            self.loss_scale.unscale(self.optimizer)
        grad_norm = self.optimizer.compute_grad_norm()
        self._check_gradient(grad_norm, which)
        self.optimizer.clip(grad_norm, self.clip_norm)
        return float(grad_norm)

    def _check_gradient(self, grad_norm: Tensor, which: str) -> None:
        kind = _NotFinite if self.loss_scale is None else _Overflow
        with self._agreeing(kind) if self._keeps_own(which) else contextlib.nullcontext():
            if not bool(torch.isfinite(grad_norm)):
                raise kind(f"the gradient of {which} is not finite")

    def _check_buffers(self) -> None:
        named = {name: b for name, b in self.student.named_buffers() if b.is_floating_point()}
        if named and not _are_finite(list(named.values())):
            worst = next(name for name, buffer in named.items() if not _are_finite([buffer]))
            raise _NotFinite(f"the buffer {worst} is not finite")

    def autocasting(self, batch: Batch) -> contextlib.AbstractContextManager[object]:
        """Open the autocast context in which the models run, for the batch's device and the dtype of the step."""
        if self.autocast is None:
            return contextlib.nullcontext()
        # Cast weights are not cached: each is used once in a forward, and a cache that outlives an interrupt would hold
        # outdated weights.
        return torch.autocast(batch.device.type, dtype=self.autocast, cache_enabled=False)


def _take_share(parts: list[_Part], share: float) -> list[_Part]:
    """Take the first samples of a batch, the given share of them, rounded up; they are in random order already."""
    if share >= 1.0:
        return parts
    left = math.ceil(share * sum(part.batch.samples for part in parts))
    taken: list[_Part] = []
    for part in parts:
        if left > 0:
            batch = part.batch.take(left)
            cut: dict[TargetSource, Outputs] = {
                source: {name: value[: len(batch)] for name, value in outputs.items()}
                for source, outputs in part.source_outputs.items()
            }
            taken.append(_Part(batch, cut))
            left -= batch.samples
    return taken


def to_precise(outputs: Outputs) -> Outputs:
    """Convert outputs of a lower precision to fp32 for the loss; feature maps keep theirs."""
    return {
        name: value
        if name.startswith(FEATURES) or not value.is_floating_point()
        else value.to(torch.promote_types(value.dtype, torch.float32))
        for name, value in outputs.items()
    }


def find_floats(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Find the floating-point tensors, the only ones that can hold a value that is not finite."""
    return [tensor for tensor in tensors.values() if tensor.is_floating_point()]


@torch.no_grad()
def _compare_choices(outputs: Outputs, teacher_outputs: Outputs | None) -> Tensor | None:
    """Count the rows in which both models predict the same class, as a scalar; None if they cannot be compared."""
    ours, theirs = outputs.get("logits"), None if teacher_outputs is None else teacher_outputs.get("logits")
    if ours is None or theirs is None or theirs.shape != ours.shape or ours.ndim != 2 or ours.shape[1] < 2:
        return None
    return (ours.argmax(1) == theirs.argmax(1)).float().sum()


def _are_finite(tensors: list[Tensor]) -> bool:
    """Check all tensors together, with one synchronisation of the device.

    The sum of squares is computed first, in a tenth of the time on a CPU. If it is not finite, finite but large values
    may have overflowed it, so the largest magnitude decides.
    """
    return any(bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors, p))).all()) for p in (2.0, float("inf")))


def _check_finite(tensors: list[Tensor], what: str) -> None:
    if tensors and not _are_finite([tensor.detach() for tensor in tensors]):
        raise _NotFinite(f"{what} {'are' if what.endswith('s') else 'is'} not finite")


@contextlib.contextmanager
def batchnorm_statistics_frozen(model: nn.Module) -> Generator[None]:
    """Context manager: BatchNorm layers normalise by the batch, as in training, but do not update their statistics.

    The buffers of other layers are restored at the end, because InstanceNorm updates its statistics whatever
    `track_running_stats` says. Evaluation mode would not do: it computes another function. Nesting is harmless.
    """
    layers = find_norm_layers(model)
    tracking = [layer.track_running_stats for layer in layers]
    frozen = {id(buffer) for layer in layers for buffer in layer.buffers(recurse=False)}
    others = [buffer for buffer in model.buffers() if id(buffer) not in frozen]
    saved = [buffer.detach().clone() for buffer in others]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, tracks in zip(layers, tracking, strict=True):
            layer.track_running_stats = tracks
        with torch.no_grad():
            for buffer, value in zip(others, saved, strict=True):
                buffer.copy_(value)


@contextlib.contextmanager
def batchnorm_statistics_kept(model: nn.Module) -> Generator[None]:
    """Context manager: the statistics of BatchNorm layers are restored at the end, after recomputations inside.

    Freezing them would not do, because a recomputation must save the same tensors as the forward, and these include
    the running statistics.
    """
    buffers = [buffer for layer in find_norm_layers(model) for buffer in layer.buffers(recurse=False)]
    saved = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, saved)
