"""--dry-run: one batch through loading, teacher and step; nothing is written."""

from __future__ import annotations

from collections.abc import Callable

from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.schedules import Progress
from sharpstudent.data.loader import LoadedBatch, Replaced, load_batches
from sharpstudent.data.sampler import TrainOrder
from sharpstudent.models.teachers import name_teachers
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData, choose_memory_format
from sharpstudent.train.oom import Attempt, OutOfMemory, describe_shapes
from sharpstudent.train.preflight.run import describe_work
from sharpstudent.train.preflight.teacher_heads import describe_fits
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep


def try_one_batch(
    run: Run,
    task: Task,
    data: TrainingData,
    step: TrainStep,
    order: TrainOrder,
    attempt: Attempt,
    report_unreadable: Callable[[tuple[Replaced, ...]], None],
) -> None:
    """Take the first step and say how it went. Raises TrainingStopped where memory runs out."""
    first, epochs = next(iter(order.batches(1))), run.config.training.epochs
    loaded: LoadedBatch = next(
        load_batches(data.train, [first], seed=run.config.seed, num_workers=0, collate=task.collate)
    )
    report_unreadable(loaded.replaced)
    step.student.train()
    teachers = name_teachers(run.config, step.teacher)
    fits = describe_fits(run.config, teachers, len(data.train))
    batch = loaded.batch.to(run.device, memory_format=choose_memory_format(run.config.compute))
    try:
        result = attempt(batch, Progress(1, 0, epochs, order.steps_per_epoch))
    except OutOfMemory as error:
        raise TrainingStopped(str(error)) from error
    terms = ", ".join(f"{name} {value:.4f}" for name, value in result.terms.items())
    run.say(
        f"dry run: batch {describe_shapes(loaded.batch)}, step {result.status}"
        + (f", loss {result.loss:.4f} ({terms})" if result.ok else f": {result.reason}")
    )
    if teachers:
        for line in (*fits, describe_work(len(data.validation), len(teachers))):
            run.say(f"dry run: {line}")
    run.say(f"dry run: {order.steps_per_epoch} steps an epoch, {epochs} epochs; nothing was written")
