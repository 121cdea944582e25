"""Stage 1: fine-tune a student (or make a teacher) on hard labels, from one JSON config.

python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit
"""

from __future__ import annotations

import sys

from lib.config.command_line import read_command_line
from lib.errors import exit_codes
from lib.tasks import SECTIONS, build_task


def main() -> None:
    command = read_command_line(sys.argv[1:], stage=1, sections=SECTIONS)
    config = command.config

    # torch is imported only now: a mistake in the command line costs no seconds.
    from lib.criterion.build import build_criterion
    from lib.engine.closing import close_stage_1, describe_checkpoint
    from lib.engine.run import checking, open_run
    from lib.engine.step import TrainStep
    from lib.engine.trainer import Trainer
    from lib.models.build import build_student
    from lib.optim.build import build_lr_schedule, build_optimizer

    run = open_run(command)
    task = build_task(config)
    with checking(run) as check:
        student = check(build_student, config, classes=len(task.classes), resumed=run.is_resumed, say=run.say)
        data = check(task.build_data)

    criterion = build_criterion(config.criterion)
    optimizer = build_optimizer(config.optimizer, student.to(run.device))
    step = TrainStep(student, None, criterion, optimizer, config.optimizer.clip_norm)
    trainer = Trainer(run, task, data, step, build_lr_schedule(config.optimizer), describe_checkpoint(config, task))
    close_stage_1(run, task, trainer.fit())


if __name__ == "__main__":
    with exit_codes():
        main()
