"""Stage 2: distil a frozen teacher into the stage-1 student with sharpness-aware steps, from the same JSON config.

python main_distillation.py configs/config_SBI.json -n run
"""

from __future__ import annotations

import sys

from sharpstudent.commands import distill
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent distill` is the same."""
    distill(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
