"""Answer about single files, folders, cameras and streams: what a trained model says of each, in plain words.

python predict.py output/RUN holiday.mp4 photos/ --out answers
"""

from __future__ import annotations

import sys

from sharpstudent.commands import predict
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent predict` is the same."""
    predict(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
