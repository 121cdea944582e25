"""Export a trained model to another runtime, and refuse a file that is worse than the model.

python export_model.py output/RUN --to onnx
"""

from __future__ import annotations

import sys

from sharpstudent.commands import export
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent export` is the same."""
    export(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
