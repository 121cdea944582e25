"""--dry-run: one batch through loading, teacher and step, and through the task's metrics; nothing is written."""

from __future__ import annotations

from collections.abc import Callable

from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.schedules import Progress
from sharpstudent.data.loader import Replaced, load_batches
from sharpstudent.data.sampler import TrainSampler
from sharpstudent.models.teachers import name_teachers
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData, choose_memory_format
from sharpstudent.train.oom import MemoryRetry, OutOfMemory, describe_shapes
from sharpstudent.train.preflight.run import describe_work
from sharpstudent.train.preflight.teacher_heads import describe_fits
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep


def try_one_batch(
    run: Run,
    task: Task,
    data: TrainingData,
    step: TrainStep,
    sampler: TrainSampler,
    retry: MemoryRetry,
    report_unreadable: Callable[[tuple[Replaced, ...]], None],
) -> None:
    """Take the first step and say how it went.

    Args:
        run: The run.
        task: Makes the batch.
        data: The training and validation samples.
        step: Models and optimiser.
        sampler: Says which samples are in the step.
        retry: Takes the step.
        report_unreadable: Gets the samples that could not be read.

    Raises:
        TrainingStopped: When memory runs out.
    """
    first, epochs, samples = next(iter(sampler.batches(1))), run.config.training.epochs, data.train
    loaded = next(load_batches(samples, [first], seed=run.config.seed, num_workers=0, collate=task.collate))
    report_unreadable(loaded.replaced)
    step.student.train()
    teachers = name_teachers(run.config, step.teacher)
    fits = describe_fits(run.config, teachers, len(samples))
    batch = loaded.batch.to(run.device, memory_format=choose_memory_format(run.config.compute))
    try:
        result = retry(batch, Progress(1, 0, epochs, sampler.steps_per_epoch))
    except OutOfMemory as error:
        raise TrainingStopped(str(error)) from error
    terms = ", ".join(f"{name} {value:.4f}" for name, value in result.terms.items())
    lines = [
        f"batch {describe_shapes(loaded.batch)}, step {result.status}"
        + (f", loss {result.loss:.4f} ({terms})" if result.ok else f": {result.reason}")
    ]
    if teachers:
        lines += [*fits, describe_work(len(data.validation), len(teachers))]
    for line in (*lines, f"{sampler.steps_per_epoch} steps an epoch, {epochs} epochs; nothing was written"):
        run.say(f"dry run: {line}")
