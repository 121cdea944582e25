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
    from lib.engine.build import build_step
    from lib.engine.closing import close_stage_1, describe_checkpoint
    from lib.engine.replay import replay_step
    from lib.engine.run import checking, open_run
    from lib.engine.trainer import Trainer
    from lib.models.build import build_student, print_layers

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
