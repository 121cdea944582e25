"""Answer about single files, folders, cameras and streams: what a trained model says of each, in plain words.

python predict.py output/RUN holiday.mp4 photos/ --out answers
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.deploy.inputs import parse_prediction


def main() -> None:
    """Run the prediction that the command line asks for."""
    task, command = parse_prediction(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.deploy.predict import run_prediction

    run_prediction(task, command)


if __name__ == "__main__":
    with exit_codes():
        main()
