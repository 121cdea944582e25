"""One stage, from its command line to its report: what both training scripts and the API run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from sharpstudent.config.cli import CommandLine
from sharpstudent.core.naming import printable_lines
from sharpstudent.models.build import ModelSource, build_student, build_teachers, print_layers
from sharpstudent.models.trained_start import describe_start
from sharpstudent.registry import build_task
from sharpstudent.train.build import build_step, open_training_data
from sharpstudent.train.callbacks import Callback
from sharpstudent.train.debug.replay import replay_step
from sharpstudent.train.finish import close_stage, describe_checkpoint
from sharpstudent.train.run import Run, checking, open_run
from sharpstudent.train.state import FitResult
from sharpstudent.train.trainer import Trainer
from sharpstudent.train.tuning import tune_model


def run_stage(command: CommandLine, callbacks: Sequence[Callback] = ()) -> tuple[Path, FitResult] | None:
    """Run a stage, resume it, replay one of its steps, list the layers of its models, or draw augmented samples.

    Args:
        command: The command line, checked.
        callbacks: What is told of the training; see `train.callbacks`.

    Returns:
        The run folder and the result; None where nothing was trained.

    Raises:
        UserError: For what the user can correct.
        RunInterrupted: After SIGINT or SIGTERM; the state is saved.
        TrainingStopped: Where going on is useless.
    """
    config = command.config
    task = build_task(config, command.task)
    if command.list_layers:
        print_layers(config, task)
        return None
    if command.preview is not None:
        for line in task.preview_augmentation(command.preview, config.seed):
            print(printable_lines(line))
        return None
    run = open_run(command)
    has_state = run.is_resumed or run.replay is not None  # which the student's weights come from
    with checking(run) as problems:
        started: list[Path] = []
        student = problems.attempt(_build_tuned, run, task, has_state, started.append)
        is_distilled = config.stage == 2
        teacher = problems.attempt(build_teachers, config, task, say=run.say) if is_distilled else None
        data = None if run.replay else problems.attempt(open_training_data, task, config.training.selection_metric)

    step = build_step(run.config, student, teacher, run.device, task=task, ranks=run.ranks)
    if run.replay is not None:
        replay_step(run, step, run.replay)
        return None
    assert data is not None
    if step.answers is not None:
        example, epochs = task.example_batch(2).to(run.device), run.config.training.epochs
        run.say(step.answers.describe(example, len(data.train), epochs))
    about = describe_checkpoint(config, task, start=describe_start(started[0]) if started else None)
    trainer = Trainer(run, task, data, step, about, callbacks if run.is_first else ())
    result = trainer.fit()
    close_stage(run, task, data, result)
    return None if result is None else (run.folder, result)


def _build_tuned(run: Run, task: ModelSource, has_state: bool, tell_start: Callable[[Path], None]) -> nn.Module:
    """Build the student, and freeze what of it is not to learn."""
    section = run.config.student
    student = build_student(run.config, task, resumed=has_state, say=run.say, tell_start=tell_start)
    tuned = tune_model(student, section.tune)
    if tuned is not None:
        run.say(f"student {section.name}: {tuned}")
    return student
