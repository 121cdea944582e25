"""Hold models against each other on the same pictures: did distillation help, and is the student lighter at all?

python compare_models.py --teacher weights/FFc23.tar --before output/FIRST --distilled output/SECOND --data data/mine
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks.deepfake.evaluation.command_line import parse_compare


def main() -> None:
    request = parse_compare(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.report.console import build_console
    from sharpstudent.tasks.deepfake.evaluation.evaluate import run_evaluation

    run_evaluation(request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
