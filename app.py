"""Serve a page on this machine: drop a file on it, and read what a trained model says of it.

python app.py output/RUN
"""

from __future__ import annotations

import sys

from sharpstudent.core.errors import exit_codes
from sharpstudent.deploy.inputs import parse_app


def main() -> None:
    """Serve the page that the command line asks for."""
    task, command = parse_app(sys.argv[1:])

    # torch is imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.deploy.app import run_app

    run_app(task, command)


if __name__ == "__main__":
    with exit_codes():
        main()
