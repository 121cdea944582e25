"""Stage 1: fine-tune a student (or make a teacher) on hard labels, from one JSON config.

python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit
"""

from __future__ import annotations

import sys

from sharpstudent.config.cli import read_command_line
from sharpstudent.core.errors import exit_codes
from sharpstudent.registry import build_task, find_task


def main() -> None:
    """Run stage 1, resume it, or replay one of its steps."""
    command = read_command_line(sys.argv[1:], stage=1, find_task=find_task)
    config = command.config

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.models.build import build_student, print_layers
    from sharpstudent.train.build import build_step, open_training_data
    from sharpstudent.train.debug.replay import replay_step
    from sharpstudent.train.finish import close_stage, describe_checkpoint
    from sharpstudent.train.run import checking, open_run
    from sharpstudent.train.trainer import Trainer

    task = build_task(config, command.task)
    if command.list_layers:
        return print_layers(config, task)
    run = open_run(command)
    has_state = run.is_resumed or run.replay is not None  # which the student's weights come from
    with checking(run) as problems:
        student = problems.attempt(build_student, config, task, resumed=has_state, say=run.say)
        data = None if run.replay else problems.attempt(open_training_data, task, config.training.selection_metric)

    step = build_step(config, student, None, run.device, task=task)
    if run.replay is not None:
        return replay_step(run, step, run.replay)
    assert data is not None
    trainer = Trainer(run, task, data, step, describe_checkpoint(config, task))
    close_stage(run, task, data, trainer.fit())


if __name__ == "__main__":
    with exit_codes():
        main()
