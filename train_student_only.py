"""Stage 1: fine-tune a student (or make a teacher) on hard labels, from one JSON config.

python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit
"""

from __future__ import annotations

import sys

from sharpstudent.commands import train
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent train` is the same."""
    train(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
