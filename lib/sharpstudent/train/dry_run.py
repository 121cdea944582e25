"""Implements --dry-run: one batch is loaded, trained on and given to the task's metrics; nothing is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sharpstudent.core.errors import TrainingStopped, UserError, format_count_of
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, list_class_names
from sharpstudent.data.loader import Replaced, load_batches
from sharpstudent.data.sampler import TrainSampler
from sharpstudent.evaluation.tables import make_table
from sharpstudent.metrics.checks import MetricError, explain_undefined
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.models.teachers import name_teachers
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData, choose_memory_format
from sharpstudent.train.oom import MemoryRetry, OutOfMemory, check_labels, describe_shapes
from sharpstudent.train.preflight.run import describe_work
from sharpstudent.train.preflight.teacher_heads import describe_fits
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep
from sharpstudent.train.tuning import start_training


def try_one_batch(
    run: Run,
    task: Task,
    data: TrainingData,
    step: TrainStep,
    sampler: TrainSampler,
    retry: MemoryRetry,
    report_unreadable: Callable[[tuple[Replaced, ...]], None],
) -> None:
    """Take the first step of the run and print its result.

    Args:
        run: The run.
        task: The task, which makes the batch.
        data: The training and validation samples.
        step: Models and optimiser.
        sampler: Chooses the samples of the step.
        retry: Takes the step.
        report_unreadable: Called with the samples that could not be read.

    Raises:
        TrainingStopped: When memory runs out.
        UserError: For a mistake in the task's samples, rows or metrics.
    """
    first, epochs, samples = next(iter(sampler.batches(1))), run.config.training.epochs, data.train
    loaded = next(load_batches(samples, [first], seed=run.config.seed, num_workers=0, collate=task.collate))
    report_unreadable(loaded.replaced)
    start_training(step.student)
    teachers = name_teachers(run.config, step.teacher)
    fits = describe_fits(run.config, teachers, len(samples))
    check_labels(loaded.batch, len(list_class_names(task)))
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
    lines.append(_try_metrics(run, task, step, batch))
    if teachers:
        lines += [*fits, describe_work(len(data.validation), len(teachers))]
    steps, shown = sampler.steps_per_epoch, format_count_of(epochs, "epoch")
    for line in (*lines, f"{steps} steps an epoch, {shown}; nothing was written"):
        run.say(f"dry run: {line}")


def _try_metrics(run: Run, task: Task, step: TrainStep, batch: Batch) -> str:
    """Compute the task's metrics once, on the rows of the batch; a metric may have no value on so few."""
    selection, current = run.config.training.selection_metric, "rows"
    try:
        with torch.inference_mode(), evaluation_mode(step.student):
            table = make_table(task, run_model(step.student, batch.inputs), batch)
        values: dict[str, float] = {}
        for current, metric in task.metrics.items():
            values[current] = metric.value(table)
    except MetricError as error:
        return f"the metrics cannot be computed on these rows ({error})"
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError.about(
            where=f"{type(task).__name__}.{'rows' if current == 'rows' else f'metrics[{current!r}]'}",
            what=f"raised {type(error).__name__} on the rows of the first batch",
            got=str(error),
            remedy="correct it: the columns that a metric reads are those that `rows` gives",
        ) from error
    known = ", ".join(f"{name} {format(value, task.metrics[name].format)}" for name, value in values.items())
    line = f"metrics on these {len(batch)} training rows, to see that they can be computed: {known}"
    if math.isnan(values[selection]):
        why = explain_undefined(table, task.metrics[selection].strata)
        line += f"; {selection}, which selects the best epoch, has no value here: {why}"
    return line
