"""Measure models of any format side by side: latency, memory, size and the metric.

python benchmark_models.py output/RUN output/RUN/exports/RUN-int8.onnx
"""

from __future__ import annotations

import sys

from sharpstudent.commands import benchmark
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent benchmark` is the same."""
    benchmark(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
