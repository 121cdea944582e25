"""Serve a page on this machine: drop a file on it, and read what a trained model says of it.

python app.py output/RUN
"""

from __future__ import annotations

import sys

from sharpstudent.commands import app
from sharpstudent.core.errors import exit_codes


def main() -> None:
    """Run the command; `sharpstudent app` is the same."""
    app(sys.argv[1:])


if __name__ == "__main__":
    with exit_codes():
        main()
