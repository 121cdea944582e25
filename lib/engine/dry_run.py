"""--dry-run: one batch through loading, teacher and step; nothing is written."""

from __future__ import annotations

from collections.abc import Callable

from lib.data.loader import LoadedBatch, Replaced, load_batches
from lib.data.order import TrainOrder
from lib.engine.attempt import Attempt, OutOfMemory
from lib.engine.build import choose_memory_format
from lib.engine.fitted_heads import describe_fits
from lib.engine.named import name_teachers
from lib.engine.preflight import describe_work
from lib.engine.run import Run
from lib.engine.step import TrainStep
from lib.engine.task import TaskData
from lib.errors import TrainingStopped
from lib.schedules import Progress


def try_one_batch(
    run: Run,
    data: TaskData,
    step: TrainStep,
    order: TrainOrder,
    attempt: Attempt,
    report_unreadable: Callable[[tuple[Replaced, ...]], None],
) -> None:
    """Take the first step and say how it went. Raises TrainingStopped where memory runs out."""
    first, epochs = next(iter(order.batches(1))), run.config.training.epochs
    loaded: LoadedBatch = next(load_batches(data.train, [first], seed=run.config.seed, num_workers=0))
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
        f"dry run: batch {tuple(loaded.batch.inputs.shape)}, step {result.status}"
        + (f", loss {result.loss:.4f} ({terms})" if result.ok else f": {result.reason}")
    )
    if teachers:
        for line in (*fits, describe_work(len(data.validation), len(teachers))):
            run.say(f"dry run: {line}")
    run.say(f"dry run: {order.steps_per_epoch} steps an epoch, {epochs} epochs; nothing was written")
