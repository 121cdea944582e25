"""Retries a step in more micro-batches when memory runs out, and explains other errors of a step to the user.

These are a batch too small for BatchNorm, a missing compiler, and wrong targets of a task.
"""

from __future__ import annotations

import torch

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep

MOST_NAMES = 3  # of rows in a message
# In the messages of: the CPU's allocator; CUDA and MPS; cuBLAS and cuDNN; C++.
_EXHAUSTED = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a step says that the device's or the machine's memory is exhausted.

    Only CUDA has an exception class for this. The CPU's allocator and MPS raise a plain RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _EXHAUSTED)


def advise_on_memory(config: RunConfig, device: torch.device, *, items: int, parts: int) -> list[str]:
    """List settings that save memory, the mildest first, without those that are in use already.

    Args:
        config: The config of the run.
        device: The device whose memory ran out.
        items: The number of samples in a batch.
        parts: The current number of micro-batches in a batch.
    """
    compute, now = config.compute, -(-items // parts)
    key = f"stage{config.stage}.micro_batch_size"
    ideas = [
        (now > 1, f"--set {key}={max(1, now // 2)}  (now {now}; the batch stays {items}, in more parts)"),
        (not compute.gradient_checkpointing, "--set gradient_checkpointing=true  (about a third more time)"),
        (compute.precision == "fp32" and device.type != "cpu", "--set precision=bf16"),
        (not compute.channels_last and device.type != "cpu", "--set channels_last=true"),
        (now > 1 and not compute.halve_on_out_of_memory, "--set halve_on_out_of_memory=true  (finds the size itself)"),
        (True, "smaller inputs, such as pictures of a smaller side, or a smaller student"),
    ]
    return [text for is_open, text in ideas if is_open]


class OutOfMemory(Exception):
    """Memory ran out in a step; the step was rolled back. The text says what to try."""


class MemoryRetry:
    """Takes steps in the config's number of micro-batches, and retries in more of them when memory runs out.

    The config has to permit the retry.
    """

    def __init__(self, run: Run, step: TrainStep, items: int, example: Batch | None = None) -> None:
        """Set the number of micro-batches.

        Args:
            run: The run.
            step: Takes one step.
            items: The number of samples in a batch.
            example: The task's example batch. When a step raises, its batch is compared with this one.
        """
        self._run, self._step, self._items, self._example = run, step, items, example
        size = run.config.compute.micro_batch_size
        self._step.parts = self._wanted = 1 if size is None else -(-items // size)

    @property
    def raised_parts(self) -> int | None:
        """The number of micro-batches in a batch, if memory has forced more than the config sets; else None."""
        return self._step.parts if self._step.parts > self._wanted else None

    def restore_parts(self, parts: int | None) -> None:
        """Restore the `raised_parts` of a resumed run."""
        if parts is not None and self._run.config.compute.halve_on_out_of_memory:
            self._step.parts = max(self._wanted, parts)

    def __call__(self, batch: Batch, progress: Progress) -> StepResult:
        """Take the step on a batch.

        Args:
            batch: The batch, on the run's device.
            progress: The epoch and number of the step.

        Raises:
            OutOfMemory: When memory runs out and a retry is not permitted or not possible.
            UserError: For an error that the user can correct (see the module).
            Exception: Any other exception of the step, unchanged.
        """
        while True:
            try:
                return self._step(batch, progress)
            except Exception as error:
                if not is_out_of_memory(error):
                    self._explain(error, batch)
                    raise
                reason = str(error).strip().split("\n", 1)[0][:200]
            # Only the text is kept, because the traceback of the error keeps all activations of the failed step alive.
            self._raise_parts(reason)

    def _raise_parts(self, reason: str) -> None:
        """Double the micro-batches; raises OutOfMemory when that is not permitted or not possible."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # frees cached blocks, which are fragmented by other sizes
        parts = self._step.parts
        if not self._run.config.compute.halve_on_out_of_memory or parts >= self._items:
            advice = advise_on_memory(self._run.config, self._run.device, items=self._items, parts=parts)
            raise OutOfMemory("\n".join([f"out of memory ({reason}). Try, one at a time:", *advice]))
        self._step.parts = min(self._items, 2 * parts)
        self._run.say(
            f"out of memory: the step is taken again in {self._step.parts} micro-batches instead of {parts}; the batch "
            f"stays {self._items} samples. BatchNorm sees fewer rows at once."
        )

    def _explain(self, error: Exception, batch: Batch) -> None:
        """Raise a UserError for an error that the user can correct; return for any other."""
        stage, parts = self._run.config.stage, self._step.parts
        if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
            ranks = 1 if self._run.ranks is None else self._run.ranks.count
            key, size, more = f"stage{stage}.batch_size", 2 * len(batch) * ranks, ", or larger inputs"
            if parts > 1:
                key, size, more = f"stage{stage}.micro_batch_size", 2 * -(-self._items // parts), ""
            raise UserError.about(
                key,
                "is too small: BatchNorm cannot normalise one row with one value a channel",
                got=f"batches of {describe_shapes(batch)}{f' in {parts} parts' if parts > 1 else ''}",
                remedy=f"--set {key}={size}{more}",
            ) from None
        if self._example is not None:
            check_targets(batch, self._example)
        if self._run.config.compute.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            first = str(error).strip().split("\n", 1)[0][:200]
            raise UserError.about(
                where="compile",
                what="torch.compile cannot compile this student here",
                expected="a C++ compiler (CPU) or Triton (CUDA)",
                got=first,
                remedy="--set compile=false",
            ) from None


def check_targets(batch: Batch, example: Batch) -> None:
    """Compare the targets of the batch of a failed step with those of the task's example batch.

    Args:
        batch: The batch of the step.
        example: The batch on which the terms were tried before the run.

    Raises:
        UserError: When a target is missing, or has another shape or kind of dtype; the message names sample and target.
    """
    for name, wanted in example.targets.items():
        found = batch.targets.get(name)
        if found is not None and found.shape[1:] == wanted.shape[1:] and found.dtype == wanted.dtype:
            continue
        raise UserError.about(
            where=f"target {name!r} of {batch.rows['id'][0]} and the other samples of its batch",
            what="is missing" if found is None else "is not as in the task's example_batch",
            expected=f"{name}, shape {('rows', *wanted.shape[1:])}, {wanted.dtype}".replace("'", ""),
            got=", ".join(batch.targets) or "no targets" if found is None else f"{tuple(found.shape)}, {found.dtype}",
            remedy="let `make` and `example_batch` of the task give the same targets",
        )


def check_labels(batch: Batch, classes: int) -> None:
    """Check the class indices `label` of a batch, before they reach a device that cannot say which one is wrong.

    Args:
        batch: The batch, on the CPU.
        classes: The number of classes of the task; 0 where it has none.

    Raises:
        UserError: When a label is not a class index; the message names the rows. -100 is permitted: torch ignores it.
    """
    labels = batch.targets.get("label")
    if not classes or labels is None or labels.is_floating_point():
        return
    bad = ((labels < 0) & (labels != -100)) | (labels >= classes)
    if bool(bad.any()):
        rows = bad.reshape(len(batch), -1).any(1).nonzero().flatten().tolist()[:MOST_NAMES]
        raise UserError.about(
            where=f"target 'label' of {', '.join(batch.rows['id'][row] for row in rows)}",
            what="is none of the task's classes",
            expected=f"0 to {classes - 1}: the task names {classes} classes",
            got=", ".join(str(labels[row].tolist()) for row in rows),
            remedy="correct `make`, or the task's `classes`",
        )


def describe_shapes(batch: Batch) -> str:
    """Write the inputs of a batch as `image (16, 3, 112, 112)`."""
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.inputs.items())
