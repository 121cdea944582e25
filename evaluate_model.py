"""Evaluate trained models on data sets: the metrics of their task with intervals, as a report, JSON and tables.

python evaluate_model.py output/RUN --data data/mine
"""

from __future__ import annotations

import sys

from sharpstudent.commands import evaluate
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent evaluate` is the same."""
    evaluate(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
