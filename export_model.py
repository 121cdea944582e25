"""Export a trained model to another runtime, and refuse a file that is worse than the model.

python export_model.py output/RUN --to onnx
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.deploy.command_line import parse_export


def main() -> None:
    """Run the export that the command line asks for."""
    renderer, request = parse_export(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.deploy.export import run_export
    from sharpstudent.report.console import build_console

    run_export(renderer, request, build_console())


if __name__ == "__main__":
    with exit_codes():
        main()
