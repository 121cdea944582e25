"""Evaluate trained models on data sets: the metrics of their task with intervals, as a report, JSON and tables.

python evaluate_model.py output/RUN --data data/mine
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.evaluation.command_line import EVALUATE, parse_command_line


def main() -> None:
    """Run the evaluation that the command line asks for."""
    renderer, request = parse_command_line(sys.argv[1:], script=EVALUATE)

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.evaluation.run import run_evaluation
    from sharpstudent.report.console import build_console

    run_evaluation(renderer, request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
