"""Measure models of any format side by side: latency, memory, size and the metric.

python benchmark_models.py output/RUN output/RUN/exports/RUN-int8.onnx
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.deploy.command_line import parse_benchmark


def main() -> None:
    """Run the benchmark that the command line asks for."""
    renderer, request = parse_benchmark(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.deploy.benchmark import run_benchmark
    from sharpstudent.report.console import build_console

    run_benchmark(renderer, request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
