"""Stage 1: fine-tune a student (or make a teacher) on hard labels, from one JSON config.

python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit
"""

from __future__ import annotations

import sys

from sharpstudent.config.cli import read_command_line
from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks import SECTIONS, build_task


def main() -> None:
    command = read_command_line(sys.argv[1:], stage=1, sections=SECTIONS)
    config = command.config

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.models.build import build_student, print_layers
    from sharpstudent.train.build import build_step
    from sharpstudent.train.debug.replay import replay_step
    from sharpstudent.train.finish import close_stage_1, describe_checkpoint
    from sharpstudent.train.run import checking, open_run
    from sharpstudent.train.trainer import Trainer

    task = build_task(config)
    if command.list_layers:
        return print_layers(config, classes=len(task.classes), image_size=task.image_size)
    run = open_run(command)
    has_state = run.is_resumed or run.replay is not None  # which the student's weights come from
    with checking(run) as check:
        student = check(build_student, config, classes=len(task.classes), resumed=has_state, say=run.say)
        data = None if run.replay else check(task.build_data)

    step = build_step(config, student, None, run.device, image_size=task.image_size)
    if run.replay is not None:
        return replay_step(run, step, run.replay)
    assert data is not None
    trainer = Trainer(run, task, data, step, describe_checkpoint(config, task))
    close_stage_1(run, task, data, trainer.fit())


if __name__ == "__main__":
    with exit_codes():
        main()
