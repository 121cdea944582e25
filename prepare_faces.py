"""Prepare face crops with a manifest from videos and photos, and check or describe such a set.

python prepare_faces.py my_videos data/mine
python prepare_faces.py check data/mine
"""

from __future__ import annotations

import sys
from functools import partial

from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks.deepfake.prepare.command_line import FOUND, Inspection, parse_command_line


def main() -> None:
    """Prepare a set, or check or describe one."""
    command = parse_command_line(sys.argv[1:])

    # OpenCV and Arrow are imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.report.console import build_console, print_line

    console = build_console()
    say = partial(print_line, console)
    if not isinstance(command, Inspection):
        from sharpstudent.tasks.deepfake.prepare.run import run_preparation

        run_preparation(command, console)
        return
    if command.what == "describe":
        from sharpstudent.tasks.deepfake.prepare.describe import run_describe

        run_describe(command.manifest, say=say)
        return
    from sharpstudent.tasks.deepfake.prepare.check import run_check

    if not run_check(command.manifest, say=say, full=command.full):
        sys.exit(FOUND)


if __name__ == "__main__":
    with exit_codes():
        main()
