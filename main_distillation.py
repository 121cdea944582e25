"""Stage 2: distil a frozen teacher into the stage-1 student with sharpness-aware steps, from the same JSON config.

python main_distillation.py configs/config_SBI.json -n run
"""

from __future__ import annotations

import sys

from lib.config.command_line import read_command_line
from lib.errors import exit_codes
from lib.tasks import SECTIONS, build_task


def main() -> None:
    command = read_command_line(sys.argv[1:], stage=2, sections=SECTIONS)
    config = command.config

    # torch is imported only now: a mistake in the command line costs no seconds.
    from lib.criterion.build import build_criterion
    from lib.engine.closing import close_stage_2, describe_checkpoint
    from lib.engine.run import checking, open_run
    from lib.engine.step import TrainStep
    from lib.engine.trainer import Trainer
    from lib.models.build import build_student, build_teacher
    from lib.optim.build import build_lr_schedule, build_optimizer

    run = open_run(command)
    task = build_task(config)
    with checking(run) as check:
        student = check(build_student, config, classes=len(task.classes), resumed=run.is_resumed, say=run.say)
        teacher = check(build_teacher, config, classes=len(task.classes), say=run.say)
        data = check(task.build_data)

    criterion = build_criterion(config.criterion)
    optimizer = build_optimizer(config.optimizer, student.to(run.device))
    step = TrainStep(student, teacher.to(run.device), criterion, optimizer, config.optimizer.clip_norm)
    trainer = Trainer(run, task, data, step, build_lr_schedule(config.optimizer), describe_checkpoint(config, task))
    close_stage_2(run, task, trainer.fit())


if __name__ == "__main__":
    with exit_codes():
        main()
