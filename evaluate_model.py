"""Judge trained models on data sets: figures by frame and by video with intervals, as a report, JSON and a model card.

python evaluate_model.py output/RUN --data data/mine
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.tasks.deepfake.evaluation.command_line import parse_evaluate


def main() -> None:
    request = parse_evaluate(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.report.console import build_console
    from sharpstudent.tasks.deepfake.evaluation.evaluate import run_evaluation

    run_evaluation(request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
